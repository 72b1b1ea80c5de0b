"""GeoParquet 1.1 written and rewritten part by part: the table of a slide's nuclei is never in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from pathopan.errors import ResultError
from pathopan.files import atomic_path
from pathopan.tables import Kind, Schema

PART_ROWS = 20_000
"""Rows of a row group, and of a part."""

_COVERING = "bbox"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TYPES: Mapping[Kind, pa.DataType] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "bool": pa.bool_(),
    "geometry": pa.binary(),
}

_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {
            "encoding": "WKB",
            "crs": None,
            "geometry_types": ["Polygon"],
            "covering": {_COVERING: {corner: [_COVERING, corner] for corner in _CORNERS}},
        }
    },
}
"""What makes a Parquet file GeoParquet; pixels have no coordinate system."""


class GeoParquetWriter:
    """Writes polygons in level-0 pixels with a bounding box per row; the file appears when its block ends well.

    Parameters
    ----------
    path : Path
        Replaced as a whole, or not at all.
    schema : Schema
        What the table must hold; columns beyond it are kept after it.
    """

    def __init__(self, path: Path, *, schema: Schema) -> None:
        """Remember where to; nothing is written yet."""
        self._path, self._schema = path, schema
        self._stack = ExitStack()
        self._temporary: list[Path] = []
        self._writer: list[pq.ParquetWriter] = []  # opened by the first rows, whose types it takes

    def __enter__(self) -> Self:
        """Begin a temporary file beside the target."""
        self._temporary.append(self._stack.enter_context(atomic_path(self._path)))
        return self

    def write(self, table: gpd.GeoDataFrame) -> None:
        """Write rows.

        Raises
        ------
        SchemaError
            If they are not what the schema says.
        """
        checked = self._schema.check(table)
        shapes = checked.geometry.to_numpy()
        plain = pa.Table.from_pandas(pd.DataFrame(checked.drop(columns="geometry")), preserve_index=False)
        plain = plain.append_column("geometry", pa.array(shapely.to_wkb(shapes), pa.binary()))
        self.write_arrow(plain.append_column(_COVERING, _boxes(shapely.bounds(shapes))))

    def write_arrow(self, table: pa.Table) -> None:
        """Write rows that hold their outlines as well-known binary and have their bounding boxes."""
        known = {column.name: _TYPES[column.kind] for column in self._schema.columns}
        extra = [name for name in table.column_names if name not in (*known, _COVERING)]
        table = table.select([*known, *extra, _COVERING]).replace_schema_metadata(None)
        table = table.cast(pa.schema([(field.name, known.get(field.name, field.type)) for field in table.schema]))
        if not self._writer:
            schema = table.schema.with_metadata({"geo": json.dumps(_GEO)})
            self._writer.append(pq.ParquetWriter(self._temporary[-1], schema, compression="zstd"))
        self._writer[-1].write_table(table, row_group_size=PART_ROWS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file and rename it into place; after an error nothing is left of it."""
        for writer in self._writer:
            writer.close()
        self._stack.__exit__(kind, error, trace)


def _boxes(bounds: npt.NDArray[np.float64]) -> pa.StructArray:
    return pa.StructArray.from_arrays([pa.array(corner) for corner in bounds.reshape(-1, 4).T], names=list(_CORNERS))


def iter_arrow(path: Path) -> Iterator[pa.Table]:
    """Read a table part by part, outlines as they are stored.

    Raises
    ------
    ResultError
        If the file is missing or damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        state = "cannot be read" if path.exists() else "is missing"
        msg = f"{path} {state}: run this slide again, or restore the file ({type(error).__name__}: {error})"
        raise ResultError(msg) from error


def read_without_shapes(path: Path) -> pd.DataFrame:
    """Read all columns but the outlines, which are most of a table.

    Raises
    ------
    ResultError
        If the file is missing or damaged.
    """
    try:
        names = [name for name in pq.read_schema(path).names if name not in ("geometry", _COVERING)]
        return pq.read_table(path, columns=names).to_pandas(ignore_metadata=True)
    except (OSError, pa.ArrowInvalid) as error:
        state = "cannot be read" if path.exists() else "is missing"
        msg = f"{path} {state}: run this slide again, or restore the file ({type(error).__name__}: {error})"
        raise ResultError(msg) from error


def with_columns(source: Path, target: Path, columns: Mapping[str, Any], *, schema: Schema) -> None:
    """Write a table again with some of its columns set anew, part by part.

    Parameters
    ----------
    source, target : Path
        May be the same file.
    columns : mapping of str to (N,) array
        In the order of the source's rows.
    schema : Schema
        Of the target.
    """
    with GeoParquetWriter(target, schema=schema) as writer:
        start = 0
        for table in iter_arrow(source):
            part = slice(start, start + len(table))
            for name, values in columns.items():
                found = pa.array(values[part], from_pandas=True)
                at = table.schema.get_field_index(name)
                table = table.append_column(name, found) if at < 0 else table.set_column(at, name, found)
            writer.write_arrow(table)
            start = part.stop
        if start == 0:
            writer.write(schema.empty())
