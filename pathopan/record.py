"""What was run, on what, with which versions and settings: the record that makes a number traceable.

A stage's fingerprint sums up all that its output depends on. A stage whose fingerprint stands in the slide's record and
whose outputs exist is not run again: that is all there is to resuming.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pathopan.errors import ResultError
from pathopan.files import atomic_path, has_content, read_file
from pathopan.written import Ledger, adopt, claim, settle

LEDGER = ".pathopan.written.json"
"""In a run's folder: checksums of the files that lie beside it; those of a slide's files are in its record."""

RUN_FILES = (
    "run.json",
    "config.yaml",
    "slides.csv",
    "private.json",
    "scores.csv",
    "scores.parquet",
    "regions.parquet",
    "failures.csv",
    "report.html",
    "import_into_qupath.groovy",
    "calibration.applied.json",
)
"""What a run may write into its folder, beside ``slides``."""

_LOG = logging.getLogger(__name__)

PACKAGES = (
    "pathopan",
    "numpy",
    "scipy",
    "torch",
    "openvino",
    "openslide-python",
    "shapely",
    "zarr",
    "opencv-python-headless",
)


def fingerprint(*parts: Any) -> str:
    """Sum up anything that JSON can hold.

    Examples
    --------
    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """List the versions that a result may depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """Give the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def readable_time(seconds: float) -> str:
    """Write a duration.

    Examples
    --------
    >>> readable_time(42), readable_time(4000), readable_time(200_000)
    ('42 s', '1 h 07 min', '55 h 33 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows of cells with their columns below one another.

    Examples
    --------
    >>> align([["slide_id", "ok"], ["S-1", "yes"]])
    ['slide_id  ok', 'S-1       yes']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in padded]


def command_line() -> str:
    """Give the command as it was typed, with the program's name only."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is complete whenever it exists."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON; ``None`` if there is no such file or it is damaged."""
    try:
        return json.loads(read_file(path))
    except (OSError, ValueError, RecursionError):
        return None


@contextmanager
def replacing(out: Path, *names: str) -> Iterator[None]:
    """Write files into a run's folder, in place of what a run wrote there; anything else is kept under another name.

    Parameters
    ----------
    out : Path
        The run's folder.
    *names : str
        Of :data:`RUN_FILES`.

    Raises
    ------
    ResultError
        If the folder is no run's, and such a file is there already. Nothing is changed then.
    """
    ledger: Ledger | None = read_json(out / LEDGER)
    if not isinstance(ledger, dict):
        run = read_json(out / "run.json")
        ledger = adopt(out) if isinstance(run, dict) and "taxonomy" in run else {}
        found = [name for name in RUN_FILES if name not in ledger and os.path.lexists(out / name)]
        if found:
            msg = f"{out} holds {', '.join(found)}, which pathopan did not write; choose another --out, or move it"
            raise ResultError(msg)
    for kept in claim(out, ledger, names):
        _LOG.warning("%s: %s", out, kept)
    write_json(out / LEDGER, ledger)
    yield
    settle(out, ledger)
    write_json(out / LEDGER, ledger)


@dataclass
class SlideRecord:
    """One slide's ``record.json``: every stage appends its entry."""

    path: Path
    entries: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> SlideRecord:
        """Read the record, or start a new one if there is none or it is damaged."""
        stored = read_json(path)
        stages = stored.get("stages", {}) if isinstance(stored, dict) else None
        sound = isinstance(stages, dict) and all(isinstance(entry, dict) for entry in stages.values())
        sound = sound and isinstance(stored.get("written", {}), dict)
        return cls(path, stored if sound else {})

    def is_current(self, stage: str, print_: str, outputs: Iterable[Path]) -> bool:
        """Say whether a stage's output was made from just these inputs and is still there."""
        entry = self.entries.get("stages", {}).get(stage, {})
        return entry.get("fingerprint") == print_ and all(map(has_content, outputs))

    def finish(self, stage: str, print_: str, *, seconds: float, notes: dict[str, Any] | None = None) -> None:
        """Enter a finished stage, and the checksums of what it wrote."""
        entry = {"fingerprint": print_, "finished": now(), "seconds": round(seconds, 3), **(notes or {})}
        self.entries.setdefault("stages", {})[stage] = entry
        settle(self.path.parent, self.entries.setdefault("written", {}))
        self.write()

    def claim(self, *files: Path) -> None:
        """Make way for files that a stage is about to write or delete; see :func:`pathopan.written.claim`."""
        folder = self.path.parent
        ledger: Ledger = self.entries.setdefault("written", adopt(folder) if "stages" in self.entries else {})
        if kept := claim(folder, ledger, [path.name for path in files]):
            self.entries.setdefault("set_aside", []).extend(kept)
        self.write()

    def forget(self, *stages: str) -> None:
        """Strike stages out, so that their outputs count as unfinished."""
        for stage in stages:
            self.entries.get("stages", {}).pop(stage, None)
        self.write()

    def notes(self, stage: str) -> dict[str, Any]:
        """Give what a stage noted."""
        entry: dict[str, Any] = self.entries.get("stages", {}).get(stage, {})
        return entry

    def write(self) -> None:
        """Write the record."""
        write_json(self.path, self.entries)
