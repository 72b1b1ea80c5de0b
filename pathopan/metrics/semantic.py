"""Agreement of region maps: one confusion matrix, and Dice, IoU and accuracy from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pathopan.errors import ShapeMismatch

IntArray = npt.NDArray[np.integer]
Confusion = npt.NDArray[np.int64]


def confusion(truth: IntArray, pred: IntArray, *, class_ids: Sequence[int], ignore: int = 0) -> Confusion:
    """Count the pixels of each true class that got each predicted class. Matrices of several images add.

    Parameters
    ----------
    truth, pred : any shape, int
        Class ids of the same pixels (or nuclei).
    class_ids : sequence of int
        Order of rows and columns.
    ignore : int
        Where the truth has this value, nothing is counted.

    Returns
    -------
    (C, C + 1) int
        Rows are true classes. The last column holds pixels that were predicted as none of the classes, such as
        pixels not analysed, so that they count as errors.

    Raises
    ------
    ShapeMismatch
        If the two differ in shape.
    ValueError
        If the truth holds a class that is neither listed nor ignored.

    Examples
    --------
    >>> confusion(np.array([1, 1, 2, 0]), np.array([1, 2, 0, 1]), class_ids=[1, 2]).tolist()
    [[1, 1, 0], [0, 0, 1]]
    """
    if truth.shape != pred.shape:
        msg = f"the truth is {truth.shape} and the prediction {pred.shape}"
        raise ShapeMismatch(msg)
    count = len(class_ids)
    kept = truth.ravel() != ignore
    true, found = truth.ravel()[kept].astype(np.int64), pred.ravel()[kept].astype(np.int64)
    order = np.argsort(class_ids)
    ranked = np.asarray(class_ids, dtype=np.int64)[order]

    def code(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        at = np.minimum(np.searchsorted(ranked, values), count - 1)
        return np.where(ranked[at] == values, order[at], count)

    rows = code(true)
    if (rows == count).any():
        unlisted = sorted(set(true[rows == count].tolist()))
        msg = f"the truth holds classes {unlisted}, which are not among {list(class_ids)}"
        raise ValueError(msg)
    return np.bincount(rows * (count + 1) + code(found), minlength=count * (count + 1)).reshape(count, count + 1)


def merge_classes(matrix: Confusion, groups: Mapping[str, Sequence[int]]) -> Confusion:
    """Pool classes of a confusion matrix, such as stroma with lymphocyte-rich stroma.

    Parameters
    ----------
    matrix : (C, C + 1) int
        From :func:`confusion`.
    groups : mapping of str to sequence of int
        Positions (not ids) of the classes that form each group; every position once.

    Returns
    -------
    (G, G + 1) int
        In the order of the groups.
    """
    members = list(groups.values())
    rows = np.stack([matrix[list(m)].sum(axis=0) for m in members])
    return np.column_stack([*(rows[:, list(m)].sum(axis=1) for m in members), rows[:, -1]])


def dice_by_class(matrix: Confusion) -> npt.NDArray[np.float64]:
    """Compute 2 TP / (2 TP + FP + FN) of each class; NaN where a class is neither there nor predicted."""
    hit, true, found = _margins(matrix)
    return _divide(2 * hit, true + found)


def iou_by_class(matrix: Confusion) -> npt.NDArray[np.float64]:
    """Compute TP / (TP + FP + FN) of each class; NaN where a class is neither there nor predicted."""
    hit, true, found = _margins(matrix)
    return _divide(hit, true + found - hit)


def accuracy(matrix: Confusion) -> float:
    """Compute the share of counted pixels whose class is right; NaN if none were counted."""
    total = matrix.sum()
    return float(np.trace(matrix) / total) if total else float("nan")


def _margins(matrix: Confusion) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.diagonal(matrix), matrix.sum(axis=1), matrix[:, :-1].sum(axis=0)


def _divide(above: npt.NDArray[np.int64], below: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)
