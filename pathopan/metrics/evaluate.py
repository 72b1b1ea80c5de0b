"""Judge predictions of many images: tables per image, per class and over all, with intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.classes import Taxonomy
from pathopan.metrics.agreement import bootstrap_counts
from pathopan.metrics.detection import RADIUS_UM
from pathopan.metrics.measure import ALL, build_scene, classes_present, measure, nucleus_confusion, region_confusion
from pathopan.metrics.prediction import Prediction, Truth, read_prediction

CLASS_MEAN = "mean"
"""Row of a metric's plain mean over the classes that occur in the truth: of ``class_pq`` it is mPQ+ (CoNIC), of
``class_f1`` the mean class F1."""
_AVERAGED = ("class_f1", "class_pq", "hovernet_fc", "region_dice", "region_iou", "panoptic_pq")


@dataclass(frozen=True)
class EvaluationResult:
    """What evaluation found.

    Parameters
    ----------
    summary : DataFrame
        One row a metric and class: ``metric, class, value, low, high, n_images, n_patients``. ``class`` is a class's
        name, ``all``, or ``mean`` over classes. Values come from parts pooled over images; intervals are 95 %
        percentile bootstrap over patients.
    images : DataFrame
        One row an image, ``sample_id, group``, and a column ``metric`` or ``metric:class`` each.
    nucleus_confusion, region_confusion : DataFrame
        Counts of nuclei and of pixels; rows are the truth.
    parts : DataFrame
        ``sample_id, group, metric, class, above, below``: what all figures are computed from.
    """

    summary: pd.DataFrame
    images: pd.DataFrame
    nucleus_confusion: pd.DataFrame
    region_confusion: pd.DataFrame
    parts: pd.DataFrame

    def value(self, metric: str, cls: str = ALL) -> float:
        """Look up a figure of the summary; NaN where it could not be computed.

        Examples
        --------
        >>> result.value("class_f1", "til")                            # doctest: +SKIP
        """
        rows = self.summary[(self.summary["metric"] == metric) & (self.summary["class"] == cls)]
        return float(rows["value"].iloc[0]) if len(rows) else float("nan")


def evaluate(
    pairs: Iterable[tuple[Truth, Prediction]],
    *,
    taxonomy: Taxonomy,
    radius_um: float = RADIUS_UM,
    resamples: int = 1_000,
    seed: int = 0,
) -> EvaluationResult:
    """Judge predictions against truths.

    Parameters
    ----------
    pairs : iterable of (Truth, Prediction)
        Consumed one by one, so images need not fit into memory together.
    taxonomy : Taxonomy
        Of truth and prediction.
    radius_um : float
        How far a predicted centre may lie from a true one.
    resamples, seed : int
        Of the bootstrap over patients.

    Returns
    -------
    EvaluationResult
        Empty tables for no images.

    Raises
    ------
    ShapeMismatch
        If a predicted map has another shape than the true one.

    Notes
    -----
    Metrics: ``detection_*`` and ``class_*`` precision, recall and F1 of centres within the radius, class by class
    (protocol A, Abousamra et al. 2021) · ``hovernet_fc`` (protocol B, Graham et al. 2019) · ``pq, sq, rq`` of nuclei
    whatever their class, ``class_pq`` and so on by class, pooled; ``pq_image_mean`` and ``mpq_image_mean`` as PanNuke
    averages them · ``aji, aji_plus, dice_image_mean`` as means over images · ``dice`` pooled · ``region_dice,
    region_iou, region_accuracy``, with stroma and lymphocyte-rich stroma also as one · ``panoptic_pq`` of regions and
    nuclei together. ``derived_`` in front marks region truth that was computed and not drawn.
    """
    rows: list[tuple[str, str, str, str, float, float]] = []
    present: set[str] = set()
    nuclei: list[pd.DataFrame] = []
    regions: list[pd.DataFrame] = []
    for truth, pred in pairs:
        scene = build_scene(truth, pred, taxonomy=taxonomy, radius_um=radius_um)
        rows += [(truth.sample_id, truth.group, r.metric, r.cls, r.above, r.below) for r in measure(scene)]
        present |= classes_present(truth, taxonomy)
        nuclei.append(nucleus_confusion(scene))
        regions.append(region_confusion(scene))
    parts = pd.DataFrame(rows, columns=["sample_id", "group", "metric", "class", "above", "below"])
    return EvaluationResult(
        summary=_summarise(parts, present, resamples=resamples, seed=seed),
        images=_per_image(parts),
        nucleus_confusion=_add_up(nuclei),
        region_confusion=_add_up(regions),
        parts=parts,
    )


def read_pairs(truths: Iterable[Truth], folder: Path, *, taxonomy: Taxonomy) -> Iterator[tuple[Truth, Prediction]]:
    """Pair truths with the predictions that a folder holds for them, one at a time.

    Raises
    ------
    ResultError
        If the folder holds nothing for a truth; whatever :func:`read_prediction` raises.
    """
    for truth in truths:
        yield truth, read_prediction(folder, truth.sample_id, taxonomy=taxonomy)


def _add_up(tables: list[pd.DataFrame]) -> pd.DataFrame:
    total = tables[0].copy() if tables else pd.DataFrame()
    for table in tables[1:]:
        total += table
    return total


def _per_image(parts: pd.DataFrame) -> pd.DataFrame:
    """Spread the figures of each image over columns."""
    if parts.empty:
        return pd.DataFrame({"sample_id": pd.Series(dtype="str"), "group": pd.Series(dtype="str")})
    plain = parts["class"] == ALL
    column = parts["metric"].where(plain, parts["metric"] + ":" + parts["class"])
    value = parts["above"] / parts["below"].where(parts["below"] > 0)
    long = pd.DataFrame({"sample_id": parts["sample_id"], "group": parts["group"], "column": column, "value": value})
    wide = long.pivot(index=["sample_id", "group"], columns="column", values="value")
    return wide[list(dict.fromkeys(column))].reset_index().rename_axis(columns=None)


def _summarise(parts: pd.DataFrame, present: set[str], *, resamples: int, seed: int) -> pd.DataFrame:
    rows = []
    for (metric, cls), part in parts.groupby(["metric", "class"], sort=False):
        rows.append(_row(str(metric), str(cls), part, _ratio, resamples=resamples, seed=seed))
    for metric in dict.fromkeys(parts["metric"]):
        kind = "" if "panoptic" in metric else "region " if "region" in metric else "nucleus "
        part = parts[(parts["metric"] == metric) & (kind + parts["class"]).isin(present)]
        if metric.removeprefix("derived_") in _AVERAGED and len(part):
            rows.append(_row(metric, CLASS_MEAN, part, _mean_ratio, resamples=resamples, seed=seed))
    columns = ["metric", "class", "value", "low", "high", "n_images", "n_patients"]
    return pd.DataFrame(rows, columns=columns)


def _row(
    metric: str,
    cls: str,
    part: pd.DataFrame,
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    *,
    resamples: int,
    seed: int,
) -> tuple[str, str, float, float, float, int, int]:
    """Pool the parts of a metric by patient and bootstrap their ratio, or the mean of the classes' ratios."""
    pooled = part.pivot_table(index="group", columns="class", values=["above", "below"], aggfunc="sum", fill_value=0)
    counts = np.concatenate([pooled["above"].to_numpy(float), pooled["below"].to_numpy(float)], axis=1)
    found = bootstrap_counts(counts, statistic, resamples=resamples, seed=seed)
    return metric, cls, found.value, found.low, found.high, part["sample_id"].nunique(), len(pooled)


def _ratio(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return counts[..., 0] / counts[..., 1]


def _mean_ratio(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Average the ratios of the classes that are defined."""
    above, below = np.split(counts, 2, axis=-1)
    there = below > 0
    ratios = np.divide(above, below, out=np.zeros_like(above), where=there)
    return ratios.sum(axis=-1) / there.sum(axis=-1)
