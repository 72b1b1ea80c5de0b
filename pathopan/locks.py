"""Locks on a run's folder that die with the processes that hold them, however they die."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pathopan.errors import FolderInUse, ResultError

LOCK = ".pathopan.lock"
"""In a run's folder while a process writes there; whose it is stands inside."""

_WAIT_S = 15.0  # a command that only looks holds the lock for a moment, the child of a run that was killed some seconds
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def hold_folder(out: Path, *, shared: bool = False) -> Iterator[tuple[int, ...]]:
    """Hold a run's folder while writing into it.

    Parameters
    ----------
    out : Path
        The run's folder; made if it is not there.
    shared : bool
        Let others in that ask for the same, such as the stages of several slides on a cluster; none that asks to be
        alone.

    Yields
    ------
    tuple of int
        Descriptors to hand to child processes, so that the lock lasts as long as they do; empty where the file system
        knows no locks, which is told as a warning.

    Raises
    ------
    FolderInUse
        If another process holds it; says which.
    ResultError
        If the folder cannot be made, or cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = _acquire(out / LOCK, shared=shared)
    except OSError as error:
        if isinstance(error, FolderInUse):
            raise
        msg = f"{out}: cannot be written to: {error.strerror or error}; choose another --out, or check its permissions"
        raise ResultError(msg) from error
    if handle is None:
        warnings.warn(f"{out}: this file system knows no locks; see that only one run writes there", stacklevel=3)
        yield ()
        return
    try:
        yield (handle,)
    finally:
        with contextlib.suppress(OSError):
            _lock(
                handle, shared=False
            )  # nobody else holds it, so the name may go: who waits sees that, and makes a new one
            (out / LOCK).unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path, *, shared: bool) -> int | None:
    deadline = time.monotonic() + _WAIT_S
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            _lock(handle, shared=shared)
        except OSError as error:
            os.close(handle)
            if error.errno in _UNSUPPORTED:
                return None
            if time.monotonic() > deadline:
                raise FolderInUse(_occupied(path)) from error
            time.sleep(0.1)
            continue
        if _is_same(handle, path):
            _sign(handle)
            return handle
        os.close(handle)  # its holder removed it meanwhile


def _lock(handle: int, *, shared: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    """Write into the lock whose it is, for people and for messages."""
    note = {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps(note).encode())


def _occupied(path: Path) -> str:
    holder = read_holder(path.parent)
    who = f"process {holder['pid']} on {holder['host']}, since {holder['since']}," if holder else "another process"
    return (
        f"{path.parent}: {who} is writing there; wait for it (`pathopan status {path.parent}` shows how far it is), "
        "or give another --out"
    )


def read_holder(out: Path) -> dict[str, Any] | None:
    """Tell who signed the lock of a run's folder last; ``None`` if nobody did. Whether it lives is another question."""
    try:
        note = json.loads((out / LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and {"host", "pid", "since"} <= set(note) else None


def is_held(out: Path) -> bool:
    """Tell whether a living process writes into a run's folder; changes nothing."""
    try:
        handle = os.open(out / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        _lock(handle, shared=False)
    except OSError as error:
        return error.errno not in _UNSUPPORTED
    else:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)
