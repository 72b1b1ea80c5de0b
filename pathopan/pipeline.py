"""A run: a cohort of slides, each in turn in a child process that may die, of which a bad one stops no other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from pathopan.batch import (
    Failure,
    Listener,
    Outcome,
    RunSettings,
    check_tissue,
    describe_failure,
    note_failure,
    open_record,
)
from pathopan.classes import Taxonomy
from pathopan.config import save_config
from pathopan.errors import ProcessDied, ProcessStalled
from pathopan.files import remove_leftovers
from pathopan.inference.child import Answer, Child, Tell, unheard
from pathopan.inference.ordered import ordered_map
from pathopan.locks import hold_folder
from pathopan.manifest import SlideEntry
from pathopan.privacy import forget_paths
from pathopan.record import command_line, now, replacing, versions, write_json
from pathopan.status import ProgressFile

Attempt = tuple[Failure | None, bool]
"""Why a slide has no score, if so, and whether there was anything to do."""


class Request(NamedTuple):
    """What whoever runs slides is asked for."""

    entry: SlideEntry
    run: dict[str, Any]  # what run.json holds
    finish: bool = True  # if not, the tiles are looked at, and that is all
    overwrite: bool = False  # do everything again


class Worker(Protocol):
    """Whoever runs slides: a child process, or this one."""

    def greeting(self) -> Any:
        """Describe the bundle."""

    def ask(self, request: Any, hear: Tell) -> Any:
        """Run a slide."""

    def close(self) -> None:
        """End."""


class InLine:
    """Runs slides in this process."""

    def __init__(self, start: Callable[[], tuple[Any, Answer]]) -> None:
        """Read the bundle."""
        self._greeting, self._answer = start()

    def greeting(self) -> Any:
        """Describe the bundle."""
        return self._greeting

    def ask(self, request: Any, hear: Tell) -> Any:
        """Run a slide."""
        return self._answer(request, hear)

    def close(self) -> None:
        """Do nothing."""


def open_worker(settings: RunSettings, keep_open: tuple[int, ...]) -> Worker:
    """Open whoever runs the slides; a child begins to load the network's libraries at once."""
    start = partial(start_attempts, settings)
    if not settings.isolate:
        return InLine(start)
    return Child(start, patience_s=settings.patience_s, keep_open=keep_open)


def start_attempts(settings: RunSettings) -> tuple[dict[str, Any], Answer]:
    """Be ready to run slides: read the bundle, and describe it."""
    from pathopan.attempt import Attempts  # with torch, which the parent of a child never loads

    attempts = Attempts(settings)

    def answer(request: Request, tell: Tell) -> Attempt:
        return attempts(request.entry, request.run, tell, finish=request.finish, overwrite=request.overwrite)

    return attempts.described, answer


def run_cohort(entries: Sequence[SlideEntry], settings: RunSettings, listener: Listener) -> Outcome:
    """Run slides one after the other, or overlapping by one; whatever one of them does, the rest are done.

    Parameters
    ----------
    entries : sequence of SlideEntry
        With distinct names.
    settings : RunSettings
        How, and where to.
    listener : Listener
        Is told what happens.

    Returns
    -------
    Outcome
        With a failure for each slide that has no score.

    Raises
    ------
    BundleError, ConfigError
        If the bundle, the device or the tissue mask cannot be used: then no slide can be run.
    FolderInUse
        If another run writes into the same folder.
    ResultError
        If the folder cannot be written to, or is no run's and holds files of the same names.
    """
    check_tissue(entries, settings.tissue)
    with ExitStack() as stack:
        lock = stack.enter_context(hold_folder(settings.out))
        remove_leftovers(settings.out)
        worker = stack.enter_context(closing(open_worker(settings, lock)))
        from pathopan.cohort import write_cohort_tables  # takes a second, in which the child goes on loading

        described = worker.greeting()
        run = write_run_files(settings, described, entries)
        heard = stack.enter_context(ProgressFile(settings.out, entries, listener))
        finisher = None
        if described.get("overlap") and settings.isolate and len(entries) > 1:
            finisher = stack.enter_context(closing(open_worker(replace(settings, gpus=()), lock)))
        done, skipped, failures = 0, 0, []
        for entry, (failure, ran) in _attempts(entries, run, settings, heard, worker, finisher):
            if failure:
                failures.append(failure)
                heard.finished(entry.slide_id, f"failed at {failure.stage}: {failure.message}")
                continue
            done, skipped = done + ran, skipped + (not ran)
            heard.finished(entry.slide_id, "done" if ran else "complete already")
        notes = write_cohort_tables(settings.out, taxonomy=Taxonomy.from_dict(described["taxonomy"]))
    return Outcome(done, skipped, tuple(failures), tuple(notes))


def _attempts(
    entries: Sequence[SlideEntry],
    run: dict[str, Any],
    settings: RunSettings,
    listener: Listener,
    worker: Worker,
    finisher: Worker | None,
) -> Iterator[tuple[SlideEntry, Attempt]]:
    """Run slides in turn; where there is a second process, it finishes each while the first looks at the next."""

    def looked() -> Iterator[tuple[SlideEntry, Attempt]]:
        for number, entry in enumerate(entries, start=1):
            listener.slide(entry.slide_id, number, len(entries))
            request = Request(entry, run, finish=finisher is None, overwrite=settings.overwrite)
            yield entry, _attempt(worker, request, settings, listener.progress)

    if finisher is None:
        yield from looked()
        return

    def finished(item: tuple[SlideEntry, Attempt]) -> tuple[SlideEntry, Attempt]:
        entry, (failure, to_do) = item
        done = failure is not None or not to_do
        return item if done else (entry, _attempt(finisher, Request(entry, run), settings, unheard))

    yield from ordered_map(finished, looked(), workers=1, ahead=1, abandon=finisher.close)


def _attempt(worker: Worker, request: Request, settings: RunSettings, hear: Tell) -> Attempt:
    """Run one slide; where its process dies, once more in a fresh one, which goes on from what is written."""
    reached = "open"

    def told(stage: str, done: int, total: int) -> None:
        nonlocal reached
        reached = stage
        hear(stage, done, total)

    for last in (False, True):
        try:
            found: Attempt = worker.ask(request, told)
        except ProcessDied as error:
            if not last and not isinstance(error, ProcessStalled):
                request = request._replace(overwrite=False)  # what the first one finished is kept
                continue
            failure = describe_failure(request.entry, reached, error)
            with contextlib.suppress(OSError):
                record = open_record(settings, request.entry)
                remove_leftovers(record.path.parent)
                note_failure(record, failure, error.log)
                if settings.config.export.anonymous:
                    forget_paths(record, request.entry.path)
            return failure, False
        else:
            return found
    raise AssertionError  # the second pass always returns


def write_run_files(settings: RunSettings, described: dict[str, Any], entries: Sequence[SlideEntry]) -> dict[str, Any]:
    """Write ``run.json`` and ``config.yaml``: what is run, with what. Gives what ``run.json`` holds."""
    anonymous = settings.config.export.anonymous
    run: dict[str, Any] = {
        "started": now(),
        "command": "pathopan run" if anonymous else command_line(),
        "versions": versions(),
        "cpus": os.cpu_count(),
        **described,
        "device": settings.device,
        "workers": settings.workers,
        "tissue": str(settings.tissue) if settings.tissue and not anonymous else None,
        "slides": [entry.slide_id for entry in entries],
        "settings": settings.config.to_dict(),
    }
    with replacing(settings.out, "run.json", "config.yaml"):
        write_json(settings.out / "run.json", run)
        save_config(settings.config, settings.out / "config.yaml")
    return run
