"""Write long lists of objects as JSON part by part, so that memory is bounded whatever the slide."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any, BinaryIO

import geopandas as gpd
import orjson
import pandas as pd

from pathopan.files import atomic_path

_CHUNK_ROWS = 4_000  # Features of one are in memory at a time: about 10 MB
_COMPRESSION = 4


class JsonList:
    """A list within a JSON file that is being written."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._partings = chain([b""], repeat(b",\n"))

    def append(self, entries: Sequence[Any]) -> None:
        """Write entries, in one line."""
        if entries:
            self._out.write(next(self._partings) + orjson.dumps(entries, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])


@contextmanager
def open_list(path: Path, *, before: bytes, after: bytes) -> Iterator[JsonList]:
    """Open a file of one list and what stands around it; its bytes depend on nothing but its content.

    Parameters
    ----------
    path : Path
        Compressed if it ends in ``.gz``; replaced as a whole, or not at all.
    before, after : bytes
        JSON before the list's first entry and after its last, brackets included.
    """
    with ExitStack() as stack:
        out: Any = stack.enter_context(stack.enter_context(atomic_path(path)).open("wb"))
        if path.suffix == ".gz":
            out = stack.enter_context(gzip.GzipFile("", "wb", _COMPRESSION, out, mtime=0))
        out.write(before + b"\n")
        yield JsonList(out)
        out.write(b"\n" + after + b"\n")


def chunks(table: gpd.GeoDataFrame | Iterable[gpd.GeoDataFrame]) -> Iterator[gpd.GeoDataFrame]:
    """Cut a table, or the tables of an iterable, into parts of few rows."""
    for part in [table] if isinstance(table, pd.DataFrame) else table:
        for start in range(0, len(part), _CHUNK_ROWS):
            yield part.iloc[start : start + _CHUNK_ROWS]
