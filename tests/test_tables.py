import geopandas as gpd
import pandas as pd
import pytest

from pathopan.classes import BREAST
from pathopan.errors import SchemaError
from pathopan.tables import TILES, Column, Schema, detections_schema, nuclei_schema

TINY = Schema("tiny", (Column("a", "int", "px", "first"), Column("b", "str", "", "second")))


def test_columns_come_in_order_and_extra_ones_after():
    table = TINY.check(pd.DataFrame({"extra": [1], "b": ["x"], "a": [2]}))
    assert list(table.columns) == ["a", "b", "extra"]


def test_a_missing_column_is_named():
    with pytest.raises(SchemaError, match=r"table 'tiny' lacks the columns \['b'\]"):
        TINY.check(pd.DataFrame({"a": [1]}))


def test_a_wrong_kind_is_named():
    with pytest.raises(SchemaError, match="column 'a' must hold int values, found dtype float64"):
        TINY.check(pd.DataFrame({"a": [1.5], "b": ["x"]}))


def test_a_geometry_column_must_hold_geometry():
    schema = Schema("shapes", (Column("geometry", "geometry", "", ""),))
    with pytest.raises(SchemaError, match="must hold geometry"):
        schema.check(pd.DataFrame({"geometry": ["POINT (0 0)"]}))


@pytest.mark.parametrize("schema", [TINY, TILES, nuclei_schema(BREAST), detections_schema(BREAST)])
def test_an_empty_table_passes_its_own_check(schema):
    assert len(schema.check(schema.empty())) == 0


def test_nuclei_have_geometry_without_a_crs_and_a_probability_per_class():
    table = nuclei_schema(BREAST).empty()
    assert isinstance(table, gpd.GeoDataFrame)
    assert table.crs is None
    assert {f"prob_{c.name}" for c in BREAST.nuclei} <= set(table.columns)


def test_every_column_says_what_it_means():
    for schema in (TILES, nuclei_schema(BREAST), detections_schema(BREAST)):
        assert all(column.meaning for column in schema.columns)
        assert len(set(schema.names)) == len(schema.names)
