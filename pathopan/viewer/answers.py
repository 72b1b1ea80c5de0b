"""What the page shows besides pixels: slides with scores, layers, outlines, and the row of what was clicked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from pathopan.definitions import definitions
from pathopan.export.geoparquet import Bounds
from pathopan.export.overlay import HEAT_STOPS
from pathopan.export.report import HEADLINES, NOTICE
from pathopan.export.sections import find_value, fold_intervals, head, row_cells
from pathopan.viewer.gallery import Exhibit, Gallery
from pathopan.viewer.plane import TILE

UNIT_UM = 0.05
"""Outlines are sent as whole multiples of this, counted from the corner of the rectangle asked for."""

MAX_SIDE_UM = 2048.0
"""A rectangle of outlines may not be larger: a million nuclei are never sent at once."""

_REACH_PX = 4.0  # a click this far beside an outline still means it
_LARGEST_REGIONS = 300
_LISTED = ("class", "area_mm2", "n_til", "til_density_per_mm2")
_NOT_SHOWN = ("geometry", "class_id", "tile_index")

Json = dict[str, Any]


def list_slides(gallery: Gallery) -> Json:
    """List all slides of the run with their headline scores; those that failed, with the reason."""
    numbers = {name: number for number, name in enumerate(gallery.slide_ids)}
    scores = gallery.result.scores
    names = [name for name in HEADLINES if name in scores.columns]
    failed = {str(row["slide_id"]): row for row in _records(gallery.result.failures)}
    slides = []
    for row in _records(scores):
        slide_id = str(row["slide_id"])
        slides.append(
            {
                "slide_id": slide_id,
                "number": numbers.get(slide_id),
                "status": str(row.get("status") or ""),
                "scores": [{"name": n, **_labelled(row, n)} for n in names if row[n] is not None],
                "why": _reason(failed.get(slide_id, {})),
            }
        )
    return {"folder": str(gallery.result.path), "notice": NOTICE, "slides": slides}


def describe(exhibit: Exhibit) -> Json:
    """Say how a slide is tiled, which classes it has, how it scored, and which are its largest regions."""
    slide, plane = exhibit.slide, exhibit.plane
    meanings = definitions(slide.taxonomy)
    counts = exhibit.kinds["class_id"].value_counts()
    areas = slide.regions.groupby("class_id")["area_mm2"].sum() if len(slide.regions) else {}
    return {
        "slide_id": slide.slide_id,
        "plane": {"size": plane.padded, "tile": TILE, "levels": plane.levels, "mpp": plane.mpp, "slide": plane.size},
        "mpp_l0": slide.mpp_l0,
        "trouble": exhibit.picture.trouble,
        "stored_mpp": exhibit.picture.stored.mpp,
        "regions": [
            {"id": c.id, "name": c.name, "color": c.color, "amount": f"{float(areas.get(c.id, 0.0)):.2f} mm²"}
            for c in slide.taxonomy.regions
            if c.role != "background"
        ],
        "nuclei": [
            {"id": c.id, "name": c.name, "color": c.color, "amount": f"{int(counts.get(c.id, 0)):,}"}
            for c in slide.taxonomy.nuclei
        ],
        "density": {"top": round(exhibit.density.top_per_mm2), "stops": HEAT_STOPS},
        "outlines": {"unit_um": UNIT_UM, "max_side_um": MAX_SIDE_UM},
        "headlines": _headlines(slide.score, meanings),
        "largest": _largest(exhibit, meanings),
    }


def outlines_in(exhibit: Exhibit, bounds_um: Bounds) -> Json:
    """Give the outlines of the nuclei whose centroid lies in a rectangle, class by class.

    Parameters
    ----------
    exhibit : Exhibit
        The slide.
    bounds_um : (float, float, float, float)
        ``x0, y0, x1, y1``, half open: rectangles side by side give each nucleus once.

    Returns
    -------
    dict
        ``classes``: by class id, ``points`` (x, y, x, y, ... in ``UNIT_UM`` from the corner, rings not closed) and
        ``lengths`` (points of each ring).

    Raises
    ------
    ValueError
        If the rectangle is empty or too large.
    """
    check_bounds(bounds_um)
    x0, y0, x1, y1 = bounds_um
    found = exhibit.slide.nuclei_in(bounds_um)
    inside = found["x_um"].between(x0, x1, inclusive="left") & found["y_um"].between(y0, y1, inclusive="left")
    kept = found[inside]
    shapes, kinds = np.asarray(kept.geometry, dtype=object), kept["class_id"].to_numpy()
    classes = {}
    for kind in np.unique(kinds):
        rings = shapely.get_exterior_ring(shapely.get_parts(shapes[kinds == kind]))
        points, lengths = _open_rings(rings)
        scaled = np.rint((points * exhibit.slide.mpp_l0 - (x0, y0)) / UNIT_UM).astype(np.int32)
        classes[str(kind)] = {"points": scaled.ravel(), "lengths": lengths}
    return {"x_um": x0, "y_um": y0, "count": len(kept), "classes": classes}


def check_bounds(bounds_um: Bounds) -> None:
    """Refuse rectangles that are empty or too large.

    Raises
    ------
    ValueError
        With what is allowed.
    """
    x0, y0, x1, y1 = bounds_um
    if not (0 < x1 - x0 <= MAX_SIDE_UM and 0 < y1 - y0 <= MAX_SIDE_UM):
        msg = f"a rectangle must be wider and higher than 0 and at most {MAX_SIDE_UM:g} um"
        raise ValueError(msg)


def pick(exhibit: Exhibit, place_um: tuple[float, float], *, mpp: float) -> Json:
    """Say which nucleus and which region lie at a place.

    Parameters
    ----------
    exhibit : Exhibit
        The slide.
    place_um : (float, float)
        x and y.
    mpp : float
        Micrometres per pixel of the screen: how exact a click can be, and how exact outlines need to be.

    Returns
    -------
    dict
        ``nucleus`` and ``region``, each empty where there is none.
    """
    return {"nucleus": _nucleus_at(exhibit, place_um, mpp), "region": _region_at(exhibit, place_um, mpp)}


def region_card(exhibit: Exhibit, region_id: int, *, mpp: float) -> Json:
    """Give a region's row and outline.

    Raises
    ------
    IndexError
        If the slide has no such region.
    """
    regions = exhibit.slide.regions
    rows = regions[regions["region_id"] == region_id]
    if not len(rows):
        msg = f"region {region_id}"
        raise IndexError(msg)
    return _card(exhibit, rows, f"Region {region_id}", mpp=mpp)


def _nucleus_at(exhibit: Exhibit, place_um: tuple[float, float], mpp: float) -> Json | None:
    reach = min(_REACH_PX * mpp, MAX_SIDE_UM)
    x, y = place_um
    near = exhibit.slide.nuclei_in((x - reach, y - reach, x + reach, y + reach))
    if not len(near):
        return None
    shapes = shapely.transform(np.asarray(near.geometry, dtype=object), lambda xy: xy * exhibit.slide.mpp_l0)
    distances = shapely.distance(shapes, shapely.Point(x, y))
    if distances.min() > reach:
        return None
    holding = near[distances == distances.min()]  # several where outlines overlap: the smallest is the one aimed at
    chosen = holding.loc[[holding["area_um2"].idxmin()]]
    return _card(exhibit, chosen, f"Nucleus {int(chosen['nucleus_id'].iloc[0])}", mpp=mpp)


def _region_at(exhibit: Exhibit, place_um: tuple[float, float], mpp: float) -> Json | None:
    regions = exhibit.slide.regions
    place_l0 = np.divide(place_um, exhibit.slide.mpp_l0)
    found = regions.sindex.query(shapely.Point(place_l0), predicate="intersects") if len(regions) else []
    if not len(found):
        return None
    chosen = regions.iloc[[int(found[0])]]
    return _card(exhibit, chosen, f"Region {int(chosen['region_id'].iloc[0])}", mpp=mpp)


def _card(exhibit: Exhibit, row: gpd.GeoDataFrame, title: str, *, mpp: float) -> Json:
    """Show one row: its values in words, and its outline."""
    mpp_l0 = np.asarray(exhibit.slide.mpp_l0)
    shape = shapely.transform(row.geometry.iloc[0], lambda xy: xy * mpp_l0)
    thin = shapely.simplify(shape, mpp / 2)
    drawn = shape if thin.is_empty else thin
    rings = [ring for part in shapely.get_parts(drawn) for ring in (part.exterior, *part.interiors)]
    values = _records(pd.DataFrame(row.drop(columns="geometry")))[0]
    names, intervals = fold_intervals(name for name in values if name not in _NOT_SHOWN)
    meanings = definitions(exhibit.slide.taxonomy)
    cells = row_cells(values, names, intervals)
    return {
        "title": title,
        "class": values["class"],
        "bounds_um": shape.bounds,
        "rings_um": [np.round(shapely.get_coordinates(ring), 2).ravel() for ring in rings],
        "rows": [
            {**_titled(name, meanings), "text": cell.text, "note": cell.note, "interval": cell.interval}
            for name, cell in zip(names, cells, strict=True)
            if not (name == "reason" and cell.text in ("", "–"))
        ],
    }


def _headlines(score: Mapping[str, Any], meanings: Mapping[str, str]) -> list[Json]:
    shown = []
    for name in HEADLINES:
        value, reason = find_value(score, name)
        value = None if value == "" else value
        if value is not None or reason:
            stems = {name, name.removesuffix("_per_mm2"), name.removesuffix("_percent")}
            known = {f"{stem}_ci_{end}" for stem in stems for end in ("low", "high")}
            ends = {end: bound for end in known if (bound := find_value(score, end)[0]) is not None}
            cell = row_cells({name: value, "reason": reason, **ends}, *fold_intervals([name, *ends]))[0]
            texts = {"text": cell.text, "interval": cell.interval, "note": reason or cell.note}
            shown.append({**_titled(name, meanings), **texts, "empty": value is None})
    return shown


def _largest(exhibit: Exhibit, meanings: Mapping[str, str]) -> Json:
    regions = exhibit.slide.regions
    names = [name for name in _LISTED if name in regions.columns]
    chosen = regions.sort_values("area_mm2", ascending=False).head(_LARGEST_REGIONS) if len(regions) else regions
    records = _records(pd.DataFrame(chosen[["region_id", *names]]))
    rows = [
        {"region_id": row["region_id"], "cells": [{"text": c.text, "sort": c.sort} for c in row_cells(row, names, {})]}
        for row in records
    ]
    return {"heads": [_titled(name, meanings) for name in names], "rows": rows, "total": len(regions)}


def _reason(failure: Mapping[str, Any]) -> str:
    """Say at which stage a slide failed, why, and what to do."""
    parts = [failure.get("stage"), failure.get("message"), failure.get("remedy")]
    return "; ".join(str(part) for part in parts if part)


def _labelled(row: Mapping[str, Any], name: str) -> Json:
    shown = row_cells(row, [name], {})[0]
    return {"title": head(name).text, "unit": head(name).unit, "text": shown.text, "sort": shown.sort}


def _titled(name: str, meanings: Mapping[str, str]) -> Json:
    title = head(name, meanings)
    return {"name": title.name, "title": title.text, "unit": title.unit, "meaning": title.meaning}


def _open_rings(rings: Sequence[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Give all points of closed rings without the last of each, which repeats the first, and their number."""
    counts = shapely.get_num_coordinates(rings)
    keep = np.ones(int(counts.sum()), np.bool_)
    keep[np.cumsum(counts) - 1] = False
    return shapely.get_coordinates(rings)[keep], counts - 1


def _records(table: pd.DataFrame) -> list[Json]:
    """Give a table's rows as plain values; all kinds of missing become None."""
    plain = table.astype(object).where(table.notna(), None)
    rows = plain.to_dict("records")
    return [{str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
