"""GeoJSON for QuPath: regions as locked annotations with their TIL scores, nuclei as detections. Written as a stream.

Coordinates are level-0 pixels whose origin is where QuPath has it, ids are UUIDs that stay the same at every export, so
a second import replaces and does not double. Every polygon is one that QuPath 0.4 to 0.8 accept.
"""

from __future__ import annotations

import hashlib
import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from pathopan.classes import RegionClass, Taxonomy
from pathopan.errors import SchemaError
from pathopan.export.outlines import Shapes, centred, held, safe_nuclei, safe_regions
from pathopan.export.qupath import qupath_color
from pathopan.export.stream import JsonList, chunks, open_list
from pathopan.files import remove

NucleusForm = Literal["polygons", "points", "none"]
PieceOf = Callable[[pd.DataFrame], npt.NDArray[Any]]

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "pathopan")
"""Of all object ids: ``uuid5(NAMESPACE, "<slide_id>/nucleus/<nucleus_id>")``, and likewise ``region``."""

NUCLEUS_MEASUREMENTS: Mapping[str, str] = {
    "nucleus_id": "Nucleus ID",
    "prob": "Probability",
    "area_um2": "Area um^2",
    "distance_to_tumor_um": "Distance to tumor um",
}
"""Column of ``nuclei.parquet`` to the name QuPath shows."""

REGION_MEASUREMENTS: Mapping[str, str] = {
    "area_mm2": "Area mm^2",
    "n_nuclei": "Num nuclei",
    "n_til": "Num TILs",
    "til_density_per_mm2": "TIL density per mm^2",
    "til_density_ci_low": "TIL density per mm^2 (95% CI low)",
    "til_density_ci_high": "TIL density per mm^2 (95% CI high)",
    "til_area_um2": "TIL area um^2",
    "til_area_percent": "TIL area %",
    "til_fraction_of_nuclei": "TIL fraction of nuclei",
    "mean_prob": "Mean probability",
}
"""Column of ``regions.parquet`` to the name QuPath shows."""

_SIGNIFICANT = 6


@dataclass(frozen=True)
class Written:
    """How many objects a file holds, how many of them were repaired, and how many could not be written at all."""

    objects: int = 0
    repaired: int = 0
    dropped: int = 0

    def __add__(self, other: Written) -> Written:
        """Add counts."""
        return Written(self.objects + other.objects, self.repaired + other.repaired, self.dropped + other.dropped)


@dataclass(frozen=True)
class Ground:
    """What nuclei lie on: pieces of tissue, and regions."""

    piece_of: PieceOf | None = None  # given rows, tells the number of the tissue piece of each
    regions: gpd.GeoDataFrame | None = None  # rows of regions.parquet: a nucleus is written inside its own

    @cached_property
    def written(self) -> dict[int, shapely.Geometry]:
        """Regions by their ids as `write_regions_geojson` writes them, prepared for many questions."""
        if self.regions is None:
            return {}
        shapes, _ = safe_regions(np.asarray(self.regions.geometry, dtype=object))
        shapely.prepare(shapes)
        pairs = zip(self.regions["region_id"].tolist(), shapes, strict=True)
        return {int(number): shape for number, shape in pairs if shape is not None}


def object_uuid(slide_id: str, kind: Literal["nucleus", "region"], number: int) -> str:
    """Give the id of an object in QuPath: the same at every export.

    Examples
    --------
    >>> object_uuid("S1", "nucleus", 7)
    '7491219e-8f8f-5272-a510-46fc11a0e70e'
    """
    (found,) = object_uuids(slide_id, kind, [number])
    return found


def object_uuids(slide_id: str, kind: Literal["nucleus", "region"], numbers: Iterable[int]) -> Iterator[str]:
    """Give the ids of many objects: each what :func:`uuid.uuid5` makes of ``slide_id/kind/number``, in less time.

    A name-based UUID is the SHA-1 of namespace and name, cut to 16 bytes, less six bits that tell the kind of UUID
    (RFC 9562, section 5.5).
    """
    begun = hashlib.sha1(NAMESPACE.bytes + f"{slide_id}/{kind}/".encode(), usedforsecurity=False)
    for number in numbers:
        one = begun.copy()
        one.update(b"%d" % number)
        text = one.hexdigest()
        yield f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:32]}"


def write_nuclei_geojson(
    path: Path,
    nuclei: gpd.GeoDataFrame | Iterable[gpd.GeoDataFrame],
    *,
    taxonomy: Taxonomy,
    slide_id: str,
    form: NucleusForm = "polygons",
    max_vertices: int = 16,
    ground: Ground | None = None,
) -> Written:
    """Write nuclei as QuPath detections.

    Parameters
    ----------
    path : Path
        ``<slide_id>.nuclei.geojson.gz``; compressed if it ends in ``.gz``. With ``form="none"`` an old file is removed.
    nuclei : GeoDataFrame, or iterable of GeoDataFrame
        Rows of ``nuclei.parquet``; an iterable keeps memory bounded by its largest part.
    taxonomy : Taxonomy
        Names and colors of the classes.
    slide_id : str
        Part of every object's id.
    form : {"polygons", "points", "none"}
        Outlines of at most ``max_vertices`` vertices, or centroids, or nothing.
    max_vertices : int
        Of one outline, at least 4.
    ground : Ground, optional
        What the nuclei lie on; with pieces of tissue, `piece_path` has a file for each piece besides.

    Returns
    -------
    Written
        Counts of objects written, repaired and dropped.

    Raises
    ------
    SchemaError
        If a row's class is not in the taxonomy.
    """
    for old in find_piece_paths(path):
        remove(old)
    if form == "none":
        remove(path)
        return Written()
    total, below = Written(), ground or Ground()
    with ExitStack() as stack:
        whole = stack.enter_context(_collection(path))
        parts: dict[int, JsonList] = {}
        for chunk in chunks(nuclei):
            shapes, repaired = _nucleus_shapes(chunk, max_vertices, below)
            geometries = _points(shapes) if form == "points" else _polygons(shapes)
            features = _nucleus_features(chunk, geometries, taxonomy, slide_id)
            written = len(features) - features.count(None)
            whole.append([feature for feature in features if feature is not None])
            total += Written(written, repaired, len(chunk) - written)
            numbers = below.piece_of(chunk) if below.piece_of else np.zeros(0, np.int64)
            for number in np.unique(numbers).tolist():
                if number not in parts:
                    parts[number] = stack.enter_context(_collection(piece_path(path, number)))
                own = [features[row] for row in np.flatnonzero(numbers == number)]
                parts[number].append([feature for feature in own if feature is not None])
    return total


def piece_path(path: Path, number: int) -> Path:
    """Name the file with the nuclei of one piece of tissue, beside that with all of them.

    Examples
    --------
    >>> piece_path(Path("S.1.nuclei.geojson.gz"), 2).name
    'S.1.nuclei.piece-02.geojson.gz'
    """
    return path.with_name(f"{_stem(path)}.piece-{number:02d}{path.name.removeprefix(_stem(path))}")


def find_piece_paths(path: Path) -> list[Path]:
    """List the files by piece that lie beside the file with all nuclei."""
    stem, ending = _stem(path), path.name.removeprefix(_stem(path))
    named = re.compile(re.escape(stem) + r"\.piece-\d\d" + re.escape(ending))
    return sorted(p for p in path.parent.glob("*.piece-*") if named.fullmatch(p.name)) if path.parent.is_dir() else []


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".geojson")


def write_regions_geojson(path: Path, regions: gpd.GeoDataFrame, *, taxonomy: Taxonomy, slide_id: str) -> Written:
    """Write regions as locked QuPath annotations that carry their TIL scores as measurements.

    Parameters
    ----------
    path : Path
        ``<slide_id>.regions.geojson``; compressed if it ends in ``.gz``.
    regions : GeoDataFrame
        Rows of ``regions.parquet``.
    taxonomy : Taxonomy
        Names and colors of the classes.
    slide_id : str
        Part of every object's id.

    Returns
    -------
    Written
        Counts of objects written, repaired and dropped.

    Raises
    ------
    SchemaError
        If a row's class is not in the taxonomy.
    """
    names = dict(REGION_MEASUREMENTS)
    names |= {f"n_{c.name}": f"Num {c.name} nuclei" for c in taxonomy.nuclei if f"n_{c.name}" not in names}
    total = Written()
    with _collection(path) as out:
        for chunk in chunks(regions):
            shapes, repaired = safe_regions(np.asarray(chunk.geometry, dtype=object))
            classes = _classes(chunk["class_id"], {c.id: c for c in taxonomy.regions}, taxonomy)
            columns = zip(chunk["region_id"].tolist(), shapes, classes, _measurements(chunk, names), strict=True)
            features = [_region_feature(slide_id, *row) for row in columns if row[1] is not None]
            out.append(features)
            total += Written(len(features), int(repaired.sum()), len(chunk) - len(features))
    return total


def _collection(path: Path) -> AbstractContextManager[JsonList]:
    return open_list(path, before=b'{"type":"FeatureCollection","features":[', after=b"]}")


def _nucleus_shapes(chunk: gpd.GeoDataFrame, max_vertices: int, ground: Ground) -> tuple[Shapes, int]:
    """Give outlines that QuPath accepts and counts where we do, and how many had to be repaired."""
    shapes = np.asarray(chunk.geometry, dtype=object)
    safe, repaired = safe_nuclei(shapes, max_vertices=max_vertices)
    safe = centred(safe, shapes)
    if ground.written and "region_id" in chunk.columns:
        safe = held(safe, chunk["region_id"].to_numpy(np.int64), ground.written)
    return safe, int(repaired.sum())


def _nucleus_features(
    chunk: gpd.GeoDataFrame, geometries: Iterator[dict[str, Any] | None], taxonomy: Taxonomy, slide_id: str
) -> list[dict[str, Any] | None]:
    """Make the Feature of each row, ``None`` where its outline cannot be saved."""
    classes = _classes(chunk["class_id"], {c.id: c for c in taxonomy.nuclei}, taxonomy)
    looks = {c.id: {"name": c.qupath, "color": qupath_color(c)} for c in taxonomy.nuclei}
    ids = object_uuids(slide_id, "nucleus", chunk["nucleus_id"].tolist())
    rows = zip(ids, geometries, classes, _measurements(chunk, NUCLEUS_MEASUREMENTS), strict=True)
    return [
        {
            "type": "Feature",
            "id": identity,
            "geometry": geometry,
            "properties": {
                "objectType": "detection",
                "classification": looks[kind.id],
                "measurements": measurements,
            },
        }
        if geometry is not None
        else None
        for identity, geometry, kind, measurements in rows
    ]


def _polygons(shapes: Shapes) -> Iterator[dict[str, Any] | None]:
    """Give simple polygons as GeoJSON whose coordinates are views of one array: orjson writes those fastest."""
    points = shapely.get_coordinates(shapes)
    ends = np.cumsum(shapely.get_num_coordinates(shapes)).tolist()
    start = 0
    for end in ends:
        yield {"type": "Polygon", "coordinates": [points[start:end]]} if end > start else None
        start = end


def _points(shapes: Shapes) -> Iterator[dict[str, Any] | None]:
    """Give centroids, which is what QuPath itself counts by."""
    for x, y in np.round(shapely.get_coordinates(_filled_centroids(shapes)), 1).tolist():
        yield None if math.isnan(x) else {"type": "Point", "coordinates": [x, y]}


def _filled_centroids(shapes: Shapes) -> Any:
    centroids = np.asarray(shapely.centroid(shapes), dtype=object)
    centroids[shapely.is_missing(centroids)] = shapely.Point(math.nan, math.nan)
    return centroids


def _region_feature(
    slide_id: str, number: int, shape: shapely.Geometry, kind: RegionClass, measurements: dict[str, float]
) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": object_uuid(slide_id, "region", number),
        "geometry": _without_extras(shape),
        "properties": {
            "objectType": "annotation",
            "name": str(number),
            "isLocked": True,
            "classification": {"name": kind.qupath, "color": qupath_color(kind)},
            "measurements": measurements,
            "metadata": {"pathopan_region_id": str(number), "pathopan_class": kind.name},
        },
    }


def _without_extras(shape: shapely.Geometry) -> dict[str, Any]:
    mapping = shapely.geometry.mapping(shape)
    return {"type": mapping["type"], "coordinates": mapping["coordinates"]}


def _classes(ids: pd.Series, known: Mapping[int, Any], taxonomy: Taxonomy) -> list[Any]:
    unknown = sorted(set(ids.unique().tolist()) - set(known))
    if unknown:
        msg = f"class ids {unknown} are not in taxonomy {taxonomy.name!r}, which has {sorted(known)}"
        raise SchemaError(msg)
    return [known[value] for value in ids.tolist()]


def _measurements(chunk: pd.DataFrame, names: Mapping[str, str]) -> Iterator[dict[str, float]]:
    """Give each row's finite numbers under the names that QuPath shows; a missing value is left out."""
    found = [column for column in names if column in chunk.columns and chunk[column].notna().any()]
    shown = [names[column] for column in found]
    values = [_rounded(chunk[column]) for column in found]
    if all(np.isfinite(column).all() for column in values):
        yield from (dict(zip(shown, row, strict=True)) for row in zip(*values, strict=True))
        return
    for row in zip(*values, strict=True):
        yield {name: value for name, value in zip(shown, row, strict=True) if math.isfinite(value)}


def _rounded(values: pd.Series) -> list[float]:
    """Round to six significant digits, which halves the file and is more than was measured."""
    if values.dtype.kind in "iub":
        return values.tolist()
    numbers = values.to_numpy(np.float64, na_value=np.nan)
    finite = np.isfinite(numbers) & (numbers != 0)
    digits = _SIGNIFICANT - 1 - np.floor(np.log10(np.abs(numbers), where=finite, out=np.zeros_like(numbers)))
    factor = 10.0 ** np.clip(digits, -12, 12)
    return np.where(finite, np.round(numbers * factor) / factor, numbers).tolist()
