"""What a run shall do, written once, so that every job of it reads the same; and how each job ended.

``OUT/run.json``, ``OUT/config.yaml`` and ``OUT/slides.csv`` are the plan. ``OUT/state/<slide_id>/<job>.json`` says how
a job ended: the stage is done, or the slide was refused, which is an answer and no error. A workflow declares these
small files as its outputs; whatever is large lies in ``OUT/slides`` and survives when a job is repeated.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathopan.classes import Taxonomy
from pathopan.config import Config, load_config
from pathopan.errors import IncompatibleBundle, ManifestError, ResultError
from pathopan.files import atomic_path, shown
from pathopan.manifest import COLUMNS, SlideEntry, read_manifest
from pathopan.record import SlideRecord, read_json


@dataclass(frozen=True)
class Plan:
    """A run that was planned: its slides and its settings."""

    out: Path
    run: dict[str, Any]  # run.json
    config: Config
    entries: Mapping[str, SlideEntry]

    @property
    def taxonomy(self) -> Taxonomy:
        """Classes of the bundle.

        Raises
        ------
        ResultError
            If ``run.json`` does not hold them.
        """
        try:
            return Taxonomy.from_dict(self.run["taxonomy"])
        except (KeyError, IncompatibleBundle) as error:
            msg = f"{self.out / 'run.json'} holds no usable taxonomy; plan the run again ({error!r})"
            raise ResultError(msg) from error

    def entry(self, slide_id: str) -> SlideEntry:
        """Find a slide.

        Raises
        ------
        ManifestError
            If it is not planned.
        """
        try:
            return self.entries[slide_id]
        except KeyError as error:
            near = difflib.get_close_matches(slide_id, list(self.entries), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {len(self.entries)} slides"
            msg = f"{self.out / 'slides.csv'} has no slide {slide_id!r}{hint}"
            raise ManifestError(msg) from error

    def folder(self, slide_id: str) -> Path:
        """Name a slide's folder."""
        return self.out / "slides" / slide_id

    def open_record(self, slide_id: str) -> SlideRecord:
        """Open a slide's record, with the slide's name and path in it."""
        record = SlideRecord.open(self.folder(slide_id) / "record.json")
        record.entries |= {"slide_id": slide_id, "path": shown(self.entry(slide_id).path)}
        return record

    def state_path(self, slide_id: str, job: str) -> Path:
        """Name the file that says how a job of a slide ended."""
        return self.out / "state" / slide_id / f"{job}.json"

    def states(self, slide_id: str, pattern: str) -> list[dict[str, Any]]:
        """Read how the jobs of a slide ended whose names match; ``*.failed`` finds those that failed."""
        files = sorted((self.out / "state" / slide_id).glob(f"{pattern}.json"))
        kept = [path for path in files if path.name.endswith(".failed.json") == pattern.endswith(".failed")]
        return [state for state in map(read_json, kept) if isinstance(state, dict)]


def write_slides(out: Path, entries: list[SlideEntry]) -> None:
    """Write ``slides.csv``, with absolute paths, so that a job may be started anywhere."""
    with atomic_path(out / "slides.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for entry in entries:
            writer.writerow([entry.slide_id, entry.path.absolute(), "" if entry.mpp is None else repr(entry.mpp)])


def read_plan(out: Path) -> Plan:
    """Read what ``pathopan plan`` wrote.

    Raises
    ------
    ResultError
        If no run is planned there.
    ConfigError, ManifestError
        If its settings or slides cannot be read.
    """
    run = read_json(out / "run.json")
    if not isinstance(run, dict) or not (out / "slides.csv").is_file():
        msg = f"{out} holds no planned run; `pathopan plan SLIDES --out {out}` makes one"
        raise ResultError(msg)
    entries = read_manifest(out / "slides.csv")
    return Plan(out, run, load_config(out / "config.yaml"), {entry.slide_id: entry for entry in entries})
