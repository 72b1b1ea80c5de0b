"""The terms of a batch: how it is run, who hears of it, how it ends, and what to do about a slide that failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pathopan.config import Config
from pathopan.errors import MissingMpp, PathopanError, SlideError, UnreadableSlide, UpsamplingRefused
from pathopan.manifest import SlideEntry

REMEDIES: tuple[tuple[type[BaseException], str], ...] = (
    (MissingMpp, "pass --slide-mpp, or fill the manifest column mpp"),
    (UpsamplingRefused, "scan the slide at 0.5 um/px or finer, or leave it out"),
    (UnreadableSlide, "copy or export the file again, or leave it out"),
    (SlideError, "see the message"),
    (MemoryError, "run with fewer --workers or on a machine with more memory"),
    (OSError, "check the disk and the permissions, then run the same command again"),
    (PathopanError, "see the message"),
)


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


@dataclass(frozen=True)
class Failure:
    """Why a slide has no score."""

    slide_id: str
    path: str
    stage: str
    error: str
    message: str
    what_to_do: str


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    done: int
    skipped: int
    failures: tuple[Failure, ...]


def describe_failure(entry: SlideEntry, stage: str, error: BaseException) -> Failure:
    """Say what went wrong with a slide, and what to do.

    Examples
    --------
    >>> describe_failure(SlideEntry("S-1", Path("S-1.svs")), "tile", MemoryError()).what_to_do
    'run with fewer --workers or on a machine with more memory'
    """
    remedy = next((text for kind, text in REMEDIES if isinstance(error, kind)), "")
    remedy = remedy or "a defect in pathopan: please report it with the traceback in the slide's record.json"
    message = " ".join(str(error).split()) or type(error).__name__
    return Failure(entry.slide_id, str(entry.path), stage, type(error).__name__, message, remedy)
