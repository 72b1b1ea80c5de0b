"""The best one-to-one assignment among few candidate pairs, solved exactly and piece by piece."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

IntVector = npt.NDArray[np.int64]


def assign_pairs(left: IntVector, right: IntVector, *, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Choose pairs such that no item is used twice and the summed weight is the largest possible.

    Items that no chain of candidates connects cannot influence each other, so each connected component is solved on
    its own; within one the assignment problem is solved exactly.

    Parameters
    ----------
    left, right : (N,) int
        The candidate pairs: an index on each side, from 0.
    weight : (N,) float
        What a pair is worth; positive.

    Returns
    -------
    (N,) bool
        Which candidates are chosen.

    Examples
    --------
    >>> assign_pairs(np.array([0, 0, 1]), np.array([0, 1, 1]), weight=np.array([0.6, 0.7, 0.5])).tolist()
    [True, False, True]
    """
    chosen = np.zeros(len(left), dtype=np.bool_)
    if len(left) == 0:
        return chosen
    n_left = int(left.max()) + 1
    size = n_left + int(right.max()) + 1
    graph = coo_array((np.ones(len(left)), (left, right + n_left)), shape=(size, size))
    component = connected_components(graph, directed=False)[1][left]
    order = np.argsort(component, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(component[order])) + 1):
        chosen[members[_assign_component(left[members], right[members], weight[members])]] = True
    return chosen


def _assign_component(left: IntVector, right: IntVector, weight: npt.NDArray[np.float64]) -> IntVector:
    """Give the positions of the chosen candidates of one connected component."""
    if len(left) == 1:
        return np.zeros(1, dtype=np.int64)
    (rows, row), (columns, column) = (np.unique(side, return_inverse=True) for side in (left, right))
    worth = np.zeros((len(rows), len(columns)))
    position = np.full(worth.shape, -1, dtype=np.int64)
    worth[row, column] = weight
    position[row, column] = np.arange(len(left))
    found = position[linear_sum_assignment(worth, maximize=True)]
    return found[found >= 0]
