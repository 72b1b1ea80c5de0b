"""Write files so that one which exists is complete, and read only what is a file."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LEFTOVER = re.compile(r"\..+\.\d+\.pathopan\.tmp")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside the target, and rename it into place when the block ends well.

    The target may be a file or a folder; an existing one is replaced. If the block raises, nothing is left behind. A
    file is on the disk before it has its name, so that one which exists is complete even if the power fails.

    Parameters
    ----------
    target : Path
        Where the finished file or folder shall be. Its parent is made if needed.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("done")
    >>> [path.name for path in folder.iterdir()]
    ['a.txt']
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (target.with_name(f".{target.name}.{os.getpid()}{end}.pathopan.tmp") for end in ("", "0"))
    for path in (temporary, old):
        remove(path)
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
        if target.is_dir() and not target.is_symlink():
            target.replace(old)  # deleting a folder takes its time, and half of one must not have its name
        temporary.replace(target)
    finally:
        for path in (temporary, old):
            remove(path)


def has_content(path: Path) -> bool:
    """Say whether there is a folder, or a file that is not empty."""
    try:
        return path.is_dir() or path.stat().st_size > 0
    except OSError:
        return False


def remove(path: Path) -> None:
    """Delete a file or a folder; a missing one is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that were killed left half-written in a slide's folder; none may be writing there."""
    for pattern in (".*.pathopan.tmp", "shards/*/.*.pathopan.tmp"):
        for path in folder.glob(pattern):
            if _LEFTOVER.fullmatch(path.name):
                remove(path)


def remove_empty(folder: Path) -> None:
    """Delete a folder that holds nothing; any other stays."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def read_file(path: Path) -> bytes:
    """Read a whole file.

    Raises
    ------
    OSError
        If it cannot be read, or is a pipe or a device, on which reading could wait forever.
    """
    check_regular(path)
    return path.read_bytes()


def check_regular(path: Path) -> None:
    """Refuse pipes, sockets and devices, which may never end.

    Raises
    ------
    OSError
        If it is one.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "Not a file, but a pipe, a socket or a device", str(path))


def check_regular_tree(folder: Path) -> None:
    """Refuse a folder that holds a pipe, a socket or a device at any depth.

    Raises
    ------
    OSError
        Naming the first one found.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            check_regular(Path(parent) / name)


def shown(path: Path) -> str:
    r"""Write a path so that any file can hold it: bytes that are no text in the system's encoding are escaped.

    Examples
    --------
    >>> shown(Path("caf\udce9.svs")) == r"caf\udce9.svs"
    True
    """
    return str(path).encode("utf-8", "backslashreplace").decode()
