"""How far a run is: told by the run itself in a small file, and read from beside it at any time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pathopan.batch import Listener
from pathopan.errors import ResultError
from pathopan.files import remove
from pathopan.locks import is_held, read_holder
from pathopan.manifest import SlideEntry
from pathopan.record import align, now, read_json, readable_time, write_json

PROGRESS = ".pathopan.progress.json"
"""In a run's folder while it goes on, or was killed."""

_EVERY_S = 2.0

STATES = ("done", "failed", "running", "partial", "waiting")
"""What a slide can be."""

_BRIEF = ("done", "waiting")  # are not listed one by one, as there may be hundreds
_NAMED = 10  # slides that wait


@dataclass
class _Progress:
    """What the file holds."""

    started: str
    slides: list[str]
    current: str = ""
    finishing: str = ""  # the slide before it, if that has not ended
    stage: str = ""
    tiles_done: int = 0
    tiles: int = 0
    finished: int = 0  # slides that this call has come past
    seconds: float = 0.0  # that it took for them


class ProgressFile:
    """A listener that also writes down what it hears, now and then.

    Parameters
    ----------
    out : Path
        The run's folder.
    entries : sequence of SlideEntry
        What is run.
    listener : Listener
        Is told everything, too.
    """

    def __init__(self, out: Path, entries: Sequence[SlideEntry], listener: Listener) -> None:
        """Begin with nothing done."""
        self._path = out / PROGRESS
        self._listener = listener
        self._began = time.monotonic()
        self._written = [0.0]
        self._progress = _Progress(now(), [entry.slide_id for entry in entries])

    def slide(self, slide_id: str, number: int, total: int) -> None:
        """Hear that a slide begins."""
        progress = self._progress
        progress.finishing, progress.current = progress.current, slide_id
        progress.stage, progress.tiles_done, progress.tiles = "open", 0, 0
        self._write()
        self._listener.slide(slide_id, number, total)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Hear how far it is."""
        self._progress.stage = stage
        if stage == "predict":
            self._progress.tiles_done, self._progress.tiles = done, total
        if time.monotonic() - self._written[0] > _EVERY_S:
            self._write()
        self._listener.progress(stage, done, total)

    def finished(self, slide_id: str, text: str) -> None:
        """Hear how it ended."""
        progress = self._progress
        progress.finished, progress.seconds = progress.finished + 1, time.monotonic() - self._began
        if progress.current == slide_id:
            progress.current = ""
        else:
            progress.finishing = ""
        self._write()
        self._listener.finished(slide_id, text)

    def _write(self) -> None:
        self._written[0] = time.monotonic()
        with contextlib.suppress(OSError):  # it is for onlookers: no slide fails for it
            write_json(self._path, asdict(self._progress))

    def __enter__(self) -> Self:
        """Remove the file when all slides were tried."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the file, unless the run was stopped."""
        if kind is None:
            remove(self._path)


@dataclass(frozen=True)
class SlideStatus:
    """Where one slide stands."""

    slide_id: str
    state: str  # done | failed | running | partial | waiting
    text: str  # what is known beyond that


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands."""

    slides: tuple[SlideStatus, ...]
    alive: bool  # whether a process writes into the folder
    holder: str  # which, if it is known
    seconds_a_slide: float | None  # of the call that goes on, or was stopped
    seconds_left: float | None

    def count(self, state: str) -> int:
        """Count the slides in a state."""
        return sum(slide.state == state for slide in self.slides)


def read_status(out: Path) -> RunStatus:
    """Read how far a run is; safe while it goes on, and changes nothing.

    Raises
    ------
    ResultError
        If the folder holds no run.
    """
    run, told = read_json(out / "run.json"), read_json(out / PROGRESS)
    folders = sorted(path.name for path in (out / "slides").glob("*") if path.is_dir())
    alive, holder = is_held(out), read_holder(out)
    if not run and not folders and not alive:
        msg = f"{out}: holds no run; give the folder that was given to --out"
        raise ResultError(msg)
    told = told if isinstance(told, dict) and isinstance(told.get("slides"), list) else {}
    run = run if isinstance(run, dict) else {}
    listed = told.get("slides") or run.get("slides") or []
    planned = [str(name) for name in listed] if isinstance(listed, list) else []
    names = list(dict.fromkeys([*planned, *folders]))
    slides = tuple(_slide_status(out, name, told if alive else {}) for name in names)
    finished, seconds = _number(told.get("finished")), _number(told.get("seconds"))
    pace = seconds / finished if finished > 0 else None
    left = pace * (len(planned) - finished) if pace is not None and alive else None
    who = f"process {holder['pid']} on {holder['host']} since {holder['since']}" if alive and holder else ""
    return RunStatus(slides, alive, who, pace, left)


def _running(name: str, told: dict[str, Any]) -> str:
    """Say how far a slide is that is being run; nothing of others."""
    if told.get("finishing") == name:
        return "stitch, score, export"
    if told.get("current") != name:
        return ""
    tiles = f", tile {told.get('tiles_done')} of {told.get('tiles')}" if told.get("tiles") else ""
    return f"{told.get('stage')}{tiles}"


def _slide_status(out: Path, name: str, told: dict[str, Any]) -> SlideStatus:
    folder = out / "slides" / name
    record = read_json(folder / "record.json")
    record = record if isinstance(record, dict) else {}
    if running := _running(name, told):
        return SlideStatus(name, "running", running)
    failure, stages = record.get("failure"), record.get("stages")
    if isinstance(failure, dict):
        return SlideStatus(name, "failed", f"{failure.get('stage')}: {failure.get('message')}")
    stages = stages if isinstance(stages, dict) else {}
    if "export" in stages and (folder / "score.json").is_file():
        seconds = sum(_number(entry.get("seconds")) for entry in stages.values() if isinstance(entry, dict))
        return SlideStatus(name, "done", f"{seconds:.0f} s")
    failed = _failed_job(out / "state" / name)
    if failed:
        return SlideStatus(name, "failed", f"{failed.get('stage')}: {failed.get('message')}")
    if stages:
        return SlideStatus(name, "partial", f"{', '.join(stages)} done; the same command goes on from there")
    return SlideStatus(name, "waiting", "")


def _failed_job(folder: Path) -> dict[str, Any]:
    """Read why a job of a planned run failed for a slide, if one did and was not repeated."""
    found = [read_json(path) for path in sorted(folder.glob("*.failed.json"))]
    told = next((state.get("failure") for state in found if isinstance(state, dict)), None)
    return told if isinstance(told, dict) else {}


def _number(stored: Any) -> float:
    return float(stored) if isinstance(stored, int | float) else 0.0


def describe_status(status: RunStatus) -> list[str]:
    """Write a run's status: a line for each slide that runs, failed or is partly done, who waits, and the sums."""
    told = [[slide.slide_id, slide.state, slide.text] for slide in status.slides if slide.state not in _BRIEF]
    lines = align(told) if told else []
    waiting = [slide.slide_id for slide in status.slides if slide.state == "waiting"]
    if waiting:
        more = len(waiting) - _NAMED
        lines.append(f"waiting: {', '.join(waiting[:_NAMED])}{f' and {more} more' if more > 0 else ''}")
    counts = ", ".join(f"{status.count(state)} {state}" for state in STATES if status.count(state))
    lines.append(f"{len(status.slides)} slides: {counts}" if status.slides else "no slide has been begun")
    if status.alive:
        lines.append(f"going on: {status.holder or 'a process writes into the folder'}")
    elif waiting or status.count("partial"):
        lines.append("nobody works on it: the same command goes on where it stopped")
    if status.seconds_a_slide is not None:
        left = f", about {readable_time(status.seconds_left)} left" if status.seconds_left is not None else ""
        lines.append(f"{readable_time(status.seconds_a_slide)} a slide{left}")
    return lines
