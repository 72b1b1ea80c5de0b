"""What a run says while it works: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0
"""Seconds between plain progress lines of one slide."""


class Watcher(Protocol):
    """Is told what a run does."""

    def __enter__(self) -> Self:
        """Start watching."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        ...

    def slide(self, slide_id: str, number: int, total: int) -> None:
        """Hear that a slide begins."""
        ...

    def progress(self, stage: str, done: int, total: int) -> None:
        """Hear how far a stage of the current slide is."""
        ...

    def finished(self, slide_id: str, text: str) -> None:
        """Hear how a slide ended."""
        ...


def open_watcher() -> Watcher:
    """Choose bars for a terminal and plain lines for anything else, on standard error."""
    stream = sys.stderr
    return BarWatcher(stream) if stream.isatty() else LineWatcher(stream)


class LineWatcher:
    """Writes a line when something happened, and every few seconds within a slide."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._current = _Current()
        self._names = dict[str, str]()  # by slide: one may end while the next is being watched

    def __enter__(self) -> Self:
        """Start watching."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""

    def slide(self, slide_id: str, number: int, total: int) -> None:
        """Write that a slide begins."""
        self._names[slide_id] = f"[{number}/{total}] {slide_id}"
        _begin(self._current, self._names[slide_id])
        self._write(self._current.name)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Write how far it is, now and then."""
        rate = _rate(self._current, done)
        if _is_due(self._current) and done < total and rate > 0:
            left = (total - done) / rate
            self._write(f"{self._current.name}: {stage} {done}/{total} tiles, {rate:.2f} tiles/s, {left:.0f} s left")

    def finished(self, slide_id: str, text: str) -> None:
        """Write how a slide ended."""
        self._write(f"{self._names.get(slide_id, slide_id)}: {text}")

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class BarWatcher:
    """Draws a bar for the current slide's tiles and one for the slides."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._slides = self._bars.add_task("slides", total=None, rate="")
        self._tiles = self._bars.add_task("", total=None, rate="")
        self._current = _Current()

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._bars.stop()

    def slide(self, slide_id: str, number: int, total: int) -> None:
        """Begin a slide's bar."""
        _begin(self._current, slide_id)
        self._bars.update(self._slides, total=total)
        self._bars.reset(self._tiles, description=slide_id, total=None, rate="")

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move the slide's bar."""
        rate = _rate(self._current, done)
        text = f"{stage}: {rate:.2f} tiles/s" if rate else stage
        self._bars.update(self._tiles, completed=done, total=total, rate=text)

    def finished(self, slide_id: str, text: str) -> None:
        """Print how a slide ended, above the bars."""
        self._console.print(f"{slide_id}: {text}", markup=False, highlight=False)
        self._bars.advance(self._slides)


@dataclass
class _Current:
    """The slide that is being watched, and its times."""

    name: str = ""
    started: float = 0.0
    told: float = 0.0
    first: int | None = None  # tiles that were done when it began: those of an earlier run do not count as speed


def _begin(current: _Current, name: str) -> None:
    current.name, current.first = name, None
    current.started = current.told = time.monotonic()


def _rate(current: _Current, done: int) -> float:
    """Tiles per second since the first count."""
    if current.first is None:
        current.first, current.started = done, time.monotonic()
    elapsed = time.monotonic() - current.started
    return (done - current.first) / elapsed if elapsed > 0 else 0.0


def _is_due(current: _Current) -> bool:
    """Say, now and then, that a line is due."""
    if time.monotonic() - current.told < LINE_EVERY_S:
        return False
    current.told = time.monotonic()
    return True
