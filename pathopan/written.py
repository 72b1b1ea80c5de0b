"""What pathopan wrote into a folder, by checksum: whatever else lies where it writes is kept under another name.

A folder's ledger is a dictionary from file name to checksum, or to :data:`CLAIMED` while a file is being written. It is
stored before the files are touched, so a process that is killed never takes its own half of the work for a stranger's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

Ledger = dict[str, str]

CLAIMED = "being written"
ADOPTED = "written before there were ledgers"


def claim(folder: Path, ledger: Ledger, names: Iterable[str]) -> list[str]:
    """Make way for files; what pathopan did not write, or others changed since, is kept as ``kept-1.<name>``.

    Parameters
    ----------
    folder : Path
        Where they are going to be written, replaced or deleted.
    ledger : dict of str to str
        Of that folder; the names are entered, and the caller has to store it before it writes them.
    names : iterable of str
        Files or folders in it.

    Returns
    -------
    list of str
        What was kept, one sentence each.
    """
    kept = []
    for name in names:
        known, path = ledger.get(name), folder / name
        if known not in (CLAIMED, ADOPTED) and os.path.lexists(path) and known != checksum(path):
            kept.append(f"{name} was not as pathopan wrote it, and is kept as {set_aside(path).name}")
        ledger[name] = CLAIMED
    return kept


def settle(folder: Path, ledger: Ledger) -> None:
    """Enter the checksums of what was written since it was claimed."""
    for name in [name for name, known in ledger.items() if known == CLAIMED]:
        if os.path.lexists(folder / name):
            ledger[name] = checksum(folder / name)
        else:
            del ledger[name]


def adopt(folder: Path) -> Ledger:
    """Begin the ledger of a folder that an earlier version of pathopan wrote: what is there counts as its own."""
    return {path.name: ADOPTED for path in folder.iterdir()}


def set_aside(path: Path) -> Path:
    """Keep a file, link or folder under a free name beside it; a file also stays where it is, until it is replaced."""
    kept = next(p for n in count(1) if not os.path.lexists(p := path.with_name(f"kept-{n}.{path.name}")))
    if path.is_dir():  # or a link to one: neither could be replaced
        path.rename(kept)
    else:
        shutil.copy2(path, kept, follow_symlinks=False)
    return kept


def checksum(path: Path) -> str:
    """Sum up a file, or a folder with all that is in it; links, pipes and devices count by their names alone."""
    total = hashlib.blake2b(digest_size=16)
    for part in (path, *_inside(path)):
        total.update(os.fsencode(part.relative_to(path)) + b"\0")
        if part.is_symlink() or not part.is_file():
            total.update(b"link" if part.is_symlink() else b"other")
            continue
        with part.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "blake2b").digest())
    return total.hexdigest()


def _inside(folder: Path) -> Iterator[Path]:
    """List all that is in a folder, in an order that only names decide."""
    if folder.is_dir() and not folder.is_symlink():
        for path in sorted(folder.iterdir()):
            yield path
            yield from _inside(path)
