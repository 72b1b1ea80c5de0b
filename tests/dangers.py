"""What a child process in the tests runs: the truth in the network's place, and slides that are dangerous by name."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from functools import partial
from pathlib import Path

from pathopan import pipeline
from pathopan.batch import RunSettings
from pathopan.inference.child import Child

SLOW_S = 10
"""That a slide named slow takes, a tile a second."""


def open_dangerous(settings: RunSettings, keep_open: tuple[int, ...]) -> Child:
    """Open a child, in place of ``pathopan.pipeline.open_worker``."""
    return Child(partial(start, settings), patience_s=settings.patience_s, keep_open=keep_open)


def open_light(settings: RunSettings, keep_open: tuple[int, ...]) -> Child:
    """Open a child that runs no slide and loads no network: it is only dangerous."""
    return Child(start_light, patience_s=settings.patience_s, keep_open=keep_open)


def start_light():
    """Be ready to be dangerous."""
    from pathopan.classes import BREAST

    def answer(request, tell):
        tell("predict", 1, 9)
        endanger(request[0].path)
        for done in range(SLOW_S if request[0].path.stem == "slow" else 0):
            time.sleep(1)
            tell("predict", done, SLOW_S)
        return None, False

    return {"bundle": {"name": "none"}, "taxonomy": BREAST.to_dict()}, answer


def start(settings: RunSettings):
    """Be ready to run slides, in the child."""
    import oracle

    import pathopan.stages

    pathopan.stages.open_runtime = lambda *_args, **_kwargs: oracle.OracleRuntime()
    safe = pathopan.stages.open_slide

    def open_slide(path, **named):
        endanger(path)
        return safe(path, **named)

    pathopan.stages.open_slide = open_slide
    return pipeline.start_attempts(settings)


def endanger(path: Path) -> None:
    """Do what a bad decoder does, by the file's name."""
    if path.stem == "crashes":
        ctypes.string_at(0)
    if path.stem == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if path.stem == "hangs":
        time.sleep(600)
    if path.stem == "exits":
        os._exit(7)
    if path.stem == "once" and not path.with_suffix(".tried").exists():
        path.with_suffix(".tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def echo():
    """Answer with what is asked, and with who answers."""

    def answer(request, tell):
        tell("asked", request)
        if request == "raise":
            raise LookupError(request)
        if request == "crash":
            ctypes.string_at(0)
        if request == "sleep":
            time.sleep(600)
        return request, os.getpid()

    return "hello", answer


def bad_start():
    """Never get ready."""
    raise LookupError("no bundle")
