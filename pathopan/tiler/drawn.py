"""Tissue that a person drew: polygons as QuPath writes them, or a mask image."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from PIL import Image, UnidentifiedImageError
from shapely import affinity
from shapely.geometry import shape as to_shape

from pathopan.contours import paint, polygon_from_geojson
from pathopan.errors import ConfigError
from pathopan.files import check_regular, read_file
from pathopan.geometry import resize_labels
from pathopan.slide import SlideInfo
from pathopan.tiler.tissue import TissueMask

_IMAGE_DAMAGE = (OSError, ValueError, SyntaxError, TypeError, LookupError, RuntimeError, MemoryError, struct.error)
_IGNORE = "Ignore*"  # QuPath's class for what is not to be analysed
_MAX_COORDINATE = 1e8  # level-0 pixels; the largest scans have some 1e6 a side
_MAX_ASPECT_RATIO = 1.05  # a mask image that is more out of proportion belongs to another slide


def tissue_from_geojson(path: Path, info: SlideInfo, mpp: float) -> TissueMask:
    """Read tissue from polygons.

    Parameters
    ----------
    path : Path
        GeoJSON: a FeatureCollection, a list of features as QuPath writes it, one feature or one geometry. Coordinates
        are level-0 pixels as QuPath shows them. Points and lines are passed over; polygons classified ``Ignore*``
        are cut out.
    info : SlideInfo
        The slide they were drawn on.
    mpp : float
        Micrometres per pixel of the mask.

    Raises
    ------
    ConfigError
        If the file cannot be read, holds no polygon, or all its polygons lie outside the slide.
    """
    drawn: list[shapely.Geometry] = []
    ignored: list[shapely.Geometry] = []
    for feature in _features(path):
        (ignored if _class_name(feature) == _IGNORE else drawn).extend(_polygons(path, feature))
    if not drawn:
        msg = f"{path}: no polygon inside; draw the tissue in QuPath and export it as GeoJSON"
        raise ConfigError(msg)
    scale_x, scale_y = info.scale_l0(mpp)
    area = shapely.difference(shapely.union_all(drawn), shapely.union_all(ignored))
    if not area.intersects(shapely.box(0, 0, *info.size_l0)):
        bounds = [round(value) for value in shapely.union_all(drawn).bounds]
        msg = (
            f"{path}: its polygons lie at {bounds}, outside the slide of {info.size_l0[0]} x {info.size_l0[1]} pixels; "
            "coordinates must be level-0 pixels, as QuPath exports them"
        )
        raise ConfigError(msg)
    scaled = affinity.scale(area, 1 / scale_x, 1 / scale_y, origin=(0, 0))
    width, height = info.size_px(mpp)
    mask = paint([(scaled, 1)], shape=(height, width)) > 0
    return TissueMask(mask, mpp, reason="" if mask.any() else "the polygons are smaller than a pixel of the mask")


def tissue_from_image(path: Path, info: SlideInfo, mpp: float) -> TissueMask:
    """Read tissue from a picture of the whole slide: what is not black is tissue.

    Parameters
    ----------
    path : Path
        PNG, TIFF or JPEG, of any size in the slide's proportions.
    info : SlideInfo
        The slide it belongs to.
    mpp : float
        Micrometres per pixel of the mask.

    Raises
    ------
    ConfigError
        If the file cannot be read, or does not have the slide's proportions.
    """
    try:
        check_regular(path)
        with Image.open(path) as image:
            image.verify()  # of a PNG: its checksums, which reading its pixels passes over
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L") if image.mode in ("P", "1") else image)
    except (UnidentifiedImageError, Image.DecompressionBombError, *_IMAGE_DAMAGE) as error:
        msg = f"{path}: cannot be read as a mask image: {error}"
        raise ConfigError(msg) from error
    flat = (pixels if pixels.ndim == 2 else pixels[..., : 3 if pixels.shape[2] > 2 else 1].max(axis=2)) > 0
    width, height = info.size_px(mpp)
    ratio = (flat.shape[1] * info.size_l0[1]) / (flat.shape[0] * info.size_l0[0])
    if not 1 / _MAX_ASPECT_RATIO <= ratio <= _MAX_ASPECT_RATIO:
        msg = (
            f"{path}: {flat.shape[1]} x {flat.shape[0]} pixels do not have the proportions of the slide "
            f"({info.size_l0[0]} x {info.size_l0[1]})"
        )
        raise ConfigError(msg)
    mask = resize_labels(flat.astype(np.uint8), (width, height)) > 0
    return TissueMask(mask, mpp, reason="" if mask.any() else "the mask image is all black")


def _features(path: Path) -> list[Any]:
    try:
        stored = json.loads(read_file(path).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path}: cannot be read as GeoJSON: {error}"
        raise ConfigError(msg) from error
    if isinstance(stored, Mapping):
        stored = stored.get("features", [stored])
    if not isinstance(stored, list) or not all(isinstance(feature, Mapping) for feature in stored):
        msg = f"{path}: not GeoJSON: expected a FeatureCollection, a list of features, a feature or a geometry"
        raise ConfigError(msg)
    return stored


def _class_name(feature: Mapping[str, Any]) -> str:
    properties = feature.get("properties")
    classification = (properties.get("classification") or {}) if isinstance(properties, Mapping) else {}
    return str(classification.get("name", "")) if isinstance(classification, Mapping) else str(classification)


def _polygons(path: Path, feature: Mapping[str, Any]) -> Iterator[shapely.Geometry]:
    geometry = feature.get("geometry") if "geometry" in feature else feature
    if geometry is None:
        return
    try:
        outline = isinstance(geometry, Mapping) and geometry.get("type") in ("Polygon", "MultiPolygon")
        found = polygon_from_geojson(geometry) if outline else to_shape(geometry)
        if not (np.abs(shapely.get_coordinates(found)) <= _MAX_COORDINATE).all():  # nor is NaN
            msg = f"{path}: has coordinates beyond {_MAX_COORDINATE:g}, which no slide has"
            raise ConfigError(msg)
        parts = shapely.get_parts(shapely.make_valid(found))
    except (shapely.errors.ShapelyError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        msg = f"{path}: a geometry cannot be read: {error!r}"
        raise ConfigError(msg) from error
    yield from (part for part in parts if part.geom_type in ("Polygon", "MultiPolygon") and not part.is_empty)
