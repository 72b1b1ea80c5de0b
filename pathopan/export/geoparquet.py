"""Tables on disk: GeoParquet 1.1 for shapes, plain Parquet for scores, and CSV for people. Checked both ways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from pathopan.errors import PathopanError, ResultError
from pathopan.files import atomic_path, check_regular
from pathopan.tables import Schema

Bounds = tuple[float, float, float, float]

_ROW_GROUP = 20_000
_COVERING = "bbox"
_DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, pa.ArrowException,
    shapely.errors.ShapelyError,
)  # fmt: skip
"""What Arrow, GeoPandas and shapely raise on a damaged file."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_geoparquet(path: Path, table: gpd.GeoDataFrame, *, schema: Schema) -> None:
    """Write shapes in level-0 pixels as GeoParquet 1.1: no coordinate system, a bounding box per row, Zstd.

    Parameters
    ----------
    path : Path
        Replaced as a whole, or not at all.
    table : GeoDataFrame
        Its coordinate system is dropped: pixels have none.
    schema : Schema
        What the table must hold.

    Raises
    ------
    SchemaError
        If it does not.
    """
    checked = schema.check(table).set_crs(None, allow_override=True)
    with atomic_path(path) as temporary:
        checked.to_parquet(
            temporary,
            index=False,
            compression="zstd",
            schema_version="1.1.0",
            write_covering_bbox=True,
            row_group_size=_ROW_GROUP,
        )


def read_geoparquet(path: Path, *, schema: Schema | None = None, bounds_l0: Bounds | None = None) -> gpd.GeoDataFrame:
    """Read shapes, all of them or those whose bounding box meets a rectangle.

    Parameters
    ----------
    path : Path
        A file that `write_geoparquet` made.
    schema : Schema, optional
        What the table must hold; without it the table is taken as it is.
    bounds_l0 : (float, float, float, float), optional
        ``x0, y0, x1, y1`` in level-0 pixels; other row groups are not even read.

    Raises
    ------
    ResultError
        If the file is missing or is not GeoParquet.
    SchemaError
        If its columns are not those of the schema.
    """
    try:
        check_regular(path)
        table = gpd.read_parquet(path, bbox=bounds_l0)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    return schema.check(table) if schema else table


def iter_geoparquet(path: Path, *, schema: Schema, rows: int = _ROW_GROUP) -> Iterator[gpd.GeoDataFrame]:
    """Read shapes part by part, so that memory is bounded whatever the slide.

    Parameters
    ----------
    path : Path
        A file that `write_geoparquet` made.
    schema : Schema
        What the table must hold.
    rows : int
        Of a part, at most.

    Raises
    ------
    ResultError
        If the file is missing or is not Parquet.
    SchemaError
        If its columns are not those of the schema.
    """
    try:
        check_regular(path)
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name != _COVERING]
            for group in range(file.num_row_groups):  # `iter_batches` holds on to groups that it has read
                stored = file.read_row_group(group, columns=names, use_threads=False)
                for batch in stored.to_batches(max_chunksize=rows):
                    frame = pa.Table.from_batches([batch]).to_pandas(ignore_metadata=True)
                    shapes = shapely.from_wkb(frame["geometry"].to_numpy())
                    yield schema.check(frame.set_geometry(gpd.GeoSeries(shapes, crs=None)))
    except PathopanError:
        raise
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def count_rows(path: Path) -> int:
    """Count a Parquet table's rows without reading them.

    Raises
    ------
    ResultError
        If the file is missing or is not Parquet.
    """
    try:
        return int(pq.read_metadata(path).num_rows)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table without shapes: ``.parquet`` as it is, ``.csv`` for people.

    In CSV an empty value is an empty cell, and a text that a spreadsheet would run as a formula (it starts with one of
    ``= + - @``) is preceded by an apostrophe, for slide names come from elsewhere.

    Parameters
    ----------
    path : Path
        Ends in ``.parquet`` or ``.csv``; replaced as a whole, or not at all.
    table : DataFrame
        Its index is not written.
    """
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            _without_formulas(table).to_csv(temporary, index=False, lineterminator="\n")
        else:
            table.to_parquet(temporary, index=False, compression="zstd")


def write_csv(path: Path, parts: Iterable[pd.DataFrame]) -> None:
    """Write a table that comes in parts, all of the same columns, as `write_table` writes CSV.

    Parameters
    ----------
    path : Path
        Ends in ``.csv``; replaced as a whole, or not at all.
    parts : iterable of DataFrame
        At least one.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        for number, part in enumerate(parts):
            _without_formulas(part).to_csv(out, index=False, lineterminator="\n", header=number == 0)


def copy_geoparquet(source: Path, target: Path, *, slide_id: str) -> None:
    """Copy a GeoParquet file with a first column that names the slide, so that slides' files make one data set.

    Parameters
    ----------
    source : Path
        A file that `write_geoparquet` made.
    target : Path
        Replaced as a whole, or not at all.
    slide_id : str
        Value of the column ``slide_id``.

    Raises
    ------
    ResultError
        If the source is missing or is not Parquet.
    """
    try:
        with pq.ParquetFile(source) as file, atomic_path(target) as temporary:
            kept = {key: value for key, value in (file.schema_arrow.metadata or {}).items() if key == b"geo"}
            schema = file.schema_arrow.insert(0, pa.field("slide_id", pa.string())).with_metadata(kept)
            with pq.ParquetWriter(temporary, schema, compression="zstd") as out:
                for group in range(file.num_row_groups):
                    stored = file.read_row_group(group, use_threads=False)
                    column = pa.array([slide_id] * len(stored), pa.string())
                    out.write_table(stored.add_column(0, "slide_id", column).cast(schema))
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(source, error) from error


def read_table(path: Path, *, needs: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table that `write_table` made.

    Raises
    ------
    ResultError
        If the file is missing, cannot be read, or lacks a column that it needs.
    """
    try:
        check_regular(path)
        table = pd.read_csv(path, dtype={"slide_id": "str"}) if path.suffix == ".csv" else pd.read_parquet(path)
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    missing = [name for name in needs if name not in table]
    if missing:
        msg = f"{path} lacks the columns {missing}: run again, or restore the file"
        raise ResultError(msg)
    return table


def read_columns(path: Path, names: list[str]) -> pd.DataFrame:
    """Read some columns of a Parquet table; shapes and the rest are not even read.

    Raises
    ------
    ResultError
        If the file is missing, cannot be read, or lacks one of them.
    """
    try:
        check_regular(path)
        return pd.read_parquet(path, columns=names)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def _without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    safe = table.rename(columns=lambda name: _defused(name))
    for name in safe.columns[[dtype.kind in "OU" or pd.api.types.is_string_dtype(dtype) for dtype in safe.dtypes]]:
        safe[name] = np.array([_defused(value) for value in safe[name]], dtype=object)
    return safe


def _defused(value: object) -> object:
    if not isinstance(value, str):
        return value
    line = value.replace("\r", " ").replace("\n", " ")  # a bare carriage return would end the row
    return f"'{line}" if value.startswith(_FORMULA_STARTS) else line


def _unreadable(path: Path, error: Exception) -> ResultError:
    state = "cannot be read" if path.exists() else "is missing"
    return ResultError(f"{path} {state}: run this slide again, or restore the file ({type(error).__name__}: {error})")
