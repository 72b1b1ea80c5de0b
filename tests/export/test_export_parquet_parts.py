import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from pathopan.classes import BREAST
from pathopan.errors import ResultError, SchemaError
from pathopan.export.geoparquet import copy_geoparquet, read_geoparquet, write_geoparquet
from pathopan.export.parquet_parts import GeoParquetWriter, iter_arrow, read_without_shapes, with_columns
from pathopan.tables import detections_schema

SCHEMA = detections_schema(BREAST)
_VALUES = {"int": np.arange(6), "float": np.linspace(0, 1, 6), "str": np.array(["til"] * 6, object)}


def table() -> gpd.GeoDataFrame:
    columns = {c.name: _VALUES[c.kind] for c in SCHEMA.columns if c.kind != "geometry"}
    return gpd.GeoDataFrame(
        {**columns, "more": np.arange(6)}, geometry=[shapely.box(i, i, i + 1, i + 2) for i in range(6)]
    )


@pytest.fixture
def parts(tmp_path):
    path = tmp_path / "parts.parquet"
    with GeoParquetWriter(path, schema=SCHEMA) as writer:
        for rows in (slice(0, 0), slice(0, 4), slice(4, 6)):
            writer.write(table().iloc[rows])
    return path


def test_parts_are_read_as_what_is_written_at_once(tmp_path, parts):
    write_geoparquet(tmp_path / "whole.parquet", table(), schema=SCHEMA)
    found, whole = (read_geoparquet(path, schema=SCHEMA) for path in (parts, tmp_path / "whole.parquet"))
    pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(whole))


def test_a_rectangle_and_a_copy_can_be_read(tmp_path, parts):
    assert read_geoparquet(parts, bounds_l0=(0, 0, 0.5, 0.5))["nucleus_id"].tolist() == [0]
    copy_geoparquet(parts, tmp_path / "copy.parquet", slide_id="S-1")
    assert set(gpd.read_parquet(tmp_path / "copy.parquet")["slide_id"]) == {"S-1"}


def test_outlines_need_not_be_read(parts):
    found = read_without_shapes(parts)
    assert "geometry" not in found
    assert found["prob"].tolist() == table()["prob"].tolist()


def test_columns_are_set_anew_and_added_in_place(parts):
    with_columns(parts, parts, {"prob": np.full(6, 0.25), "extra": np.arange(6.0)}, schema=SCHEMA)
    found = gpd.read_parquet(parts)
    assert set(found["prob"]) == {0.25}
    assert found["extra"].tolist() == [0, 1, 2, 3, 4, 5]
    assert found.geometry.tolist() == table().geometry.tolist()
    assert [path.name for path in parts.parent.iterdir()] == [parts.name]


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    with GeoParquetWriter(tmp_path / "none.parquet", schema=SCHEMA) as writer:
        writer.write(table().iloc[:0])
    assert len(read_geoparquet(tmp_path / "none.parquet", schema=SCHEMA)) == 0


def test_nothing_is_left_of_a_table_that_is_not_as_it_must_be(tmp_path):
    def write() -> None:
        with GeoParquetWriter(tmp_path / "a.parquet", schema=SCHEMA) as writer:
            writer.write(table())
            writer.write(table().drop(columns="prob"))

    with pytest.raises(SchemaError):
        write()
    assert not list(tmp_path.iterdir())


def test_a_missing_table_is_told(tmp_path):
    with pytest.raises(ResultError, match="is missing: run this slide again"):
        next(iter_arrow(tmp_path / "a.parquet"))
    with pytest.raises(ResultError, match="is missing: run this slide again"):
        read_without_shapes(tmp_path / "a.parquet")
