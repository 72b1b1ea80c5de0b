"""Regions that a person drew or edited in QuPath, read back so that scores can be computed on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from pathopan.classes import UNANALYSED, RegionClass, Taxonomy
from pathopan.contours import paint, polygon_from_geojson
from pathopan.errors import ConfigError
from pathopan.export.outlines import safe_regions
from pathopan.export.qupath import find_features, read_json

EDITED_REGIONS = "regions.edited.geojson"
"""In a slide's folder: regions that a person edited, on which the slide is scored while the file lies there."""


MAX_COORDINATE = 1e8
"""Level-0 pixels; the largest scans have some 1e6 a side."""


def read_regions_geojson(path: Path) -> gpd.GeoDataFrame:
    """Read regions that a person drew or edited in QuPath.

    Parameters
    ----------
    path : Path
        A GeoJSON file exported by QuPath, plain or ``.gz``.

    Returns
    -------
    GeoDataFrame
        One row per polygon or multipolygon: ``uuid, name, class`` (QuPath's class name, empty if it has none),
        ``object_type, locked, geometry`` (valid, level-0 pixels). Points and lines enclose nothing and are left out.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not GeoJSON, or holds a geometry that is none.
    """
    features = find_features(read_json(path))
    if features is None:
        msg = f"{path}: not a GeoJSON FeatureCollection; in QuPath use File > Export objects as GeoJSON"
        raise ConfigError(msg)
    try:
        rows = [row for number, one in enumerate(features) for row in _read_feature(one, f"{path}: feature {number}")]
    except RecursionError as error:
        msg = f"{path}: objects inside objects inside objects, deeper than anybody draws"
        raise ConfigError(msg) from error
    columns = ["uuid", "name", "class", "object_type", "locked", "geometry"]
    return gpd.GeoDataFrame(pd.DataFrame(rows, columns=columns), geometry="geometry", crs=None)


def _read_feature(feature: Any, where: str) -> Iterator[tuple[str, str, str, str, bool, shapely.Geometry]]:
    if not isinstance(feature, dict) or not isinstance(feature.get("geometry"), dict):
        msg = f"{where} has no geometry"
        raise ConfigError(msg)
    properties = feature.get("properties") or {}
    if not isinstance(properties, dict) or not isinstance(properties.get("childObjects", []), list):
        msg = f"{where}: its properties are not those that QuPath writes"
        raise ConfigError(msg)
    name = _read_class(properties.get("classification") or {}, where)
    shape = _read_shape(feature["geometry"], where)
    if shape is not None:
        object_type = str(properties.get("objectType", "annotation"))
        identity, shown = str(feature.get("id", "")), str(properties.get("name", ""))
        _check_text(where, identity, shown, name, object_type)
        yield identity, shown, name, object_type, bool(properties.get("isLocked", False)), shape
    for child in properties.get("childObjects", []):
        yield from _read_feature(child, where)


def _check_text(where: str, *texts: str) -> None:
    """Refuse what JSON can spell and no file can hold: one half of a character that takes two (a lone surrogate)."""
    broken = [text for text in texts if any("\ud800" <= letter <= "\udfff" for letter in text)]
    if broken:
        msg = f"{where}: its id, name, class or type {broken[0]!a} holds half a character; export it again"
        raise ConfigError(msg)


def _read_class(kind: Any, where: str) -> str:
    """Read the name of a class, in any of the forms that QuPath has used."""
    names = (
        [kind]
        if isinstance(kind, str)
        else kind.get("names", [kind.get("name", "")])
        if isinstance(kind, dict)
        else None
    )
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        msg = f"{where}: its classification is none that QuPath writes"
        raise ConfigError(msg)
    return ": ".join(names)


def _read_shape(geometry: dict[str, Any], where: str) -> shapely.Geometry | None:
    if geometry.get("type") not in ("Polygon", "MultiPolygon"):
        return None
    try:
        shape = polygon_from_geojson(geometry)
    except (KeyError, TypeError, ValueError, IndexError, shapely.errors.ShapelyError) as error:
        msg = f"{where}: its coordinates are not those of a {geometry['type']}: {error}"
        raise ConfigError(msg) from error
    if not (np.abs(shapely.get_coordinates(shape)) <= MAX_COORDINATE).all():  # nor is NaN
        msg = f"{where}: has coordinates beyond {MAX_COORDINATE:g}, which no slide has"
        raise ConfigError(msg)
    safe, _ = safe_regions(np.array([shape], dtype=object))
    return safe[0]


def match_region_classes(drawn: gpd.GeoDataFrame, taxonomy: Taxonomy) -> gpd.GeoDataFrame:
    """Turn QuPath's class names into those of a taxonomy.

    Parameters
    ----------
    drawn : GeoDataFrame
        From `read_regions_geojson`.
    taxonomy : Taxonomy
        A class is found by its QuPath name or its own, in upper or lower case.

    Returns
    -------
    GeoDataFrame
        The annotations (no detections), with ``class`` and ``class_id`` of the taxonomy.

    Raises
    ------
    ConfigError
        If an annotation has no class, or one that the taxonomy lacks.
    """
    regions = drawn[drawn["object_type"] == "annotation"].copy()
    known: dict[str, RegionClass] = {}
    for kind in taxonomy.regions:
        known.setdefault(kind.qupath.lower(), kind)
    known |= {kind.name.lower(): kind for kind in taxonomy.regions if kind.name.lower() not in known}
    unknown = sorted({name for name in regions["class"] if name.strip().lower() not in known})
    if unknown:
        names = ", ".join(repr(name) if name else "no class" for name in unknown)
        fit = ", ".join(sorted({kind.qupath for kind in taxonomy.regions}))
        msg = f"annotations of {names}; set one of {fit} in QuPath and export again"
        raise ConfigError(msg)
    found = [known[name.strip().lower()] for name in regions["class"]]
    regions["class"], regions["class_id"] = [kind.name for kind in found], [kind.id for kind in found]
    return regions.reset_index(drop=True)


def paint_scored(
    shown: npt.NDArray[np.uint8],
    regions: gpd.GeoDataFrame,
    *,
    taxonomy: Taxonomy,
    origin_px: tuple[float, float],
    px_per_l0: tuple[float, float],
) -> npt.NDArray[np.uint8]:
    """Put the regions that were scored over a window of the network's region map.

    Parameters
    ----------
    shown : (Y, X) uint8
        The network's classes.
    regions : GeoDataFrame
        Rows of ``regions.parquet``: they hold all tissue, in level-0 pixels.
    taxonomy : Taxonomy
        What the classes mean.
    origin_px : (float, float)
        x and y of the window's corner, in its own pixels.
    px_per_l0 : (float, float)
        Pixels of the window per level-0 pixel, along x and y.

    Returns
    -------
    (Y, X) uint8
        Tissue of the network that is in no region is background.
    """
    scale = np.asarray(px_per_l0)
    low, high = np.asarray(origin_px), np.asarray(origin_px) + shown.shape[::-1]
    near = regions.iloc[np.sort(regions.sindex.query(shapely.box(*(low / scale), *(high / scale))))]
    moved = shapely.transform(near.geometry.to_numpy(), lambda xy: xy * scale)
    painted = paint(zip(moved, near["class_id"], strict=True), shape=shown.shape, origin=origin_px)
    none = taxonomy.region_ids("background")
    bare = np.where(np.isin(shown, (UNANALYSED, *none)), shown, (*none, UNANALYSED)[0])
    return np.where(painted > 0, painted, bare).astype(np.uint8)
