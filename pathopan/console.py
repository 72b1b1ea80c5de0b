"""What a run says while it works: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

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
        self._name = ""
        self._clock = _Clock()

    def __enter__(self) -> Self:
        """Start watching."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""

    def slide(self, slide_id: str, number: int, total: int) -> None:
        """Write that a slide begins."""
        self._name = f"[{number}/{total}] {slide_id}"
        self._clock = _Clock()
        self._write(self._name)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Write how far it is, now and then."""
        rate = self._clock.rate(done)
        if self._clock.due(LINE_EVERY_S) and done < total and rate > 0:
            left = (total - done) / rate
            self._write(f"{self._name}: {stage} {done}/{total} tiles, {rate:.2f} tiles/s, {left:.0f} s left")

    def finished(self, slide_id: str, text: str) -> None:
        """Write how a slide ended."""
        self._write(f"{self._name or slide_id}: {text}")

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
        self._slides: TaskID | None = None
        self._tiles: TaskID | None = None
        self._clock = _Clock()

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
        if self._slides is None:
            self._slides = self._bars.add_task("slides", total=total, rate="")
        if self._tiles is not None:
            self._bars.remove_task(self._tiles)
        self._tiles = self._bars.add_task(slide_id, total=None, rate="")
        self._clock = _Clock()
        self._bars.update(self._slides, completed=number - 1)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move the slide's bar."""
        if self._tiles is not None:
            rate = self._clock.rate(done)
            text = f"{stage}: {rate:.2f} tiles/s" if rate else stage
            self._bars.update(self._tiles, completed=done, total=total, rate=text)

    def finished(self, slide_id: str, text: str) -> None:
        """Print how a slide ended, above the bars."""
        self._console.print(f"{slide_id}: {text}", markup=False, highlight=False)
        if self._slides is not None:
            self._bars.advance(self._slides)


class _Clock:
    """Rate since the first count, so that tiles of an earlier run do not count as this one's speed."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._told = self._start
        self._first: int | None = None

    def rate(self, done: int) -> float:
        if self._first is None:
            self._first, self._start = done, time.monotonic()
        elapsed = time.monotonic() - self._start
        return (done - self._first) / elapsed if elapsed > 0 else 0.0

    def due(self, seconds: float) -> bool:
        if time.monotonic() - self._told < seconds:
            return False
        self._told = time.monotonic()
        return True
