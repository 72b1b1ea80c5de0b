"""Does a GeoJSON file say what the table says? Ids, classes, counts and areas, read back as QuPath would."""

from __future__ import annotations

import gc
import gzip
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TextIO, cast

import pandas as pd
import shapely

from pathopan.classes import NucleusClass, RegionClass, Taxonomy
from pathopan.errors import ConfigError
from pathopan.export.geojson import NUCLEUS_MEASUREMENTS, REGION_MEASUREMENTS, object_uuid
from pathopan.export.qupath import check_features, find_features, read_json, strict_json

ROUNDING = 1e-5
"""Measurements are written with six significant digits."""

OUTLINE_ROUNDING = 0.02
"""Share by which rounding vertices to a tenth of a pixel may change a region's area."""

MOST_TOLD = 5
"""Lines for one file: a damaged one has a million."""

Kind = Literal["nucleus", "region"]

_FIRST_LINE = '{"type":"FeatureCollection","features":['


@dataclass(frozen=True)
class Expected:
    """What a file must agree with."""

    table: pd.DataFrame  # nuclei.parquet or regions.parquet, by its id
    kind: Kind
    taxonomy: Taxonomy
    slide_id: str
    px_mm2: float  # mm2 of a level-0 pixel

    @property
    def number(self) -> str:
        """Column that numbers the objects."""
        return f"{self.kind}_id"

    @property
    def classes(self) -> dict[int, NucleusClass | RegionClass]:
        """Classes by their ids."""
        found = self.taxonomy.nuclei if self.kind == "nucleus" else self.taxonomy.regions
        return {c.id: c for c in found}

    @property
    def measurements(self) -> dict[str, str]:
        """Column to the name that QuPath shows."""
        if self.kind == "nucleus":
            return dict(NUCLEUS_MEASUREMENTS)
        counts = {f"n_{c.name}": f"Num {c.name} nuclei" for c in self.taxonomy.nuclei}
        return {**counts, **REGION_MEASUREMENTS}


def compare_geojson(paths: Sequence[Path], expected: Expected, *, dropped: int = 0) -> list[str]:
    """Compare files that `write_nuclei_geojson` or `write_regions_geojson` made with their table.

    Parameters
    ----------
    paths : sequence of Path
        One file with all objects, or several that part them.
    expected : Expected
        The table, and how its rows are written.
    dropped : int
        Rows that could not be written, as the record says.

    Returns
    -------
    list of str
        What QuPath would not import as it stands, and what differs from the table.
    """
    problems: list[str] = []
    seen: set[str] = set()
    read = 0
    try:
        with _collector_paused():
            for features in chain.from_iterable(map(_parts, paths)):
                problems += check_features(features, seen, first=read) or _differences(features, expected)
                read += len(features)
    except ConfigError as error:
        return [str(error)]
    more = len(problems) - MOST_TOLD
    problems = [*problems[:MOST_TOLD], f"{more} more problems"] if more > 0 else problems
    if read + dropped != len(expected.table):
        problems.append(f"holds {read} objects and {dropped} were dropped, but the table has {len(expected.table)}")
    return problems


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Spare Python's cycle collector millions of fresh lists, none of them in a cycle: it would take half the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _parts(path: Path) -> Iterator[list[Any]]:
    """Read a file's Features: line by line, as we write them, so that memory is bounded; any other file as a whole."""
    try:
        with _text(path) as lines:
            if next(lines, "").rstrip("\n") == _FIRST_LINE:
                yield from _from_lines(lines)
                return
    except (OSError, EOFError, ValueError) as error:
        msg = f"cannot be read as GeoJSON: {error}"
        raise ConfigError(msg) from error
    features = find_features(read_json(path))
    if features is None:
        msg = "not a GeoJSON FeatureCollection; export it again"
        raise ConfigError(msg)
    yield features


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield cast("TextIO", lines)
    else:
        with path.open(encoding="utf-8") as lines:
            yield lines


def _from_lines(lines: TextIO) -> Iterator[list[Any]]:
    for line in lines:
        text = line.rstrip("\n")
        if text == "]}":
            if any(rest.strip() for rest in lines):
                break
            return
        if text:
            yield cast("list[Any]", strict_json(f"[{text.removesuffix(',')}]"))
    msg = "it ends in the middle, or goes on after its end"
    raise ValueError(msg)


def _differences(features: list[Any], expected: Expected) -> list[str]:
    """Compare Features, all of them sound, with their rows."""
    if not features:
        return []
    shown = {column: name for column, name in expected.measurements.items() if column in expected.table.columns}
    properties = [feature["properties"] for feature in features]
    numbers = [_number_of(entry, expected.kind) for entry in properties]
    known = set(expected.table.index)
    stray = [number for number in numbers if number not in known]
    if stray:
        return [f"{len(stray)} objects are not in the table, such as {expected.kind} {stray[0]}"]
    rows = expected.table.loc[numbers]
    found = [
        *_wrong_names(features, rows, expected),
        *_wrong_measurements(properties, rows, shown, expected),
    ]
    return found + (list(_wrong_areas(features, rows, expected)) if expected.kind == "region" else [])


def _number_of(properties: Mapping[str, Any], kind: Kind) -> int:
    """Give the row that an object says it is; 0 if it does not."""
    stated = properties.get("measurements", {}).get("Nucleus ID") if kind == "nucleus" else properties.get("name")
    try:
        return int(stated)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0


def _wrong_names(features: list[Any], rows: pd.DataFrame, expected: Expected) -> Iterator[str]:
    """Compare ids and classes."""
    kinds = expected.classes
    for feature, number, class_id in zip(features, rows.index, rows["class_id"], strict=True):
        if feature.get("id") != object_uuid(expected.slide_id, expected.kind, int(number)):
            yield f"{expected.kind} {number} has the id {feature.get('id')!r} of another object"
        kind = feature["properties"].get("classification")
        stated = kind.get("name") if isinstance(kind, dict) else kind
        if class_id not in kinds:
            yield f"{expected.kind} {number} is of class {class_id}, which the taxonomy does not know"
        elif stated != kinds[class_id].qupath:
            yield f"{expected.kind} {number} is {stated!r}, the table says {kinds[class_id].qupath!r}"


def _wrong_measurements(
    properties: list[Any], rows: pd.DataFrame, shown: Mapping[str, str], expected: Expected
) -> Iterator[str]:
    """Compare numbers; what is empty in the table is left out in the file."""
    for column, name in shown.items():
        values = rows[column].to_numpy("float64", na_value=math.nan)
        for entry, number, value in zip(properties, rows.index, values.tolist(), strict=True):
            stated = entry.get("measurements", {}).get(name)
            fits = stated is None if math.isnan(value) else _is_close(stated, value)
            if not fits:
                yield f"{name!r} of {expected.kind} {number} is {stated}, the table says {value}"


def _is_close(stated: Any, value: float) -> bool:
    return isinstance(stated, int | float) and math.isclose(stated, value, rel_tol=ROUNDING, abs_tol=1e-12)


def _wrong_areas(features: list[Any], rows: pd.DataFrame, expected: Expected) -> Iterator[str]:
    """Compare what outlines enclose."""
    for feature, number, area in zip(features, rows.index, rows["area_mm2"], strict=True):
        enclosed = shapely.geometry.shape(feature["geometry"]).area * expected.px_mm2
        if not math.isclose(enclosed, area, rel_tol=OUTLINE_ROUNDING):
            yield f"the outline of region {number} encloses {enclosed:.6g} mm2, the table says {area:.6g}"
