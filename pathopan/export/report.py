"""One page per slide and one per cohort: self-contained HTML that asks no server for anything."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from pathopan.classes import Taxonomy
from pathopan.export.bands import Bands, bands_layer, bands_legend
from pathopan.export.overlay import HEAT_STOPS, Rgb, color_table, density_map, heat_colors
from pathopan.export.sections import Head, cell, find_value, fold_intervals, head, interval_names, row_cells, sections
from pathopan.export.templates import fill_page
from pathopan.files import atomic_path
from pathopan.geometry import resize_labels

HEADLINES: Sequence[str] = (
    "stil_percent",
    "stil_percent_calibrated",
    "stil_density_per_mm2",
    "itil_per_mm2",
    "itil_density_per_mm2",
    "phenotype",
    "tumor_area_mm2",
    "stroma_area_mm2",
    "n_nuclei",
)
"""Names shown large at the top, those of them that the score has."""

NOTICE = "For research use only. Not for diagnosis, and not for decisions about the treatment of a patient."

_MAX_SIDE = 2048
_MAX_DOTS = 250_000
_MAX_REGIONS = 300
_SHEET_BYTES = 3_000_000
_BYTES_PER_PX = 0.22  # of a JPEG thumbnail at quality 78, measured on H&E
_BINS = 24


@dataclass(frozen=True)
class Crop:
    """A picture worth a look, such as the densest region, with what to say about it."""

    image: Rgb  # (Y, X, 3) uint8
    title: str
    text: str = ""


@dataclass(frozen=True)
class SlidePage:
    """All that a slide's page shows. What is missing is left out of the page."""

    slide_id: str
    taxonomy: Taxonomy
    picture: Rgb  # (Y, X, 3) uint8
    mpp: float  # um per pixel of the picture
    region_map: npt.NDArray[np.uint8]  # (Y, X) class ids on the same pixels
    nuclei: pd.DataFrame  # x_um, y_um, class_id
    regions: pd.DataFrame  # rows of regions.parquet; geometry bounds are used to find a region
    score: Mapping[str, Any]
    l0_mpp: tuple[float, float]  # um per level-0 pixel along x and y, the frame of the regions' geometry
    definitions: Mapping[str, str] = field(default_factory=dict)
    field_densities: Sequence[float] = ()  # TILs per mm2, one per field
    crops: Sequence[Crop] = ()
    bands: Bands | None = None
    qc: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CohortPage:
    """All that a cohort's page shows."""

    title: str
    scores: pd.DataFrame  # one row per slide, with slide_id
    thumbnails: Mapping[str, Rgb] = field(default_factory=dict)  # slide_id to (Y, X, 3) uint8
    failures: pd.DataFrame = field(default_factory=pd.DataFrame)  # slide_id, path, stage, error, message, remedy
    headlines: Sequence[str] = HEADLINES
    definitions: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def write_slide_report(path: Path, page: SlidePage) -> None:
    """Write a slide's page.

    Parameters
    ----------
    path : Path
        ``report.html``; replaced as a whole, or not at all.
    page : SlidePage
        What to show.
    """
    _write(path, render_slide(page))


def write_cohort_report(path: Path, page: CohortPage) -> None:
    """Write a cohort's page, which links to ``slides/<slide_id>/report.html`` beside it.

    Parameters
    ----------
    path : Path
        ``report.html``; replaced as a whole, or not at all.
    page : CohortPage
        What to show.
    """
    _write(path, render_cohort(page))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render_slide(page: SlidePage) -> str:
    """Give a slide's page as HTML."""
    picture, region_map, mpp = _limited(page)
    tissue = np.isin(region_map, [c.id for c in page.taxonomy.regions if c.role != "background"])
    points = page.nuclei[["x_um", "y_um"]].to_numpy(np.float64) / mpp
    is_til = np.isin(page.nuclei["class_id"], page.taxonomy.nucleus_ids("til"))
    density = density_map(points[is_til], tissue, mpp=mpp)
    top = float(np.nanquantile(density, 0.995)) if np.isfinite(density).any() else 0.0
    counts = page.nuclei["class_id"].value_counts()
    return fill_page(
        "report.html.jinja",
        page=page,
        notice=NOTICE,
        size={"width": picture.shape[1], "height": picture.shape[0], "mpp": mpp},
        images={
            "base": _jpeg(picture, quality=82),
            "regions": _png(
                color_table({c.id: (*c.color, 255) for c in page.taxonomy.regions}, default=(0,) * 4)[region_map]
            ),
            "density": _png(_heat_layer(density, top)),
            "bands": _png(bands_layer(page.bands.resized(picture.shape[1::-1]))) if page.bands else "",
        },
        bands=[{**band, "density": cell(band["density_per_mm2"]).text} for band in bands_legend(page.bands, page.score)]
        if page.bands
        else [],
        shares=_shares(region_map, page.taxonomy),
        counts={c.id: int(counts.get(c.id, 0)) for c in page.taxonomy.nuclei},
        dots=_dots(points, page.nuclei["class_id"].to_numpy(), picture.shape),
        heat={"top": cell(top).text, "css": _gradient()},
        cards=_cards(page.score, HEADLINES, page.definitions),
        score_sections=sections(page.score, page.definitions),
        region_table=_region_rows(page, mpp),
        histogram=_histogram(page.field_densities),
        crops=[{"image": _jpeg(c.image, quality=85), "title": c.title, "text": c.text} for c in page.crops],
        qc_sections=sections(page.qc),
        provenance=sections(page.provenance),
    )


def render_cohort(page: CohortPage) -> str:
    """Give a cohort's page as HTML."""
    names = [name for name in page.scores.columns if name != "slide_id"]
    chosen = [name for name in page.headlines if name in names]
    rows = _records(page.scores)
    return fill_page(
        "cohort.html.jinja",
        page=page,
        notice=NOTICE,
        heads=[head(name, page.definitions) for name in names],
        chosen=set(chosen),
        rows=[
            {
                "id": str(row["slide_id"]),
                "link": "" if row.get("status") == "failed" else _link(str(row["slide_id"])),
                "cells": [cell(row[n]) for n in names],
            }
            for row in rows
        ],
        strips=[_strip(page.scores, head(name, page.definitions)) for name in chosen if _is_number(page.scores[name])],
        sheet=_sheet(page.thumbnails, rows),
        failures=_records(page.failures),
        failure_names=list(page.failures.columns),
        provenance=sections(page.provenance),
    )


def _limited(page: SlidePage) -> tuple[Rgb, npt.NDArray[np.uint8], float]:
    """Shrink the picture and the map to what a page can carry."""
    height, width = page.picture.shape[:2]
    factor = max(1.0, max(height, width) / _MAX_SIDE)
    size = max(1, round(width / factor)), max(1, round(height / factor))
    picture = cv2.resize(page.picture, size, interpolation=cv2.INTER_AREA) if factor > 1 else page.picture
    region_map = resize_labels(page.region_map, size)
    return np.asarray(picture, np.uint8), region_map, page.mpp * width / size[0]


def _jpeg(image: Rgb, *, quality: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _png(image: npt.NDArray[np.uint8]) -> str:
    """Encode an RGBA layer; with the few colors that layers have, a palette is enough."""
    buffer = io.BytesIO()
    Image.fromarray(image).quantize(64, method=Image.Quantize.FASTOCTREE).save(buffer, "PNG", compress_level=6)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _heat_layer(density: npt.NDArray[np.float64], top: float) -> npt.NDArray[np.uint8]:
    """Color a density; where it is low the slide shows through."""
    values = density.astype(np.float32)
    share = np.clip(np.nan_to_num(values) / np.float32(top), 0, 1) if top > 0 else np.zeros_like(values)
    alpha = np.where(np.isfinite(values), 90 + 165 * share, 0).astype(np.uint8)
    return np.dstack([heat_colors(values, top=top), alpha])


def _gradient() -> str:
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in HEAT_STOPS)
    return f"linear-gradient(90deg, {stops})"


def _shares(region_map: npt.NDArray[np.uint8], taxonomy: Taxonomy) -> dict[int, str]:
    """Give each region class's share of the tissue in the picture, in percent."""
    pixels = np.bincount(region_map.ravel(), minlength=256)
    tissue = sum(int(pixels[c.id]) for c in taxonomy.regions if c.role != "background")
    return {c.id: f"{100 * pixels[c.id] / tissue:.0f}" for c in taxonomy.regions if tissue and c.role != "background"}


def _dots(points: npt.NDArray[np.float64], classes: npt.NDArray[Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Pack nuclei as 16-bit places in the picture, class by class; of very many, an even sample."""
    step = max(1, -(-len(points) // _MAX_DOTS))
    limits = np.array([shape[1], shape[0]], np.float64)
    packed = np.clip(points[::step] / limits * 65535, 0, 65535).round().astype("<u2")
    kinds = classes[::step]
    groups = {int(k): base64.b64encode(packed[kinds == k].tobytes()).decode("ascii") for k in np.unique(kinds)}
    return {"groups": groups, "shown": len(packed), "total": len(points)}


def _cards(score: Mapping[str, Any], names: Sequence[str], definitions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give the headline numbers, each with its interval and, where it is empty, the reason."""
    cards = []
    for name in names:
        value, reason = find_value(score, name)
        if value is None and not reason:
            continue
        ends = {end: find_value(score, end)[0] for pair in interval_names(name) for end in pair}
        ends = {end: bound for end, bound in ends.items() if bound is not None}
        shown = row_cells({name: value, "reason": reason, **ends}, *fold_intervals([name, *ends]))[0]
        cards.append({"head": head(name, definitions), "cell": shown})
    return cards


def _region_rows(page: SlidePage, mpp: float) -> dict[str, Any]:
    """Give the largest regions as a table, each with the place in the picture where it lies."""
    table = page.regions.sort_values("area_mm2", ascending=False).head(_MAX_REGIONS)
    names, intervals = fold_intervals(name for name in table.columns if name not in ("geometry", "class_id"))
    factors = [um / mpp for um in (*page.l0_mpp, *page.l0_mpp)]
    boxes = [[round(v * f, 1) for v, f in zip(shape.bounds, factors, strict=True)] for shape in table["geometry"]]
    rows = [
        {"box": box, "cells": row_cells(row, names, intervals)}
        for box, row in zip(boxes, _records(table.drop(columns="geometry")), strict=True)
    ]
    return {"heads": [head(name, page.definitions) for name in names], "rows": rows, "total": len(page.regions)}


def _histogram(values: Sequence[float]) -> dict[str, Any] | None:
    finite = np.array([v for v in values if np.isfinite(v)], np.float64)
    if not len(finite):
        return None
    counts, edges = np.histogram(
        finite, bins=min(_BINS, max(4, len(finite))), range=(0.0, max(float(finite.max()), 1e-9))
    )
    bars = [
        {"height": 100 * n / max(counts.max(), 1), "count": int(n), "from": cell(a).text, "to": cell(b).text}
        for n, a, b in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    median = float(np.median(finite))
    return {
        "bars": bars,
        "fields": len(finite),
        "median": cell(median).text,
        "median_at": 100 * median / edges[-1],
        "top": cell(float(edges[-1])).text,
    }


def _strip(scores: pd.DataFrame, title: Head) -> dict[str, Any]:
    """Place each slide's value on a line from 0 to the largest."""
    column = scores[["slide_id", title.name]].dropna()
    values = column[title.name].to_numpy(np.float64)
    low, high = (min(0.0, values.min()), max(values.max(), 1e-9)) if len(values) else (0.0, 1.0)
    dots = [
        {"id": str(slide), "at": 100 * (value - low) / (high - low), "text": cell(float(value)).text}
        for slide, value in zip(column["slide_id"], values, strict=True)
    ]
    median = float(np.median(values)) if len(values) else None
    return {
        "head": title,
        "dots": dots,
        "low": cell(low).text,
        "high": cell(float(high)).text,
        "median": cell(median).text,
        "median_at": 100 * (median - low) / (high - low) if median is not None else None,
    }


def _sheet(thumbnails: Mapping[str, Rgb], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Shrink the slides' pictures so that all of them together stay within the page's budget."""
    shown = [str(row["slide_id"]) for row in rows if str(row["slide_id"]) in thumbnails]
    side = int(np.clip(np.sqrt(_SHEET_BYTES / max(len(shown), 1) / _BYTES_PER_PX), 48, 320))
    return [
        {"id": name, "link": _link(name), "image": _jpeg(_fit(thumbnails[name], side), quality=78)} for name in shown
    ]


def _fit(image: Rgb, side: int) -> Rgb:
    factor = max(1.0, max(image.shape[:2]) / side)
    size = max(1, round(image.shape[1] / factor)), max(1, round(image.shape[0] / factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _link(slide_id: str) -> str:
    return f"slides/{quote(slide_id, safe='')}/report.html"


def _is_number(column: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Give a table's rows as plain values; all kinds of missing become None."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]
