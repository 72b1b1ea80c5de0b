"""The terms of a batch: how it is run, who hears of it, how it ends, and what to do about a slide that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from pathopan.config import Config
from pathopan.errors import (
    ConfigError,
    MissingMpp,
    PathopanError,
    ProcessDied,
    ProcessStalled,
    SlideError,
    UnreadableSlide,
    UpsamplingRefused,
)
from pathopan.files import shown
from pathopan.manifest import SlideEntry
from pathopan.record import SlideRecord, now

REMEDIES: tuple[tuple[type[BaseException], str], ...] = (
    (MissingMpp, "pass --slide-mpp, or fill the manifest column mpp"),
    (UpsamplingRefused, "scan the slide at 0.5 um/px or finer, or leave it out"),
    (UnreadableSlide, "copy or export the file again, or leave it out"),
    (ProcessStalled, "check the disk or network drive, or copy the file again; give slow slides more --patience"),
    (ProcessDied, "run it again with fewer --workers or more memory; if it fails again, copy or export the file again"),
    (SlideError, "see the message"),
    (MemoryError, "run with fewer --workers or on a machine with more memory"),
    (OSError, "check the disk and the permissions, then run the same command again"),
    (PathopanError, "see the message"),
)

FAILURE_COLUMNS = ("slide_id", "path", "stage", "error", "message", "remedy")
"""The columns of ``failures.csv``, and the entries of ``failure`` in a slide's record."""


class Listener(Protocol):
    """Is told what a run does; see :class:`pathopan.console.Watcher`."""

    def slide(self, slide_id: str, number: int, total: int) -> None:
        """Hear that a slide begins."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Hear how far it is."""

    def finished(self, slide_id: str, text: str) -> None:
        """Hear how it ended."""


@dataclass(frozen=True)
class RunSettings:
    """How a cohort is run."""

    out: Path
    bundle: str | Path
    config: Config
    device: str = "auto"
    workers: int = 2
    tissue: Path | None = None
    overwrite: bool = False
    isolate: bool = True  # slides run in a child process, so that one that crashes it stops no other
    patience_s: float = 1_800.0  # a slide without any progress for so long is given up
    gpus: tuple[int, ...] = ()  # each looks at a part of a slide's tiles; without any, the one device does


@dataclass(frozen=True)
class Failure:
    """Why a slide has no score."""

    slide_id: str
    path: str
    stage: str
    error: str  # name of the error's class
    message: str
    remedy: str


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    done: int
    skipped: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...] = ()  # what is odd about the tables of all slides


def describe_failure(entry: SlideEntry, stage: str, error: BaseException) -> Failure:
    """Say what went wrong with a slide, and what to do.

    Examples
    --------
    >>> describe_failure(SlideEntry("S-1", Path("S-1.svs")), "tile", MemoryError()).remedy
    'run with fewer --workers or on a machine with more memory'
    """
    remedy = next((text for kind, text in REMEDIES if isinstance(error, kind)), "")
    remedy = remedy or "a defect in pathopan: please report it with the traceback in the slide's record.json"
    message = " ".join(shown(Path(str(error))).split()) or type(error).__name__
    return Failure(entry.slide_id, shown(entry.path), stage, type(error).__name__, message, remedy)


def check_tissue(entries: Sequence[SlideEntry], tissue: Path | None) -> None:
    """Look at what is wrong with a tissue mask before it is wrong with every slide.

    Raises
    ------
    ConfigError
        If it is no file, or there are several slides: a mask is drawn on one.
    """
    if tissue is None:
        return
    if not tissue.is_file():
        msg = f"--tissue {tissue}: no such file; give a GeoJSON or an image that says where the tissue is"
        raise ConfigError(msg)
    if len(entries) > 1:
        msg = (
            f"--tissue {tissue} says where the tissue of one slide is, and there are {len(entries)}: run that one alone"
        )
        raise ConfigError(msg)


def read_gpus(text: str) -> tuple[int, ...]:
    """Read the numbers of GPUs, such as ``0,1``.

    Raises
    ------
    ConfigError
        If it is no list of different numbers.

    Examples
    --------
    >>> read_gpus("0,1")
    (0, 1)
    """
    numbers = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() for part in numbers) or len(set(numbers)) < len(numbers):
        msg = f"--gpus {text!r} must list the numbers of different GPUs, such as 0,1"
        raise ConfigError(msg)
    return tuple(map(int, numbers))


def open_record(settings: RunSettings, entry: SlideEntry) -> SlideRecord:
    """Open a slide's record in the run's folder, which is made if it is not there."""
    folder = settings.out / "slides" / entry.slide_id
    folder.mkdir(parents=True, exist_ok=True)
    record = SlideRecord.open(folder / "record.json")
    record.entries |= entry.noted()
    return record


def note_failure(record: SlideRecord, failure: Failure, trace: str) -> None:
    """Enter a failure into a slide's record."""
    record.entries["failure"] = {**asdict(failure), "time": now(), "traceback": trace}
    record.write()
