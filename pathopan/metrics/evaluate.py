"""Judge predictions of many images: tables per image, per class and over all, with intervals over patients."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.classes import Taxonomy
from pathopan.errors import DatasetError
from pathopan.files import atomic_path
from pathopan.metrics.agreement import bootstrap_counts
from pathopan.metrics.detection import RADIUS_UM
from pathopan.metrics.measure import (
    ALL,
    build_scene,
    classes_present,
    judge_nuclei,
    measure,
    nucleus_confusion,
    region_confusion,
)
from pathopan.metrics.prediction import Prediction, Truth, read_prediction

CLASS_MEAN = "mean"
"""Row of a metric's plain mean over the classes that occur in the truth: of ``class_pq`` it is mPQ+ (CoNIC), of
``class_f1`` the mean class F1."""
PARTS = ["sample_id", "group", "metric", "class", "above", "below"]
_AVERAGED = (
    *("class_f1", "class_pq", "class_sq", "class_rq", "hovernet_fc", "region_dice", "region_iou"),
    *("panoptic_pq", "panoptic_sq", "panoptic_rq", "bpq_tissue", "mpq_tissue"),
)
_KINDS = {"panoptic": "", "region": "region ", "tissue": "tissue "}
"""What the classes of a metric are, by a part of its name; they are nuclei otherwise, and panoptic ones say it."""


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
    nuclei : DataFrame
        One row a predicted nucleus, see :func:`pathopan.metrics.measure.judge_nuclei`: what calibration is computed
        from.
    present : frozenset of str
        ``nucleus NAME`` and ``region NAME`` of the classes that occur in the truth: means over classes are over these.
    """

    summary: pd.DataFrame
    images: pd.DataFrame
    nucleus_confusion: pd.DataFrame
    region_confusion: pd.DataFrame
    parts: pd.DataFrame
    nuclei: pd.DataFrame = field(default_factory=pd.DataFrame)
    present: frozenset[str] = frozenset()

    def value(self, metric: str, cls: str = ALL) -> float:
        """Look up a figure of the summary; NaN where it could not be computed.

        Examples
        --------
        >>> result.value("class_f1", "til")                            # doctest: +SKIP
        """
        rows = self.summary[(self.summary["metric"] == metric) & (self.summary["class"] == cls)]
        return float(rows["value"].iloc[0]) if len(rows) else float("nan")

    def write_tables(self, folder: Path) -> None:
        """Write the figures, the figures per image and the confusion tables as CSV."""
        for name in ("summary", "images", "nucleus_confusion", "region_confusion"):
            with atomic_path(folder / f"{name}.csv") as temporary:
                getattr(self, name).to_csv(temporary, index=name.endswith("confusion"))


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
    ``detection_*`` and ``class_*`` precision, recall and F1 of centres within the radius, one to one, class by class
    (protocol A: Abousamra et al., ICCV 2021) · ``hovernet_fc`` classification F1 (protocol B: Graham et al., Medical
    Image Analysis 58, 2019) · ``pq, sq, rq`` of nuclei whatever their class (binary PQ), ``class_pq`` and so on by
    class, pooled over images; ``class_pq`` ``mean`` is mPQ+ (Graham et al., Medical Image Analysis 92, 2024). ``rq`` is
    F1 at an IoU above 0.5 and ``sq`` the mean IoU of matched nuclei: read both, since PQ alone hides much where nuclei
    are small (Foucart et al., 2022) · ``pq_image_mean`` and ``mpq_image_mean``, means over images; ``bpq_tissue`` and
    ``mpq_tissue``, of samples that tell their tissue, whose ``mean`` over tissues is PanNuke's bPQ and mPQ (Gamper et
    al., arXiv 2003.10778) · ``aji`` (Kumar et al., IEEE TMI 36:1550, 2017), ``aji_plus, dice_image_mean`` as means over
    images, ``dice`` pooled · ``region_dice, region_iou, region_accuracy``, with stroma and lymphocyte-rich stroma also
    as one · ``panoptic_pq, _sq, _rq`` of regions and nuclei together, class by class and their mean (Kirillov et al.,
    CVPR 2019; void handled). ``derived_`` in front marks region truth that was computed and not drawn.
    """
    rows: list[tuple[str, str, str, str, float, float]] = []
    present: set[str] = set()
    nuclei: list[pd.DataFrame] = []
    regions: list[pd.DataFrame] = []
    rated: list[pd.DataFrame] = []
    for truth, pred in pairs:
        scene = build_scene(truth, pred, taxonomy=taxonomy, radius_um=radius_um)
        rows += [(truth.sample_id, truth.group, r.metric, r.cls, r.above, r.below) for r in measure(scene)]
        present |= classes_present(truth, taxonomy)
        nuclei.append(nucleus_confusion(scene))
        regions.append(region_confusion(scene))
        rated.append(judge_nuclei(scene))
    parts = pd.DataFrame(rows, columns=PARTS)
    return EvaluationResult(
        summary=_summarise(parts, present, resamples=resamples, seed=seed),
        images=_per_image(parts),
        nucleus_confusion=_add_up(nuclei),
        region_confusion=_add_up(regions),
        parts=parts,
        nuclei=_stack(rated),
        present=frozenset(present),
    )


def pool(results: Sequence[EvaluationResult], *, resamples: int = 1_000, seed: int = 0) -> EvaluationResult:
    """Put evaluations of different images together, such as those of a cross-validation's folds: counts add.

    Parameters
    ----------
    results : sequence of EvaluationResult
        Of one taxonomy. A patient may stand in several; intervals are over the patients of all.
    resamples, seed : int
        Of the bootstrap over patients.

    Returns
    -------
    EvaluationResult
        The same as if all images had been evaluated at once.

    Raises
    ------
    DatasetError
        If an image stands in two of the results: it would count twice.
    """
    parts = _stack([found.parts for found in results])
    if len(parts):
        images = pd.concat([found.parts[["sample_id", "group"]].drop_duplicates() for found in results])
        twice = images.loc[images.duplicated(), "sample_id"].tolist()
        if twice:
            msg = f"{len(twice)} images stand in two of the results, such as {twice[:3]}; pool results of other images"
            raise DatasetError(msg)
    else:
        parts = pd.DataFrame(columns=PARTS)
    present = frozenset().union(*(found.present for found in results))
    return EvaluationResult(
        summary=_summarise(parts, present, resamples=resamples, seed=seed),
        images=_per_image(parts),
        nucleus_confusion=_add_up([found.nucleus_confusion for found in results]),
        region_confusion=_add_up([found.region_confusion for found in results]),
        parts=parts,
        nuclei=_stack([found.nuclei for found in results]),
        present=present,
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
    filled = [table for table in tables if len(table)]
    total = filled[0].copy() if filled else pd.DataFrame()
    for table in filled[1:]:
        total += table
    return total


def _stack(tables: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()


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


@dataclass(frozen=True)
class _Pooled:
    """Parts added up by patient, all metrics and classes at once: ``K`` pairs of them, ``P`` patients."""

    keys: list[tuple[str, str]]  # metric and class
    parts: npt.NDArray[np.float64]  # (K, P, 2) above and below
    there: npt.NDArray[np.bool_]  # (K, P) whether the patient has the figure at all
    images: list[frozenset[int]]  # of each pair

    def row(self, name: tuple[str, str], chosen: list[int], **settings: int) -> tuple[str | float, ...]:
        """Bootstrap the ratio of one pair, or the mean of several."""
        patients = self.there[chosen].any(axis=0)
        above, below = np.moveaxis(self.parts[chosen][:, patients], 2, 0)
        counts = np.concatenate([above.T, below.T], axis=1)
        found = bootstrap_counts(counts, _ratio if name[1] != CLASS_MEAN else _mean_ratio, **settings)
        n_images = len(frozenset().union(*(self.images[k] for k in chosen)))
        return *name, found.value, found.low, found.high, n_images, int(patients.sum())


def _pool_parts(parts: pd.DataFrame) -> _Pooled:
    pairs = parts.groupby(["metric", "class"], sort=False)
    pair = pairs.ngroup().to_numpy()
    keys = [(str(metric), str(cls)) for metric, cls in parts[["metric", "class"]].drop_duplicates().to_numpy()]
    patients, patient = np.unique(parts["group"].to_numpy(str), return_inverse=True)
    image = parts.groupby(["sample_id", "group"], sort=False).ngroup().to_numpy()
    summed, there = np.zeros((len(keys), len(patients), 2)), np.zeros((len(keys), len(patients)), dtype=np.bool_)
    np.add.at(summed, (pair, patient), parts[["above", "below"]].to_numpy(np.float64))
    there[pair, patient] = True
    images = [frozenset(image[pair == k].tolist()) for k in range(len(keys))]
    return _Pooled(keys, summed, there, images)


def _summarise(parts: pd.DataFrame, present: Collection[str], *, resamples: int, seed: int) -> pd.DataFrame:
    pooled = _pool_parts(parts)
    rows = [pooled.row(key, [k], resamples=resamples, seed=seed) for k, key in enumerate(pooled.keys)]
    for metric in dict.fromkeys(metric for metric, _ in pooled.keys):
        kind = next((kind for part, kind in _KINDS.items() if part in metric), "nucleus ")
        chosen = [k for k, (name, cls) in enumerate(pooled.keys) if name == metric and kind + cls in present]
        if metric.removeprefix("derived_") in _AVERAGED and chosen:
            rows.append(pooled.row((metric, CLASS_MEAN), chosen, resamples=resamples, seed=seed))
    columns = ["metric", "class", "value", "low", "high", "n_images", "n_patients"]
    return pd.DataFrame(rows, columns=columns)


def _ratio(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return counts[..., 0] / counts[..., 1]


def _mean_ratio(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Average the ratios of the classes that are defined."""
    above, below = np.split(counts, 2, axis=-1)
    there = below > 0
    ratios = np.divide(above, below, out=np.zeros_like(above), where=there)
    return ratios.sum(axis=-1) / there.sum(axis=-1)
