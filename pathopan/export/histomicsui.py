"""Annotations for HistomicsUI, the viewer of the Digital Slide Archive: one JSON for regions and one for nuclei.

The documents follow large_image's annotation schema: closed polylines of ``[x, y, z]`` in pixels of the base layer.
That layer is the whole file: unlike QuPath, large_image does not crop a slide to its scanned bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import orjson
import pandas as pd
import shapely

from pathopan.classes import Color, NucleusClass, RegionClass, Taxonomy
from pathopan.errors import SchemaError
from pathopan.export.outlines import safe_nuclei, safe_regions
from pathopan.export.stream import JsonList, chunks, open_list

_REGION_VALUES = ("area_mm2", "n_nuclei", "n_til", "til_density_per_mm2", "til_area_percent")
_NUCLEUS_VALUES = ("nucleus_id", "prob")
_FILL_OPACITY = 0.25


def write_nuclei_annotation(
    path: Path,
    nuclei: gpd.GeoDataFrame | Iterable[gpd.GeoDataFrame],
    *,
    taxonomy: Taxonomy,
    origin_l0: tuple[float, float] = (0.0, 0.0),
    max_vertices: int = 16,
) -> int:
    """Write nuclei as closed polylines, grouped by class.

    Parameters
    ----------
    path : Path
        JSON to upload to the slide's item.
    nuclei : GeoDataFrame, or iterable of GeoDataFrame
        Rows of ``nuclei.parquet``; an iterable keeps memory bounded by its largest part.
    taxonomy : Taxonomy
        Names and colors of the classes.
    origin_l0 : (float, float)
        Corner of the slide's scanned bounds within the file, level-0 pixels.
    max_vertices : int
        Of one outline.

    Returns
    -------
    int
        Elements written.

    Raises
    ------
    SchemaError
        If a row's class is not in the taxonomy.
    """
    count = 0
    with _document(path, "pathopan nuclei", "Nuclei by class. Research use only.") as out:
        for chunk in chunks(nuclei):
            shapes, _ = safe_nuclei(np.asarray(chunk.geometry, dtype=object), max_vertices=max_vertices)
            elements = list(_elements(chunk, shapes, taxonomy.nuclei, _NUCLEUS_VALUES, origin_l0))
            out.append(elements)
            count += len(elements)
    return count


def write_regions_annotation(
    path: Path, regions: gpd.GeoDataFrame, *, taxonomy: Taxonomy, origin_l0: tuple[float, float] = (0.0, 0.0)
) -> int:
    """Write regions as closed polylines with holes, their TIL scores under ``user``.

    Parameters
    ----------
    path : Path
        JSON to upload to the slide's item.
    regions : GeoDataFrame
        Rows of ``regions.parquet``.
    taxonomy : Taxonomy
        Names and colors of the classes.
    origin_l0 : (float, float)
        Corner of the slide's scanned bounds within the file, level-0 pixels.

    Returns
    -------
    int
        Elements written: a region of several parts has several.

    Raises
    ------
    SchemaError
        If a row's class is not in the taxonomy.
    """
    count = 0
    with _document(path, "pathopan regions", "Tissue regions with their TIL scores. Research use only.") as out:
        for chunk in chunks(regions):
            shapes, _ = safe_regions(np.asarray(chunk.geometry, dtype=object))
            elements = list(_elements(chunk, shapes, taxonomy.regions, ("region_id", *_REGION_VALUES), origin_l0))
            out.append(elements)
            count += len(elements)
    return count


def _document(path: Path, name: str, description: str) -> AbstractContextManager[JsonList]:
    head = orjson.dumps({"name": name, "description": description})[:-1]
    return open_list(path, before=head + b',"elements":[', after=b"]}")


def _elements(
    rows: pd.DataFrame,
    shapes: Any,
    kinds: Iterable[RegionClass | NucleusClass],
    names: Iterable[str],
    origin_l0: tuple[float, float],
) -> Iterator[dict[str, Any]]:
    looks = {kind.id: _look(kind.name, kind.color) for kind in kinds}
    unknown = sorted(set(rows["class_id"].unique().tolist()) - set(looks))
    if unknown:
        msg = f"class ids {unknown} are not in the taxonomy, which has {sorted(looks)}"
        raise SchemaError(msg)
    known = [name for name in names if name in rows.columns]
    values = rows[known].astype(object).where(rows[known].notna(), None).to_dict("records")
    for shape, class_id, row in zip(shapes, rows["class_id"].tolist(), values, strict=True):
        told = {str(name): value for name, value in row.items() if value is not None}
        for part in shapely.get_parts(shape) if shape is not None else ():
            element = {"type": "polyline", "closed": True, "points": _points(part.exterior, origin_l0), "user": told}
            holes = {"holes": [_points(ring, origin_l0) for ring in part.interiors]} if part.interiors else {}
            yield element | holes | looks[class_id]


def _look(name: str, color: Color) -> dict[str, Any]:
    numbers = ", ".join(map(str, color))
    return {
        "group": name,
        "label": {"value": name},
        "lineColor": f"rgb({numbers})",
        "lineWidth": 2,
        "fillColor": f"rgba({numbers}, {_FILL_OPACITY})",
    }


def _points(ring: shapely.LinearRing, origin_l0: tuple[float, float]) -> list[list[float]]:
    """Give a ring's points without the last, which repeats the first."""
    flat = np.round(shapely.get_coordinates(ring)[:-1] + origin_l0, 1)
    return np.column_stack([flat, np.zeros(len(flat))]).tolist()
