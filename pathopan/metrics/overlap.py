"""Figures of overlap between two instance maps that are not panoptic quality: AJI, AJI+ and Dice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pathopan.errors import ShapeMismatch
from pathopan.metrics.assignment import assign_pairs
from pathopan.metrics.panoptic import Overlaps, find_overlaps

IntArray = npt.NDArray[np.integer]


def aji(truth: IntArray, pred: IntArray) -> float:
    """Compute the aggregated Jaccard index: each true nucleus takes the prediction with the highest IoU.

    A prediction may be taken several times; where two are equally good, the lower id is. True nuclei that nothing
    touches and predictions that nobody took add their area to the union.

    Parameters
    ----------
    truth, pred : (Y, X) int
        Instance maps; 0 is background.

    Returns
    -------
    float
        NaN if both maps are empty.

    Raises
    ------
    ShapeMismatch
        If the maps differ in shape.

    Notes
    -----
    Kumar et al., IEEE Transactions on Medical Imaging 36:1550, 2017, algorithm 1.

    Examples
    --------
    >>> aji(np.array([[1, 1, 0, 2]]), np.array([[5, 0, 0, 6]]))
    0.6666...
    """
    overlaps = find_overlaps(truth, pred)
    order = np.lexsort((overlaps.pred_index, -overlaps.iou, overlaps.truth_index))
    _, first = np.unique(overlaps.truth_index[order], return_index=True)
    return _aggregate(overlaps, order[first])


def aji_plus(truth: IntArray, pred: IntArray) -> float:
    """Compute AJI+: as :func:`aji`, over the one-to-one pairs with the largest summed IoU.

    Raises
    ------
    ShapeMismatch
        If the maps differ in shape.

    Notes
    -----
    Graham et al., HoVer-Net, Medical Image Analysis 58, 2019 (the released code's name for it).
    """
    overlaps = find_overlaps(truth, pred)
    chosen = assign_pairs(overlaps.truth_index, overlaps.pred_index, weight=overlaps.iou)
    return _aggregate(overlaps, np.flatnonzero(chosen))


def _aggregate(overlaps: Overlaps, pairs: npt.NDArray[np.integer]) -> float:
    alone_truth = np.delete(overlaps.truth_area, overlaps.truth_index[pairs])
    alone_pred = np.delete(overlaps.pred_area, np.unique(overlaps.pred_index[pairs]))
    union = overlaps.union[pairs].sum() + alone_truth.sum() + alone_pred.sum()
    return float(overlaps.intersection[pairs].sum() / union) if union else float("nan")


def foreground_counts(truth: IntArray, pred: IntArray) -> tuple[int, int]:
    """Count twice the pixels that are nucleus in both maps, and the nucleus pixels of the one plus those of the other.

    Dice is their quotient; the counts of several images add.

    Raises
    ------
    ShapeMismatch
        If the maps differ in shape.
    """
    if truth.shape != pred.shape:
        msg = f"the truth is {truth.shape} and the prediction {pred.shape}"
        raise ShapeMismatch(msg)
    return 2 * int(((truth > 0) & (pred > 0)).sum()), int((truth > 0).sum() + (pred > 0).sum())


def dice(truth: IntArray, pred: IntArray) -> float:
    """Compute Dice of nucleus against background; NaN if both maps are empty.

    Raises
    ------
    ShapeMismatch
        If the maps differ in shape.
    """
    shared, total = foreground_counts(truth, pred)
    return shared / total if total else float("nan")
