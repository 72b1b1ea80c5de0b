"""The schema of every table, in one place: checked on write and on read, and the source of the data dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import geopandas as gpd
import pandas as pd

from pathopan.classes import Taxonomy
from pathopan.errors import SchemaError

TableT = TypeVar("TableT", bound=pd.DataFrame)
Kind = Literal["int", "float", "str", "bool", "geometry"]
_NUMPY_KINDS: Mapping[Kind, str] = {"int": "iu", "float": "f", "str": "OU", "bool": "b", "geometry": "O"}
_EMPTY_DTYPES: Mapping[Kind, str] = {
    "int": "int64",
    "float": "float64",
    "str": "str",
    "bool": "bool",
    "geometry": "object",
}


@dataclass(frozen=True)
class Column:
    """One column: its kind, its unit (empty if it has none) and what it means."""

    name: str
    kind: Kind
    unit: str
    meaning: str


@dataclass(frozen=True)
class Schema:
    """The columns that a table must have, in their order."""

    name: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return [column.name for column in self.columns]

    def without(self, *names: str) -> Schema:
        """Leave columns out."""
        return Schema(self.name, tuple(column for column in self.columns if column.name not in names))

    def check(self, table: TableT) -> TableT:
        """Return the table with its columns in order, or say what is wrong with it.

        Extra columns are kept, after the schema's own.

        Raises
        ------
        SchemaError
            If a column is missing or holds another kind of value.
        """
        missing = [name for name in self.names if name not in table.columns]
        if missing:
            msg = f"table {self.name!r} lacks the columns {missing}; it has {list(table.columns)}"
            raise SchemaError(msg)
        for column in self.columns:
            if not _fits(table[column.name], column.kind):
                found = table[column.name].dtype
                msg = f"table {self.name!r}: column {column.name!r} must hold {column.kind} values, found dtype {found}"
                raise SchemaError(msg)
        extra = [name for name in table.columns if name not in self.names]
        return table[[*self.names, *extra]]

    def empty(self) -> gpd.GeoDataFrame | pd.DataFrame:
        """Build a table without rows, with the right dtypes."""
        data = {c.name: pd.Series([], dtype=_EMPTY_DTYPES[c.kind]) for c in self.columns}
        frame = pd.DataFrame(data)
        return gpd.GeoDataFrame(frame, geometry="geometry", crs=None) if "geometry" in frame else frame


def _fits(values: pd.Series, kind: Kind) -> bool:
    if kind == "geometry":
        return isinstance(values.dtype, gpd.array.GeometryDtype)
    if kind == "str":
        return pd.api.types.is_string_dtype(values.dtype) or pd.api.types.is_object_dtype(values.dtype)
    return values.dtype.kind in _NUMPY_KINDS[kind]


def nuclei_schema(taxonomy: Taxonomy) -> Schema:
    """List the columns of ``nuclei.parquet`` for a taxonomy."""
    return Schema("nuclei", (*_NUCLEI_BASE, *_probabilities(taxonomy), *_NUCLEI_PLACE, _GEOMETRY))


def detections_schema(taxonomy: Taxonomy) -> Schema:
    """List the columns of a nucleus table before regions are known: what the network itself says."""
    return Schema("detections", (*_NUCLEI_BASE, *_probabilities(taxonomy), _GEOMETRY))


def regions_schema(taxonomy: Taxonomy) -> Schema:
    """List the columns of ``regions.parquet`` for a taxonomy."""
    kinds = [
        Column(f"n_{c.name}", "int", "", f"of class {c.name}") for c in taxonomy.nuclei if f"n_{c.name}" != "n_til"
    ]
    return Schema("regions", (*_REGION_BASE, *kinds, *_REGION_SCORES, _GEOMETRY))


def _probabilities(taxonomy: Taxonomy) -> Sequence[Column]:
    return [
        Column(f"prob_{c.name}", "float", "", f"probability that the nucleus is of class {c.name}")
        for c in taxonomy.nuclei
    ]


_GEOMETRY = Column(
    "geometry", "geometry", "level-0 px", "outline; the origin is the corner of the slide's scanned bounds"
)

_NUCLEI_BASE = (
    Column("nucleus_id", "int", "", "1 upwards in row-major order of centroids; the value in the nucleus label map"),
    Column("class", "str", "", "name of the most probable class"),
    Column("class_id", "int", "", "its id in the taxonomy"),
    Column("prob", "float", "", "confidence that this is a nucleus"),
    Column("tile_index", "int", "", "tile of the grid that found it"),
    Column("x_um", "float", "um", "centroid, from the slide's left border"),
    Column("y_um", "float", "um", "centroid, from the slide's top border"),
    Column("area_um2", "float", "um2", "area of the outline"),
    Column("perimeter_um", "float", "um", "length of the outline"),
    Column(
        "eccentricity", "float", "", "of the ellipse with the outline's second moments: 0 circle, towards 1 spindle"
    ),
    Column("solidity", "float", "", "area over the area of its convex hull"),
    Column("hematoxylin_mean", "float", "OD", "mean hematoxylin optical density inside (Ruifrok & Johnston 2001)"),
)

_NUCLEI_PLACE = (
    Column("region_id", "int", "", "region that holds the centroid; 0 where there is none"),
    Column("compartment", "str", "", "compartment that holds the centroid"),
    Column(
        "distance_to_tumor_um",
        "float",
        "um",
        "from the centroid to the nearest tumor; inside tumor, minus that to the nearest stroma; empty without any",
    ),
)

_REGION_BASE = (
    Column("region_id", "int", "", "1 upwards in row-major order of first pixels"),
    Column("class", "str", "", "region class"),
    Column("class_id", "int", "", "its id in the taxonomy"),
    Column(
        "area_mm2",
        "float",
        "mm2",
        "area of the region's pixels, which is that of the outline; what is excluded within it, by hand or by a buffer,"
        " counts here, as do its nuclei",
    ),
    Column("n_nuclei", "int", "", "nuclei whose centroid lies in the region"),
)

_REGION_SCORES = (
    Column("n_til", "int", "", "lymphocytes and plasma cells whose centroid lies in the region"),
    Column("til_density_per_mm2", "float", "1/mm2", "n_til over area; empty in regions too small to bear a ratio"),
    Column("til_density_ci_low", "float", "1/mm2", "lower end of its 95 % interval: bootstrap over fields, or Poisson"),
    Column("til_density_ci_high", "float", "1/mm2", "upper end of its 95 % interval"),
    Column("til_area_um2", "float", "um2", "segmented area of TIL nuclei"),
    Column("til_area_percent", "float", "%", "til_area_um2 as per cent of the region's area"),
    Column("til_fraction_of_nuclei", "float", "", "n_til over n_nuclei; empty without nuclei"),
    Column("mean_prob", "float", "", "mean confidence of its nuclei; empty without nuclei"),
    Column("touches_border", "bool", "", "whether the region reaches the slide's border, so that it may go on"),
    Column("reason", "str", "", "why a value is empty"),
)

TILES = Schema(
    "tiles",
    (
        Column("tile_index", "int", "", "position of the tile in the full grid, row by row"),
        Column("x_px", "int", "grid px", "left border of the write window; may be negative"),
        Column("y_px", "int", "grid px", "top border of the write window; may be negative"),
        Column("tissue_fraction", "float", "", "share of tissue in the part of the write window on the slide"),
    ),
)
"""The columns of ``tiles.parquet``."""
