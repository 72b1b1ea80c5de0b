"""What tells whose slides a run holds, paths and file names, kept out of what an anonymous run shares.

The jobs of a planned run need the paths. Of an anonymous one they stand in ``OUT/private.json`` and nowhere else.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathopan.errors import ManifestError
from pathopan.files import atomic_path, remove, shown
from pathopan.manifest import COLUMNS, MANIFEST_ID, SlideEntry, read_manifest
from pathopan.record import SlideRecord, read_json, replacing, write_json

PRIVATE = "private.json"
"""In the folder of a planned anonymous run, for its jobs: where its slides and its tissue mask lie."""

SLIDES = "slides.csv"
"""In the folder of a planned run: its slides, as a manifest; of an anonymous run without paths."""

_NOTE = (
    "Where the slides of this anonymous run lie, which its jobs must know. Leave this file out of whatever you share, "
    "and delete it when all slides are done."
)


def write_slides(out: Path, entries: Sequence[SlideEntry], *, tissue: Path | None = None, anonymous: bool) -> None:
    """Write ``slides.csv`` with absolute paths, so that a job may be started anywhere; or ``private.json`` with them.

    Parameters
    ----------
    out : Path
        Folder of a planned run.
    entries : sequence of SlideEntry
        Its slides.
    tissue : Path, optional
        The mask that says where tissue is; ``run.json`` tells it of a run that is not anonymous.
    anonymous : bool
        Whether ``slides.csv`` shall have no paths.
    """
    paths = {entry.slide_id: str(entry.path.absolute()) for entry in entries}
    with replacing(out, SLIDES, PRIVATE):
        if anonymous:
            rows = [
                {"slide_id": e.slide_id, "path": paths[e.slide_id], "mpp": e.mpp, MANIFEST_ID: e.named} for e in entries
            ]
            told = {"note": _NOTE, "tissue": str(tissue.absolute()) if tissue else None, "slides": rows}
            with atomic_path(out / PRIVATE) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        with atomic_path(out / SLIDES) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow([*COLUMNS, MANIFEST_ID])
            for entry in entries:
                path = "" if anonymous else paths[entry.slide_id]
                mpp = "" if entry.mpp is None else repr(entry.mpp)
                writer.writerow([entry.slide_id, path, mpp, entry.named])
        if not anonymous:
            remove(out / PRIVATE)


def read_private(out: Path) -> tuple[list[SlideEntry], Path | None]:
    """Read the slides of a planned anonymous run, and its tissue mask.

    Raises
    ------
    ManifestError
        If the file is not there, or cannot be read.
    """
    stored = read_json(out / PRIVATE)
    try:
        entries = [
            SlideEntry(row["slide_id"], Path(row["path"]), row["mpp"], named=row.get(MANIFEST_ID, ""))
            for row in stored["slides"]
        ]
        return entries, Path(stored["tissue"]) if stored["tissue"] else None
    except (TypeError, KeyError) as error:
        msg = f"{out / PRIVATE}, which tells the jobs of an anonymous run where its slides lie, cannot be read"
        raise ManifestError(msg) from error


def hide_plan(out: Path, *, tissue: Path | None) -> None:
    """Make a planned run anonymous: its paths move to ``private.json``, and what its jobs told of failures loses them.

    A run that was not planned stays as it is.
    """
    if not (out / SLIDES).is_file() or (out / PRIVATE).is_file():
        return
    entries = read_manifest(out / SLIDES)
    paths = {entry.slide_id: entry.path for entry in entries}
    for file in sorted((out / "state").glob("*/*.json")):
        state, name = read_json(file), file.parent.name
        if isinstance(state, dict) and name in paths:
            hide_failure(state.get("failure", {}), paths[name], name)
            hide_failure(state, paths[name], name)
            write_json(file, state)
    write_slides(out, entries, tissue=tissue, anonymous=True)


def hide_failure(told: dict[str, Any], path: Path, name: str) -> None:
    """Strike a slide's path and file name out of what is told of a failure, in place."""
    if "path" in told:
        told["path"] = ""
    for key in {"message", "traceback"} & set(told):
        told[key] = without_path(str(told[key]), path, name)


def forget_paths(record: SlideRecord, path: Path) -> None:
    """Strike a slide's path and file name out of its record: what is written shall not tell whose slide it was."""
    entries = record.entries
    for noted in (entries, entries.get("slide", {})):
        if "path" in noted:
            noted["path"] = ""
    for noted in (entries.get("regions_edited", {}), *entries.get("region_edits", ())):
        noted |= dict.fromkeys({"file", "command"} & set(noted), "")
    hide_failure(entries.get("failure", {}), path, record.path.parent.name)
    record.write()


def without_path(text: str, path: Path, name: str) -> str:
    """Put a slide's name in place of its path and its file's name.

    Examples
    --------
    >>> without_path("/data/Doe.svs: cannot be read; Doe.svs is empty", Path("/data/Doe.svs"), "S-1")
    'S-1: cannot be read; S-1 is empty'
    """
    if path == Path():  # nobody knows it any more
        return text
    for told in dict.fromkeys((shown(path.resolve()), shown(path.absolute()), shown(path), path.name)):
        text = text.replace(told, name)
    return text.replace(shown(path.resolve().parent), "...")
