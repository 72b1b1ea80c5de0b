"""A slide's objects: nuclei and regions as tables, compartments as a map."""

from __future__ import annotations

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from pathopan.classes import Taxonomy
from pathopan.errors import SchemaError, UnknownLabel
from pathopan.objects.compartments import (
    PARTITION,
    CompartmentRules,
    Drawn,
    PlaceMap,
    find_compartments,
    partition_of_place,
)
from pathopan.objects.features import NUCLEI_AT_ONCE, morphology, pixels_of, values_at
from pathopan.objects.outlines import LINES
from pathopan.objects.regions import STRIP_ROWS, ClassMap, IdMap, find_regions, regions_table, strips
from pathopan.tables import detections_schema, nuclei_schema


@dataclass(frozen=True)
class SlideObjects:
    """All that a score looks at."""

    taxonomy: Taxonomy
    mpp: float  # um per pixel of the places
    scale_l0: tuple[float, float]  # level-0 pixels per pixel of the places, x and y
    rules: CompartmentRules
    places: PlaceMap  # (Y, X) class in the low byte, bits of `compartments` above
    nuclei: pd.DataFrame  # rows of nuclei.parquet; with outlines only if they were given
    regions: gpd.GeoDataFrame  # region_id, class, class_id, area_mm2, touches_border, geometry (level-0 px)
    region_fields: pd.DataFrame  # region_id, field, n_pixels: how regions spread over fields, row-major
    bed: shapely.Geometry  # the tumor bed in level-0 px; empty if there is none

    def classes(self) -> ClassMap:
        """Give the (Y, X) region classes after small islands have joined what surrounds them."""
        classes = np.empty(self.places.shape, np.uint8)
        for rows in strips(len(classes), STRIP_ROWS):
            classes[rows] = self.places[rows] & 255
        return classes

    def nucleus_pixels(self) -> npt.NDArray[np.int64]:
        """Give the pixel that holds each nucleus, as index into the flattened places; -1 outside the map."""
        x, y = self.nuclei["x_um"].to_numpy(), self.nuclei["y_um"].to_numpy()
        return pixels_of(x, y, mpp=self.mpp, shape=self.places.shape)


def find_objects(
    classes: ClassMap,
    detections: pd.DataFrame,
    *,
    taxonomy: Taxonomy,
    mpp: float,
    scale_l0: tuple[float, float],
    rules: CompartmentRules | None = None,
    drawn: Drawn | None = None,
) -> SlideObjects:
    """Find regions and compartments, measure nuclei and give each its place.

    Parameters
    ----------
    classes : (Y, X) uint8
        Region class ids; 0 is not analysed.
    detections : DataFrame
        ``nucleus_id, class_id, prob, tile_index, hematoxylin_mean, prob_<class>`` and either ``geometry`` (polygons in
        level-0 px), from which position and shape are worked out, or what `measure_nuclei` found on them: of a large
        slide, outlines need not be in memory. Other columns are kept.
    taxonomy : Taxonomy
        What the classes mean.
    mpp : float
        Micrometres per pixel of the map.
    scale_l0 : (float, float)
        Level-0 pixels per pixel of the map, along x and y.
    rules : CompartmentRules, optional
        Lengths and areas; defaults without it.
    drawn : Drawn, optional
        What a person drew over it, in level-0 pixels.

    Returns
    -------
    SlideObjects

    Raises
    ------
    ShapeMismatch
        If the map is not two-dimensional.
    UnknownLabel
        If the map or the nuclei hold a class that the taxonomy lacks.
    SchemaError
        If a column is missing.
    """
    rules, drawn = rules or CompartmentRules(), drawn or Drawn()
    um_per_px = (mpp / scale_l0[0], mpp / scale_l0[1])
    measured = _checked(detections, taxonomy)
    if "geometry" in measured:
        measured = measure_nuclei(measured, um_per_px=um_per_px)
    x_um, y_um = measured["x_um"].to_numpy(), measured["y_um"].to_numpy()
    points = pixels_of(x_um, y_um, mpp=mpp, shape=classes.shape)
    regions = find_regions(classes, taxonomy=taxonomy, mpp=mpp, min_region_um2=rules.min_region_um2)
    table = regions_table(regions, taxonomy=taxonomy, mpp=mpp, scale_l0=scale_l0)
    spread = _spread(regions.ids, len(table), rules.field_um / mpp)
    region_id = np.maximum(values_at(regions.ids, points, outside=0), 0).astype(np.int64)
    filtered = [regions.classes()]
    del regions  # the two largest maps must not live at once with those of the compartments
    found = find_compartments(
        filtered.pop(), taxonomy=taxonomy, mpp=mpp, rules=rules, points=points, drawn=_scaled(drawn, scale_l0)
    )
    place = partition_of_place(taxonomy)[values_at(found.places, points, outside=0)]
    columns = {
        "class": measured["class_id"].map({c.id: c.name for c in taxonomy.nuclei}).astype("str"),
        "region_id": region_id,
        "compartment": pd.array(np.array(PARTITION, dtype=object)[place], dtype="str"),
        "distance_to_tumor_um": found.distance_um,
    }
    schema = nuclei_schema(taxonomy) if "geometry" in measured else nuclei_schema(taxonomy).without("geometry")
    nuclei = schema.check(measured.assign(**columns))
    bed = shapely.transform(found.bed, lambda xy: xy * np.asarray(scale_l0))
    return SlideObjects(taxonomy, mpp, scale_l0, rules, found.places, nuclei, table, spread, bed)


def measure_nuclei(detections: gpd.GeoDataFrame, *, um_per_px: tuple[float, float]) -> gpd.GeoDataFrame:
    """Add what an outline alone tells: ``x_um, y_um`` of its centroid, by which QuPath counts, and its shape.

    Parameters
    ----------
    detections : GeoDataFrame
        Outlines in pixels.
    um_per_px : (float, float)
        Micrometres per pixel along x and y.
    """
    x_um, y_um = _centroids(detections, um_per_px)
    shapes = morphology(detections.geometry.to_numpy(), um_per_px=um_per_px)
    return detections.assign(x_um=x_um, y_um=y_um, **{str(name): shapes[name].to_numpy() for name in shapes})


def field_indices(count: int, field_px: float) -> npt.NDArray[np.int64]:
    """Give the field of each row (or column) of pixels: the one that holds the pixel's centre.

    Examples
    --------
    >>> field_indices(5, 2.0).tolist()
    [0, 0, 1, 1, 2]
    """
    return np.floor((np.arange(count) + 0.5) / field_px).astype(np.int64)


def _spread(ids: IdMap, n_regions: int, field_px: float) -> pd.DataFrame:
    """Count the pixels that each region has in each field."""
    row_field, column_field = (field_indices(n, field_px) for n in ids.shape)
    columns = int(column_field.max(initial=-1)) + 1
    parts = [np.empty((0, 3), np.int64)]
    for row in np.unique(row_field):
        first, stop = np.searchsorted(row_field, (row, row + 1)).tolist()
        counts = np.zeros((n_regions + 1) * columns, np.int64)
        for lines in strips(stop - first, LINES):
            key = np.maximum(ids[first:stop][lines], 0).astype(np.int64) * columns + column_field
            counts += np.bincount(key.ravel(), minlength=len(counts))
        filled = np.flatnonzero(counts[columns:]) + columns
        parts.append(np.column_stack([filled // columns, row * columns + filled % columns, counts[filled]]))
    table = pd.DataFrame(np.concatenate(parts), columns=["region_id", "field", "n_pixels"])
    return table.sort_values(["region_id", "field"], ignore_index=True)


def _checked(detections: pd.DataFrame, taxonomy: Taxonomy) -> pd.DataFrame:
    """Refuse, before any work, a table that cannot be finished."""
    shape = ("x_um", "y_um", "area_um2", "perimeter_um", "eccentricity", "solidity")
    given = ("class", "geometry") if {"x_um", "area_um2"} <= {*detections.columns} else ("class", *shape)
    wanted = [c.name for c in detections_schema(taxonomy).columns if c.name not in given]
    missing = [name for name in wanted if name not in detections.columns]
    if missing:
        msg = f"the table of detections lacks the columns {missing}; it has {list(detections.columns)}"
        raise SchemaError(msg)
    unknown = sorted(set(detections["class_id"].unique().tolist()) - {c.id for c in taxonomy.nuclei})
    if unknown:
        msg = f"nuclei have the class ids {unknown}, which taxonomy {taxonomy.name!r} does not know"
        raise UnknownLabel(msg)
    bare = int((detections.geometry.is_empty | detections.geometry.isna()).sum()) if "geometry" in detections else 0
    if bare:
        msg = f"{bare} nuclei have no outline, so no place; leave them out"
        raise SchemaError(msg)
    return detections


def _centroids(detections: gpd.GeoDataFrame, um_per_px: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Give x and y of each outline's centroid: by these QuPath counts."""
    outlines = detections.geometry.to_numpy()
    found = [
        shapely.get_coordinates(shapely.centroid(outlines[first : first + NUCLEI_AT_ONCE]))
        for first in range(0, len(outlines), NUCLEI_AT_ONCE)
    ]
    return np.ascontiguousarray((np.concatenate([np.empty((0, 2)), *found]) * um_per_px).T)


def _scaled(drawn: Drawn, scale_l0: tuple[float, float]) -> Drawn:
    excluded, bed = (
        None if shape is None else shapely.transform(shape, lambda xy: xy / np.asarray(scale_l0))
        for shape in (drawn.excluded, drawn.bed)
    )
    return Drawn(excluded, bed)
