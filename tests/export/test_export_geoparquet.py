import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

from pathopan.errors import ResultError, SchemaError
from pathopan.export.geoparquet import iter_geoparquet, read_geoparquet, read_table, write_geoparquet, write_table
from pathopan.tables import Column, Schema

SCHEMA = Schema(
    "things",
    (
        Column("thing_id", "int", "", "id"),
        Column("class", "str", "", "name"),
        Column("geometry", "geometry", "level-0 px", "outline"),
    ),
)


def things(n=5):
    return gpd.GeoDataFrame(
        {"thing_id": np.arange(n), "class": [f"c{i}" for i in range(n)]},
        geometry=[shapely.box(10 * i, 0, 10 * i + 4, 4) for i in range(n)],
    )


def test_shapes_come_back_as_they_were(tmp_path):
    path = tmp_path / "things.parquet"
    write_geoparquet(path, things(), schema=SCHEMA)
    back = read_geoparquet(path, schema=SCHEMA)
    assert back.crs is None
    pd.testing.assert_frame_equal(back, things(), check_dtype=True)


def test_the_file_is_geoparquet_1_1_without_a_coordinate_system(tmp_path):
    path = tmp_path / "things.parquet"
    write_geoparquet(path, things().set_crs(4326), schema=SCHEMA)
    file = pq.ParquetFile(path)
    geo = json.loads(file.schema_arrow.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["crs"] is None
    assert "bbox" in geo["columns"]["geometry"]["covering"]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_window_reads_only_what_meets_it(tmp_path):
    path = tmp_path / "things.parquet"
    write_geoparquet(path, things(), schema=SCHEMA)
    assert read_geoparquet(path, schema=SCHEMA, bounds_l0=(9, 1, 21, 2))["thing_id"].tolist() == [1, 2]


def test_parts_sum_to_the_whole(tmp_path):
    path = tmp_path / "things.parquet"
    write_geoparquet(path, things(7), schema=SCHEMA)
    parts = list(iter_geoparquet(path, schema=SCHEMA, rows=3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert list(parts[0].columns) == SCHEMA.names
    pd.testing.assert_frame_equal(gpd.GeoDataFrame(pd.concat(parts, ignore_index=True)), things(7))


def test_an_empty_table_keeps_its_columns(tmp_path):
    path = tmp_path / "things.parquet"
    write_geoparquet(path, SCHEMA.empty(), schema=SCHEMA)
    back = read_geoparquet(path, schema=SCHEMA)
    assert len(back) == 0
    assert list(back.columns) == SCHEMA.names
    assert list(iter_geoparquet(path, schema=SCHEMA)) == []


def test_wrong_tables_and_files_are_refused(tmp_path):
    path = tmp_path / "things.parquet"
    with pytest.raises(SchemaError, match="lacks the columns"):
        write_geoparquet(path, things().drop(columns="class"), schema=SCHEMA)
    assert not path.exists()
    with pytest.raises(ResultError, match="is missing: run this slide again"):
        read_geoparquet(path, schema=SCHEMA)
    with pytest.raises(ResultError, match="is missing"):
        list(iter_geoparquet(path, schema=SCHEMA))
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(ResultError, match="cannot be read"):
        read_geoparquet(path, schema=SCHEMA)
    with pytest.raises(ResultError, match="cannot be read"):
        read_table(path)


def test_csv_cells_are_no_formulas(tmp_path):
    table = pd.DataFrame(
        {
            "slide_id": ["=1+1", "+a", "-b", "@c", "plain", None],
            "stil_percent": [-1.5, 2.0, np.nan, 0.0, 1.0, 2.0],
            "=cmd": range(6),
        }
    )
    write_table(tmp_path / "scores.csv", table)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines == [
        "slide_id,stil_percent,'=cmd",
        "'=1+1,-1.5,0",
        "'+a,2.0,1",
        "'-b,,2",
        "'@c,0.0,3",
        "plain,1.0,4",
        ",2.0,5",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_plain_tables_come_back(tmp_path, suffix):
    table = pd.DataFrame({"slide_id": ["a", "b"], "stil_percent": [1.5, np.nan], "n_til": [3, 4]})
    write_table(tmp_path / f"t{suffix}", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / f"t{suffix}"), table)


def test_an_empty_csv_is_an_empty_table(tmp_path):
    write_table(tmp_path / "failures.csv", pd.DataFrame())
    assert len(read_table(tmp_path / "failures.csv")) == 0
