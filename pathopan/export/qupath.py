"""QuPath's rules: standard class colors, and a strict check of any GeoJSON.

The rules are those of ``PathIO.readObjects``, ``GsonTools`` and ``ROITypeAdapters`` in QuPath 0.4 to 0.8: what QuPath
refuses, ignores or changes in silence is a problem here, because one bad object can make it refuse a whole file.
"""

from __future__ import annotations

import gzip
import json
import sys
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from pathopan.classes import Color, NucleusClass, RegionClass
from pathopan.errors import ConfigError
from pathopan.export.outlines import PRECISION_PX, all_plain_and_sound, survives_qupath
from pathopan.files import read_file

STANDARD_COLORS: Mapping[str, Color] = {
    "Tumor": (200, 0, 0),
    "Stroma": (150, 200, 150),
    "Immune cells": (160, 90, 160),
    "Necrosis": (50, 50, 50),
    "Other": (255, 200, 0),
    "Region*": (0, 0, 180),
    "Ignore*": (180, 180, 180),
}
"""QuPath's own classes (``PathClass.StandardPathClasses``)."""

_OBJECT_TYPES = ("annotation", "detection", "cell", "tile", "tmaCore", "root")
_GEOMETRY_DEPTH = {"Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3}
_NUMBER_WORDS = ("NaN", "inf", "-inf", "Infinity", "-Infinity")


def qupath_color(kind: RegionClass | NucleusClass) -> Color:
    """Give the color QuPath shows for a class: its own where it has one of that name."""
    return STANDARD_COLORS.get(kind.qupath, kind.color)


def read_json(path: Path) -> Any:
    """Read a ``.geojson``, ``.json`` or gzip-compressed file as strict JSON.

    Raises
    ------
    ConfigError
        If the file cannot be opened, is not UTF-8, is not JSON, or repeats a key.
    """
    try:
        raw = read_file(path)
        return strict_json((gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig"))
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        msg = f"{path}: cannot be read as GeoJSON: {error}"
        raise ConfigError(msg) from error


def strict_json(text: str) -> Any:
    """Read JSON in which no key stands twice in an object and no number is NaN or infinite; else a ValueError."""
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        msg = f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object"
        raise ValueError(msg)
    return found


def _refuse_constant(text: str) -> Any:
    msg = f"{text} is not JSON"
    raise ValueError(msg)


def check_geojson(path: Path) -> list[str]:
    """Apply QuPath's import rules to a file.

    Parameters
    ----------
    path : Path
        ``.geojson``, ``.json``, or either with ``.gz``.

    Returns
    -------
    list of str
        What QuPath would refuse, ignore or change, one line each; empty if the file is fit to import.

    Notes
    -----
    The whole file is held in memory, as QuPath itself does.
    """
    if not path.name.lower().endswith((".geojson", ".json", ".geojson.gz", ".json.gz")):
        return [f"{path.name}: QuPath opens .geojson, .json and these with .gz"]
    try:
        root = read_json(path)
    except ConfigError as error:
        return [str(error)]
    features = find_features(root)
    if features is None:
        return ["top level: neither a FeatureCollection, a Feature, a list of Features nor a geometry"]
    problems = [] if isinstance(root, dict) and root.get("type") == "FeatureCollection" else _top_level(root)
    try:
        return problems + check_features(features, set())
    except RecursionError:
        return [*problems, "objects are nested too deeply"]


def find_features(root: Any) -> list[Any] | None:
    """List the Features of any top level that QuPath reads; ``None`` if it reads none."""
    if isinstance(root, list):
        return root
    if not isinstance(root, dict):
        return None
    kind = root.get("type")
    if kind == "FeatureCollection":
        features = root.get("features")
        return features if isinstance(features, list) else None
    if kind == "Feature":
        return [root]
    known = isinstance(kind, str) and kind in _GEOMETRY_DEPTH
    return [{"type": "Feature", "geometry": root, "properties": {}}] if known else None


def _top_level(root: Any) -> list[str]:
    if isinstance(root, list):
        return ["top level: a bare list; QuPath reads it but GDAL and GeoPandas do not: use a FeatureCollection"]
    return []


def check_features(features: Sequence[Any], seen: set[str], *, first: int = 0) -> list[str]:
    """Apply the rules to Features.

    Parameters
    ----------
    features : sequence
        As read from JSON.
    seen : set of str
        Ids of the file's Features before these; gets theirs.
    first : int
        Number of the first one in the file.
    """
    geometries = [feature.get("geometry") if isinstance(feature, dict) else None for feature in features]
    sound = all_plain_and_sound(geometries)
    return [
        f"feature {number}: {text}"
        for number, feature in enumerate(features, start=first)
        for text in _check_feature(feature, seen, sound=sound)
    ]


def _check_feature(feature: Any, seen: set[str], *, sound: bool = False) -> Iterator[str]:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        yield "not a Feature"
        return
    yield from _check_id(feature.get("id"), seen)
    yield from (f"{key!r} at the Feature's root is ignored: put it in properties" for key in _misplaced(feature))
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        yield "has no properties, so no objectType: QuPath would make it an annotation"
        properties = {}
    yield from _check_object_type(properties)
    yield from () if sound else _check_geometry(feature.get("geometry"))
    if "nucleusGeometry" in feature:
        if properties.get("objectType") != "cell":
            yield "nucleusGeometry is used only for objectType 'cell'"
        yield from (f"nucleusGeometry: {text}" for text in _check_geometry(feature["nucleusGeometry"]))
    yield from _check_looks(properties)
    yield from _check_measurements(properties.get("measurements", {}))
    children = properties.get("childObjects", properties.get("children", []))
    if not isinstance(children, list):
        yield f"childObjects {children!r} must be a list"
        return
    for child in children:
        yield from (f"child: {text}" for text in _check_feature(child, seen))


def _misplaced(feature: Mapping[str, Any]) -> list[str]:
    return [key for key in ("objectType", "object_type", "classification", "measurements", "name") if key in feature]


def _check_id(value: Any, seen: set[str]) -> Iterator[str]:
    if value is None:
        return
    try:
        text = str(uuid.UUID(value)) if isinstance(value, str) else ""
    except ValueError:
        text = ""
    if not text:
        yield f"id {value!r} is not a UUID, so QuPath ignores it"
    elif text in seen:
        yield f"id {value!r} is not unique in the file"
    seen.add(text)


def _check_object_type(properties: Mapping[str, Any]) -> Iterator[str]:
    kind = properties.get("objectType")
    if kind is None:
        yield "properties.objectType is missing: QuPath would make it an annotation"
    elif kind not in _OBJECT_TYPES:
        yield f"objectType {kind!r} is unknown: QuPath would make it an annotation"
    if "object_type" in properties:
        yield "properties.object_type is QuPath 0.3's name: use objectType"
    if "type" in properties:
        yield "properties.type is read as an object type: rename it"


def _check_looks(properties: Mapping[str, Any]) -> Iterator[str]:
    yield from _check_classification(properties.get("classification", ""))
    if not isinstance(properties.get("name", ""), str):
        yield f"name {properties['name']!r} must be a string"
    if not isinstance(properties.get("isLocked", False), bool):
        yield f"isLocked {properties['isLocked']!r} must be true or false"
    color = properties.get("color", 0)
    if not isinstance(color, int) and not _is_color(color, lengths=(3,)):
        yield f"color {color!r} must be [r, g, b] or a packed integer"
    metadata = properties.get("metadata", {})
    if not isinstance(metadata, dict) or any(isinstance(value, list | dict) for value in metadata.values()):
        yield "metadata must map names to plain values (QuPath 0.4 reads nothing else)"


def _check_classification(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        return
    if not isinstance(value, dict):
        yield f"classification {value!r} must be a string or an object"
        return
    names = value.get("names", [value.get("name")])
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        yield "classification needs a name (or a list of names)"
    if "color" not in value:
        yield "classification has no color: QuPath throws, and imports nothing"
    elif not isinstance(value["color"], int) and not _is_color(value["color"], lengths=(0, 1, 3, 4)):
        yield f"classification.color {value['color']!r} must be 0, 1, 3 or 4 integers in 0..255"


def _is_color(value: Any, *, lengths: Iterable[int]) -> bool:
    if not isinstance(value, list) or len(value) not in lengths:
        return False
    return all(isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= 255 for part in value)


def _check_measurements(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        pairs = [(row.get("name"), row.get("value")) for row in value if isinstance(row, dict)]
        if len(pairs) < len(value):
            yield "measurements must be an object, or a list of {name, value}"
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        yield "measurements must be an object"
        return
    for name, number in pairs:
        if not isinstance(name, str):
            yield f"a measurement's name must be a string, found {name!r}"
        if number in _NUMBER_WORDS:
            yield f"measurement {name!r} is {number!r}: QuPath 0.4 refuses it, so leave it out"
        elif not _is_number(number):
            yield f"measurement {name!r} must be a finite number, found {number!r}"


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # also of integers that no float can hold; not a number is never smaller


def _check_geometry(value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield "has no geometry: QuPath cannot read it"
        return
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in _GEOMETRY_DEPTH:
        yield f"geometry type {kind!r} cannot be read (GeometryCollection neither)"
        return
    coordinates = value.get("coordinates")
    if not _is_nested(coordinates, _GEOMETRY_DEPTH[kind]):
        yield f"coordinates are not those of a {kind} with finite numbers"
        return
    if kind.endswith("Polygon"):
        yield from _check_polygon(kind, coordinates)


def _is_nested(value: Any, depth: int) -> bool:
    if not isinstance(value, list) or not value:
        return False
    if depth == 0:
        return len(value) >= 2 and all(_is_number(number) for number in value)
    return all(_is_nested(part, depth - 1) for part in value)


def _check_polygon(kind: str, coordinates: Any) -> Iterator[str]:
    members = coordinates if kind == "MultiPolygon" else [coordinates]
    if kind == "MultiPolygon" and len(members) == 1:
        yield "a MultiPolygon of one member: write a Polygon"
    rings = [ring for member in members for ring in member]
    if any(len(ring) < 4 or ring[0][:2] != ring[-1][:2] for ring in rings):
        yield "a ring must be closed and have at least four points"
        return
    flat = [[[point[:2] for point in ring] for ring in member] for member in members]
    parts = [shapely.Polygon(member[0], member[1:]) for member in flat]
    shape = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    if not shape.is_valid:
        yield f"invalid polygon ({shapely.is_valid_reason(shape)}): QuPath 0.6 and later refuse the whole file"
    elif not survives_qupath(np.array([shape], dtype=object))[0]:
        yield f"polygon vanishes on QuPath's grid of {PRECISION_PX} px"
