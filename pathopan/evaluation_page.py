"""Write an evaluation down: tables, charts, sheets of the best, median and worst images, and a page with all of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from pathopan.classes import Taxonomy
from pathopan.datasets.sample import Sample
from pathopan.errors import SchemaError
from pathopan.export.charts import draw_confusion, draw_reliability, draw_spread
from pathopan.export.evaluation import EvaluationPage, write_evaluation_page
from pathopan.export.sheets import Differences, Drawn, draw_sheet
from pathopan.files import atomic_path
from pathopan.metrics import EvaluationResult, Prediction
from pathopan.metrics.calibrate import Judged, judged
from pathopan.metrics.detection import RADIUS_UM, match_points
from pathopan.metrics.reliability import Reliability, class_reliability, classwise_ece, reliability

PairsOf = Callable[[Collection[str]], Iterable[tuple[Sample, Prediction]]]
"""Gives the images of the names asked for, with what was predicted for them."""

_ORDERS = (("class_f1", "class F1 over all classes"), ("detection_f1", "detection F1"), ("region_dice", "region Dice"),
           ("derived_region_dice", "derived region Dice"))  # fmt: skip
_ON_SHEETS = ("detection_f1", "class_f1", "pq", "sq", "aji", "dice", "region_dice", "derived_region_dice")
_CARD_WIDTH = 1_600  # pixels of a picture in a model card
_SPREAD = 14
"""Figures on the chart of images; the table has all of them."""


@dataclass(frozen=True)
class Wording:
    """How a page introduces itself, and how many sheets it shows of the best, the median and the worst images each."""

    title: str
    subtitle: str = ""
    each: int = 2


def write_evaluation(
    found: EvaluationResult, folder: Path, *, pairs_of: PairsOf, taxonomy: Taxonomy, wording: Wording
) -> Path:
    """Write tables, charts, sheets and ``evaluation.html``.

    Parameters
    ----------
    found : EvaluationResult
        What was found; of one run, or pooled over folds.
    folder : Path
        For ``summary.csv, images.csv, nucleus_confusion.csv, region_confusion.csv`` and, where predictions have
        probabilities, ``calibration.csv``; the same charts as PNG; ``sheets/``; ``evaluation.html``.
    pairs_of : callable
        Asked once for the images that get a sheet.
    taxonomy : Taxonomy
        Of truth and predictions.
    wording : Wording
        Title of the page, and how many sheets.

    Returns
    -------
    Path
        Of the page.
    """
    rated = _rated(found, taxonomy)
    found.write_tables(folder)
    if rated:
        with atomic_path(folder / "calibration.csv") as temporary:
            _calibration_table(rated, taxonomy).to_csv(temporary, index=False)
    charts = {name: (caption, picture) for name, caption, picture in _charts(found, rated)}
    for name, (_, picture) in charts.items():
        _write_picture(folder / f"{name}.png", picture)
    order, ordered_by = rank_images(found)
    chosen = choose_images(order, each=wording.each)
    drawn = {
        truth.sample_id: _sheet(truth, pred, found, taxonomy=taxonomy, rank=chosen[truth.sample_id])
        for truth, pred in (pairs_of(list(chosen)) if chosen else ())
    }
    with atomic_path(folder / "sheets") as temporary:
        for sample_id, sheet in drawn.items():
            name = f"{chosen[sample_id].replace(' ', '-')}-{re.sub(r'[^A-Za-z0-9._-]+', '_', sample_id)}.png"
            _write_picture(temporary / name, sheet)
        temporary.mkdir(exist_ok=True)
    page = EvaluationPage(
        wording.title,
        wording.subtitle,
        found.summary,
        found.images,
        charts=dict(charts.values()),
        sheets={f"{rank}: {name}": drawn[name] for name, rank in chosen.items() if name in drawn},
        ordered_by=ordered_by,
    )
    write_evaluation_page(folder / "evaluation.html", page)
    return folder / "evaluation.html"


def write_failures(
    found: EvaluationResult, folder: Path, *, pairs_of: PairsOf, taxonomy: Taxonomy, count: int = 3
) -> list[dict[str, str]]:
    """Write the worst images as small JPEGs, for a model card's known failures.

    Parameters
    ----------
    found : EvaluationResult
        Of images that the network was not trained on.
    folder : Path
        The bundle's; pictures are called ``failure-1.jpg`` and so on.
    pairs_of, taxonomy
        As for :func:`write_evaluation`.
    count : int
        How many.

    Returns
    -------
    list of dict
        ``picture`` and ``caption``, the worst first: the entries of a card's ``failures``.
    """
    order, ordered_by = rank_images(found)
    ranks = {name: number for number, name in enumerate(order[::-1][:count], start=1)}
    entries = {}
    for truth, pred in pairs_of(list(ranks)) if ranks else ():
        rank = ranks[truth.sample_id]
        sheet = Image.fromarray(_sheet(truth, pred, found, taxonomy=taxonomy, rank=f"worst {rank}"))
        sheet.thumbnail((_CARD_WIDTH, _CARD_WIDTH))
        name = f"failure-{rank}.jpg"
        with atomic_path(folder / name) as temporary:
            sheet.save(temporary, "JPEG", quality=80)
        told = (
            f"the worst of {len(order)} images" if rank == 1 else f"number {rank} from the end of {len(order)} images"
        )
        caption = f"{truth.source.name} {truth.sample_id}: {told} by {ordered_by}; image, truth, found, differences"
        entries[rank] = {"picture": name, "caption": caption}
    return [entries[rank] for rank in sorted(entries)]


def rank_images(found: EvaluationResult) -> tuple[list[str], str]:
    """Order images from the best to the worst, and say by what.

    The figure is the first there is of class F1 (counts of all classes pooled, so that a class with two nuclei does not
    decide), detection F1 and region Dice. Images without it are left out; equals stand in the order of their names.

    Examples
    --------
    >>> rank_images(found)                                             # doctest: +SKIP
    (['b', 'a'], 'class F1 over all classes')
    """
    for metric, name in _ORDERS:
        parts = found.parts[found.parts["metric"] == metric] if len(found.parts) else found.parts
        if len(parts):
            summed = parts.groupby("sample_id")[["above", "below"]].sum()
            value = (summed["above"] / summed["below"].where(summed["below"] > 0)).dropna()
            return value.sort_index().sort_values(ascending=False, kind="stable").index.tolist(), name
    return [], ""


def choose_images(order: list[str], *, each: int) -> dict[str, str]:
    """Take the best, the median and the worst images: name -> such as ``best 1``; no image twice.

    Examples
    --------
    >>> choose_images(["a", "b", "c", "d", "e"], each=1)
    {'a': 'best 1', 'c': 'median 1', 'e': 'worst 1'}
    """
    middle = max(0, (len(order) - each) // 2)
    chosen: dict[str, str] = {}
    median = order[middle : middle + each]
    for what, names in (("best", order[:each]), ("median", median), ("worst", order[::-1][:each])):
        fresh = [name for name in names if name not in chosen]
        chosen |= {name: f"{what} {number}" for number, name in enumerate(fresh, start=1)}
    return chosen


def _rated(found: EvaluationResult, taxonomy: Taxonomy) -> Judged | None:
    """Take out the probabilities, if the predictions came with any."""
    try:
        rated = judged(found, taxonomy)
    except SchemaError:
        return None
    return rated if len(rated.prob) else None


def _calibration_table(rated: Judged, taxonomy: Taxonomy) -> pd.DataFrame:
    each = classwise_ece(rated.probs, rated.labels).tolist()
    rows = [
        ("likeliest class", len(rated.labels), class_reliability(rated.probs, rated.labels).ece),
        *((kind.name, len(rated.labels), ece) for kind, ece in zip(taxonomy.nuclei, each, strict=True)),
        ("detection", len(rated.prob), reliability(rated.prob, rated.matched).ece),
    ]
    return pd.DataFrame(rows, columns=["probability_of", "n", "ece"])


def _charts(found: EvaluationResult, rated: Judged | None) -> Iterable[tuple[str, str, npt.NDArray[np.uint8]]]:
    """Yield file name, caption and picture of each chart that there is something for."""
    for name, what in (("nucleus_confusion", "Nuclei"), ("region_confusion", "Region pixels")):
        table: pd.DataFrame = getattr(found, name)
        if len(table) and table.to_numpy().sum() > 0:
            yield name, f"{what}: rows are the truth; shares are of the row", draw_confusion(table, title=what)
    if rated:
        curves = {
            "class": class_reliability(rated.probs, rated.labels),
            "detection": reliability(rated.prob, rated.matched),
        }
        errors = ", ".join(f"{name} {curve.ece:.3f}" for name, curve in curves.items())
        yield "reliability", f"Expected calibration error: {errors}", draw_curves(curves)
    figures = found.images.drop(columns=["sample_id", "group"])
    kept = [name for name in figures.columns if name.partition(":")[0] in _ON_SHEETS]
    if len(figures) and kept:
        yield "images", "One dot an image; the line is the median", draw_spread(figures[kept[:_SPREAD]])


def draw_curves(curves: dict[str, Reliability]) -> npt.NDArray[np.uint8]:
    """Draw reliability curves side by side."""
    return draw_reliability({name: (c.claimed, c.observed, c.count) for name, c in curves.items()})


def _sheet(
    truth: Sample, pred: Prediction, found: EvaluationResult, *, taxonomy: Taxonomy, rank: str
) -> npt.NDArray[np.uint8]:
    row = found.images[found.images["sample_id"] == truth.sample_id].iloc[0]
    names = [name for name in found.images.columns if name.partition(":")[0] in _ON_SHEETS]
    figures = [f"{re.sub('[_:]', ' ', name)} {row[name]:.2f}" for name in names if not np.isnan(row[name])]
    half = (len(figures) + 1) // 2
    return draw_sheet(
        truth.image,
        Drawn(truth.nuclei, truth.instances, truth.region),
        Drawn(pred.nuclei, pred.instances, pred.region),
        differences=_differences(truth, pred),
        taxonomy=taxonomy,
        title=f"{rank}: {truth.source.name} {truth.sample_id}, {truth.mpp:.3g} um/px",
        lines=[" · ".join(part) for part in (figures[:half], figures[half:]) if part],
    )


def _differences(truth: Sample, pred: Prediction) -> Differences:
    """Pair nuclei as detection F1 does, and list every one of them with its true and its found class.

    Of classes that the set did not annotate, nobody can say whether a nucleus without a partner is a false alarm.
    """
    true, found = truth.nuclei, pred.nuclei.dropna(subset=["x_px", "y_px"])
    points = [table[["x_px", "y_px"]].to_numpy(np.float64) * truth.mpp for table in (true, found)]
    pairs = match_points(*points, radius_um=RADIUS_UM)
    both = true.iloc[pairs.truth].assign(found_id=found["class_id"].to_numpy()[pairs.pred])
    agreed = (both["class_id"] == both["found_id"]) | (both["class_id"] == 0)
    extra = found.iloc[pairs.extra].assign(found_id=found["class_id"].to_numpy()[pairs.extra], class_id=0, kind="extra")
    if truth.labelled_nuclei is not None:
        extra = extra[extra["found_id"].isin(truth.labelled_nuclei)]
    table = pd.concat(
        [
            both.assign(kind=np.where(agreed, "right", "confused")),
            true.iloc[pairs.missed].assign(found_id=0, kind="missed"),
            extra,
        ]
    )
    return Differences(table[["x_px", "y_px", "class_id", "found_id", "kind"]])


def _write_picture(path: Path, picture: npt.NDArray[np.uint8]) -> Path:
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG")
    return path
