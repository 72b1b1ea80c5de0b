"""One self-contained page of an evaluation: figures, charts, and the best, median and worst images."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from pathopan.export.report import NOTICE
from pathopan.export.templates import fill_page
from pathopan.files import atomic_path

Rgb = npt.NDArray[np.uint8]
_HEADLINES = frozenset(
    ("detection_f1", "class_f1", "hovernet_fc", "pq", "sq", "rq", "aji", "dice", "region_dice", "derived_region_dice")
)
_SHEET_WIDTH = 2_000  # pixels on the page; the files beside it are larger


@dataclass(frozen=True)
class EvaluationPage:
    """All that the page shows.

    Parameters
    ----------
    title, subtitle : str
        What was evaluated, and how.
    summary : DataFrame
        ``metric, class, value, low, high, n_images, n_patients``; rows without a value are left out.
    images : DataFrame
        ``sample_id, group`` and one column a figure.
    charts, sheets : mapping of str to (Y, X, 3) uint8
        Caption -> picture.
    ordered_by : str
        What makes an image the best or the worst.
    """

    title: str
    subtitle: str
    summary: pd.DataFrame
    images: pd.DataFrame
    charts: Mapping[str, Rgb] = field(default_factory=dict)
    sheets: Mapping[str, Rgb] = field(default_factory=dict)
    ordered_by: str = ""


def write_evaluation_page(path: Path, page: EvaluationPage) -> None:
    """Write the page; it is replaced as a whole, or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(render_evaluation(page), encoding="utf-8")


def render_evaluation(page: EvaluationPage) -> str:
    """Give the page as HTML."""
    rows = [_figure(row) for row in page.summary.dropna(subset="value").to_dict("records")]
    return fill_page(
        "evaluation.html.jinja",
        page=page,
        notice=NOTICE,
        headlines=[row for row in rows if row["metric"] in _HEADLINES],
        others=[row for row in rows if row["metric"] not in _HEADLINES],
        charts=[{"text": text, "image": _embed(picture, "PNG")} for text, picture in page.charts.items()],
        sheets=[{"text": text, "image": _embed(_shrink(sheet), "JPEG")} for text, sheet in page.sheets.items()],
        image_names=[name.replace("_", " ") for name in page.images.columns],
        images=[[_value(value) for value in row] for row in page.images.itertuples(index=False)],
    )


def _figure(row: Mapping[Any, Any]) -> dict[str, Any]:
    known = not math.isnan(row["low"])
    interval = f"{row['low']:.3f} to {row['high']:.3f}" if known else ""
    return {**row, "cls": row["class"], "interval": interval, "low": row["low"] if known else ""}


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return None if math.isnan(value) else float(value)


def _shrink(picture: Rgb) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((_SHEET_WIDTH, _SHEET_WIDTH))
    return image


def _embed(picture: Rgb | Image.Image, kind: str) -> str:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 88, "subsampling": 0} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
