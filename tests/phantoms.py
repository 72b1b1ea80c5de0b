"""Region maps and nuclei with known answers."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import shapely

from pathopan.classes import BREAST, NucleusClass, RegionClass, Taxonomy

TUMOR, STROMA, TILS, OTHER, GLASS = (BREAST.region(n).id for n in ("tumor", "stroma", "tils", "other", "background"))
TUMOR_CELL, STROMAL_CELL, TIL, OTHER_CELL = (BREAST.nucleus(n).id for n in ("tumor", "stromal", "til", "other"))

RICH = Taxonomy(
    name="rich",
    regions=(
        *BREAST.regions,
        RegionClass(6, "necrosis", "excluded", (50, 50, 50), "Necrosis"),
        RegionClass(7, "dcis", "excluded", (9, 9, 9), "In situ"),
    ),
    nuclei=(
        *BREAST.nuclei[:2],
        NucleusClass(3, "lymphocyte", "til", (0, 0, 255), "Immune cells"),
        NucleusClass(5, "plasma", "til", (0, 0, 200), "Plasma"),
        NucleusClass(4, "other", "other", (1, 1, 1), "Other"),
    ),
)
"""Excluded classes, and two kinds of TIL."""


def nuclei_at(xy_um, kinds, *, mpp_l0=0.5, radius_um=4.0, taxonomy=BREAST) -> gpd.GeoDataFrame:
    """Detections: regular 16-gons round the points."""
    xy_um, kinds = np.reshape(np.asarray(xy_um, float), (-1, 2)), np.asarray(kinds, np.int64)
    kinds = np.broadcast_to(kinds, len(xy_um)).copy()
    angle = np.arange(16) * np.pi / 8
    ring = radius_um * np.column_stack([np.cos(angle), np.sin(angle)])
    outlines = shapely.polygons((xy_um[:, None] + ring) / mpp_l0) if len(xy_um) else np.empty(0, object)
    columns = {
        "nucleus_id": np.arange(1, len(xy_um) + 1),
        "class_id": kinds,
        "prob": np.full(len(xy_um), 0.75),
        "tile_index": np.zeros(len(xy_um), np.int64),
        "hematoxylin_mean": np.full(len(xy_um), 0.5),
        **{f"prob_{c.name}": np.where(kinds == c.id, 0.7, 0.1) for c in taxonomy.nuclei},
    }
    return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(outlines, crs=None), crs=None)


def radius_map(side_um: float, mpp: float, centre_um: tuple[float, float] | None = None) -> np.ndarray:
    """Distance of each pixel's centre from a point, in um."""
    n = round(side_um / mpp)
    x, y = centre_um or (side_um / 2, side_um / 2)
    row, column = np.mgrid[:n, :n]
    return np.hypot((column + 0.5) * mpp - x, (row + 0.5) * mpp - y)


def disc_in_stroma(side_um: float = 3000.0, radius_um: float = 700.0, *, mpp: float = 4.0) -> np.ndarray:
    """A disc of tumor in the middle of stroma that fills the map."""
    return np.where(radius_map(side_um, mpp) <= radius_um, TUMOR, STROMA).astype(np.uint8)


def areas(objects) -> dict[str, float]:
    """Area of every compartment in mm2, counted the slow way."""
    from pathopan.objects import COMPARTMENTS

    return {
        c.name: float(c.holds(objects.taxonomy)[objects.places].sum()) * (objects.mpp / 1000) ** 2 for c in COMPARTMENTS
    }
