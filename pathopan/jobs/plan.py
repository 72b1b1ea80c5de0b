"""What a run shall do, written once, so that every job of it reads the same; and how each job ended.

``OUT/run.json``, ``OUT/config.yaml`` and ``OUT/slides.csv`` are the plan, and ``OUT/private.json`` that of an anonymous
run, whose ``slides.csv`` has no paths. ``OUT/state/<slide_id>/<job>.json`` says how
a job ended: the stage is done, or the slide was refused, which is an answer and no error. A workflow declares these
small files as its outputs; whatever is large lies in ``OUT/slides`` and survives when a job is repeated.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathopan.classes import Taxonomy
from pathopan.config import Config, load_config
from pathopan.errors import IncompatibleBundle, ManifestError, ResultError
from pathopan.files import shown
from pathopan.manifest import SlideEntry, read_manifest
from pathopan.privacy import PRIVATE, SLIDES, read_private
from pathopan.record import SlideRecord, read_json


@dataclass(frozen=True)
class Plan:
    """A run that was planned: its slides and its settings."""

    out: Path
    run: dict[str, Any]  # run.json
    config: Config
    entries: Mapping[str, SlideEntry]
    tissue: Path | None = None  # GeoJSON or image that says where the tissue is

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
            msg = f"{self.out / SLIDES} has no slide {slide_id!r}{hint}"
            raise ManifestError(msg) from error

    @property
    def anonymous(self) -> bool:
        """Whether no path of a slide may stand in what is shared."""
        return self.config.export.anonymous

    def told_path(self, slide_id: str) -> str:
        """Give a slide's path as tables tell it: nothing of an anonymous run."""
        return "" if self.anonymous else shown(self.entry(slide_id).path)

    def folder(self, slide_id: str) -> Path:
        """Name a slide's folder."""
        return self.out / "slides" / slide_id

    def open_record(self, slide_id: str) -> SlideRecord:
        """Open a slide's record, with the slide's name and path in it."""
        record = SlideRecord.open(self.folder(slide_id) / "record.json")
        record.entries |= self.entry(slide_id).noted()
        return record

    def state_path(self, slide_id: str, job: str) -> Path:
        """Name the file that says how a job of a slide ended."""
        return self.out / "state" / slide_id / f"{job}.json"

    def states(self, slide_id: str, pattern: str) -> list[dict[str, Any]]:
        """Read how the jobs of a slide ended whose names match; ``*.failed`` finds those that failed."""
        files = sorted((self.out / "state" / slide_id).glob(f"{pattern}.json"))
        kept = [path for path in files if path.name.endswith(".failed.json") == pattern.endswith(".failed")]
        return [state for state in map(read_json, kept) if isinstance(state, dict)]


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
    if not isinstance(run, dict) or not (out / SLIDES).is_file():
        msg = f"{out} holds no planned run; `pathopan plan SLIDES --out {out}` makes one"
        raise ResultError(msg)
    config = load_config(out / "config.yaml")
    tissue = Path(run["tissue"]) if run.get("tissue") else None
    if not config.export.anonymous:
        entries = read_manifest(out / SLIDES)
    elif (out / PRIVATE).is_file():
        entries, tissue = read_private(out)
    else:  # deleted once all slides were done: tables can still be made
        entries = [SlideEntry(str(name), Path()) for name in run.get("slides", ())]
    return Plan(out, run, config, {entry.slide_id: entry for entry in entries}, tissue)
