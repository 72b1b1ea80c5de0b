"""Panoptic quality from counts: nuclei are matched once, counts add, and every figure is a function of the counts.

Kirillov et al., Panoptic Segmentation, CVPR 2019. PanNuke's mPQ: Gamper et al., arXiv 2003.10778. CoNIC's mPQ+:
Graham et al., Medical Image Analysis 92, 2024. A figure without anything to count is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.errors import ShapeMismatch
from pathopan.metrics.assignment import assign_pairs

IntArray = npt.NDArray[np.integer]
IntVector = npt.NDArray[np.int64]
FloatVector = npt.NDArray[np.float64]
MAX_VOID = 0.5
"""An unmatched prediction with more of its pixels in void is not counted as false (Kirillov et al., section 4.1)."""


@dataclass(frozen=True)
class Overlaps:
    """Every pair of a true and a predicted instance that share a pixel, and the areas of all instances, in pixels."""

    truth_ids: IntVector  # (T,) ascending, without 0
    pred_ids: IntVector  # (P,) ascending, without 0
    truth_area: IntVector  # (T,)
    pred_area: IntVector  # (P,) without the pixels in void
    pred_void: IntVector  # (P,) the pixels in void
    truth_index: IntVector  # (N,) position in truth_ids of each pair
    pred_index: IntVector  # (N,) position in pred_ids of each pair
    intersection: IntVector  # (N,)

    @property
    def union(self) -> IntVector:
        """Pixels of each pair that either covers."""
        return self.truth_area[self.truth_index] + self.pred_area[self.pred_index] - self.intersection

    @property
    def iou(self) -> FloatVector:
        """Intersection over union of each pair."""
        return self.intersection / self.union


@dataclass(frozen=True)
class Matches:
    """Pairs of true and predicted instances, and what is left over on each side."""

    truth: IntVector  # (M,) ids
    pred: IntVector  # (M,) ids
    iou: FloatVector  # (M,)
    missed: IntVector  # ids of true instances without a partner
    extra: IntVector  # ids of predicted instances without a partner
    ignored: IntVector  # predicted, without a partner, and mostly in void: neither right nor wrong
    mostly_void: npt.NDArray[np.bool_]  # (M,) whether the prediction of a pair lies mostly in void


@dataclass(frozen=True)
class PanopticCounts:
    """What panoptic quality is made of. Counts of images, patients or folds add.

    Examples
    --------
    >>> (PanopticCounts(tp=1, fp=1, fn=0, sum_iou=0.8) + PanopticCounts(tp=1, fp=0, fn=1, sum_iou=0.6)).pq
    0.4666...
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    sum_iou: float = 0.0

    def __add__(self, other: PanopticCounts) -> PanopticCounts:
        """Pool two sets of counts."""
        return PanopticCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.sum_iou + other.sum_iou)

    @property
    def n_truth(self) -> int:
        """Number of true instances."""
        return self.tp + self.fn

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the matched pairs; NaN without a pair."""
        return self.sum_iou / self.tp if self.tp else float("nan")

    @property
    def rq(self) -> float:
        """Recognition quality: F1 at the matching IoU; NaN where there is nothing to find and nothing was found."""
        total = self.tp + 0.5 * (self.fp + self.fn)
        return self.tp / total if total else float("nan")

    @property
    def pq(self) -> float:
        """Panoptic quality, SQ x RQ."""
        total = self.tp + 0.5 * (self.fp + self.fn)
        return self.sum_iou / total if total else float("nan")


def find_overlaps(truth: IntArray, pred: IntArray, *, void: npt.NDArray[np.bool_] | None = None) -> Overlaps:
    """Count the pixels that each pair of instances shares, in one joint histogram of label pairs.

    Parameters
    ----------
    truth, pred : (Y, X) int
        Instance maps; 0 is background, ids need not be consecutive.
    void : (Y, X) bool, optional
        Pixels for which the truth is unknown: nothing there is true, and predictions are judged without them.

    Raises
    ------
    ShapeMismatch
        If the maps differ in shape.
    """
    for name, other in (("prediction", pred), ("void", void)):
        if other is not None and other.shape != truth.shape:
            msg = (
                f"the truth is {truth.shape} and the {name} {other.shape}; they must be the same image at the same mpp"
            )
            raise ShapeMismatch(msg)
    truth_code, truth_ids = pd.factorize(truth.ravel(), sort=True)
    pred_code, pred_ids = pd.factorize(pred.ravel(), sort=True)
    inside = np.ones(truth.size, np.bool_) if void is None else ~void.ravel()
    joint, pairs = pd.factorize(truth_code[inside] * len(pred_ids) + pred_code[inside], sort=True)
    truth_index, pred_index = np.divmod(pairs.astype(np.int64), max(len(pred_ids), 1))
    shared = np.bincount(joint, minlength=len(pairs))
    truth_area = np.bincount(truth_code[inside], minlength=len(truth_ids))
    pred_area = np.bincount(pred_code[inside], minlength=len(pred_ids))
    true_things, pred_things = (truth_ids > 0) & (truth_area > 0), pred_ids > 0
    both = true_things[truth_index] & pred_things[pred_index]
    return Overlaps(
        truth_ids=truth_ids[true_things].astype(np.int64),
        pred_ids=pred_ids[pred_things].astype(np.int64),
        truth_area=truth_area[true_things],
        pred_area=pred_area[pred_things],
        pred_void=np.bincount(pred_code[~inside], minlength=len(pred_ids))[pred_things],
        truth_index=(np.cumsum(true_things) - 1)[truth_index[both]],
        pred_index=(np.cumsum(pred_things) - 1)[pred_index[both]],
        intersection=shared[both],
    )


def match_instances(
    truth: IntArray, pred: IntArray, *, min_iou: float = 0.5, void: npt.NDArray[np.bool_] | None = None
) -> Matches:
    """Pair predicted nuclei with true ones by overlap.

    Parameters
    ----------
    truth, pred : (Y, X) int
        Instance maps at the same mpp; 0 is background, ids need not be consecutive.
    min_iou : float
        A pair must overlap by more than this. At 0.5 or above a pair is unique, so no assignment problem is solved;
        below, the one-to-one assignment with the largest summed IoU is taken.
    void : (Y, X) bool, optional
        Pixels whose truth is unknown: they count in no overlap, and an unmatched prediction that lies mostly there is
        set aside as ``ignored``.

    Raises
    ------
    ShapeMismatch
        If the maps differ in shape.

    Notes
    -----
    Kirillov et al., Panoptic Segmentation, CVPR 2019, section 4.1.

    Examples
    --------
    >>> match_instances(np.array([[1, 1, 0]]), np.array([[7, 7, 0]])).iou
    array([1.])
    """
    overlaps = find_overlaps(truth, pred, void=void)
    iou = overlaps.iou
    chosen = iou > min_iou
    if min_iou < 0.5:
        candidates = np.flatnonzero(chosen)
        kept = assign_pairs(overlaps.truth_index[candidates], overlaps.pred_index[candidates], weight=iou[candidates])
        chosen = np.zeros_like(chosen)
        chosen[candidates[kept]] = True
    truth_index, pred_index = overlaps.truth_index[chosen], overlaps.pred_index[chosen]
    alone = np.ones(len(overlaps.pred_ids), dtype=np.bool_)
    alone[pred_index] = False
    mostly_void = overlaps.pred_void > MAX_VOID * (overlaps.pred_void + overlaps.pred_area)
    return Matches(
        truth=overlaps.truth_ids[truth_index],
        pred=overlaps.pred_ids[pred_index],
        iou=iou[chosen],
        missed=np.delete(overlaps.truth_ids, truth_index),
        extra=overlaps.pred_ids[alone & ~mostly_void],
        ignored=overlaps.pred_ids[alone & mostly_void],
        mostly_void=mostly_void[pred_index],
    )


def pool_counts(counts: Iterable[PanopticCounts]) -> PanopticCounts:
    """Add counts; of nothing, the sum is empty."""
    return sum(counts, PanopticCounts())


def count_binary(matches: Matches) -> PanopticCounts:
    """Count matches whatever their class: the counts of binary panoptic quality (bPQ)."""
    return PanopticCounts(len(matches.truth), len(matches.extra), len(matches.missed), float(matches.iou.sum()))


def count_by_class(
    matches: Matches,
    truth_class: Mapping[int, int],
    pred_class: Mapping[int, int],
    *,
    class_ids: Sequence[int],
) -> dict[int, PanopticCounts]:
    """Count matches class by class: a pair of two classes is one false negative and one false positive.

    Since pairs with an IoU above 0.5 are unique, this equals matching each class on its own. A prediction of such a
    pair that lies mostly in void is no false positive, as it would be none without the pair.

    Parameters
    ----------
    matches : Matches
        From :func:`match_instances` with ``min_iou`` of 0.5 or above.
    truth_class, pred_class : mapping of int to int
        Class id of each instance id. A true instance of class 0 is of unknown class: it counts in no class, and a
        prediction matched to it is neither right nor wrong.
    class_ids : sequence of int
        The classes to count.

    Raises
    ------
    KeyError
        If an instance has no class.
    """
    truth = np.array([truth_class[i] for i in matches.truth.tolist()], dtype=np.int64)
    pred = np.array([pred_class[i] for i in matches.pred.tolist()], dtype=np.int64)
    missed = np.array([truth_class[i] for i in matches.missed.tolist()], dtype=np.int64)
    extra = np.array([pred_class[i] for i in matches.extra.tolist()], dtype=np.int64)
    wrong = (truth != pred) & (truth != 0)
    counts = {}
    for class_id in class_ids:
        right = (truth == class_id) & (pred == class_id)
        counts[class_id] = PanopticCounts(
            tp=int(right.sum()),
            fp=int((extra == class_id).sum() + (wrong & (pred == class_id) & ~matches.mostly_void).sum()),
            fn=int((missed == class_id).sum() + (wrong & (truth == class_id)).sum()),
            sum_iou=float(matches.iou[right].sum()),
        )
    return counts


def mean_pq(counts: Mapping[int, PanopticCounts]) -> float:
    """Average PQ over classes from counts pooled over all images: CoNIC's mPQ+ (NaN classes are left out).

    A class that is neither in the truth nor predicted anywhere is left out; CoNIC counts it as 0, but its test sets
    hold every class.
    """
    return nan_mean([c.pq for c in counts.values()])


def mean_pq_per_image(images: Sequence[Mapping[int, PanopticCounts]], *, tissues: Sequence[str] | None = None) -> float:
    """Average PQ as PanNuke does: over classes within an image, over images within a tissue, over tissues.

    Parameters
    ----------
    images : sequence of mapping of int to PanopticCounts
        Counts by class, image by image. Give one "class" per image for PanNuke's bPQ.
    tissues : sequence of str, optional
        Tissue of each image; without it, all images are of one tissue.

    Notes
    -----
    Gamper et al., arXiv 2003.10778. A class that an image's truth lacks is skipped there, even where it was predicted,
    so a false alarm costs nothing in an image without that class: report mPQ+ beside it.
    """
    by_tissue: dict[str, list[float]] = {}
    for image, tissue in zip(images, tissues or [""] * len(images), strict=True):
        by_tissue.setdefault(tissue, []).append(nan_mean([c.pq for c in image.values() if c.n_truth]))
    return nan_mean([nan_mean(values) for values in by_tissue.values()])


def nan_mean(values: Sequence[float]) -> float:
    """Average what is not NaN; NaN if there is nothing."""
    present = [value for value in values if value == value]  # NaN alone differs from itself
    return float(np.mean(present)) if present else float("nan")
