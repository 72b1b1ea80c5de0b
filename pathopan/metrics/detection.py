"""Agreement of points: detection and class F1, by two protocols that the literature uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from pathopan.errors import ShapeMismatch
from pathopan.metrics.assignment import assign_pairs

Points = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.int64]
RADIUS_UM = 3.0
"""How far a predicted centre may lie from a true one: 6 px at 0.5 um/px (BRCA-M2C), 12 px at 0.25 (HoVer-Net)."""


@dataclass(frozen=True)
class PointPairs:
    """Positions, in the two lists, of the paired points and of those left over."""

    truth: IntVector
    pred: IntVector
    missed: IntVector
    extra: IntVector


@dataclass(frozen=True)
class LabelledPoints:
    """Points with a class each.

    Parameters
    ----------
    xy_um : (N, 2) float
        Centres in micrometres.
    class_id : (N,) int
        0 is unknown.

    Raises
    ------
    ShapeMismatch
        If there are not as many classes as points.
    """

    xy_um: Points
    class_id: IntVector

    def __post_init__(self) -> None:
        """Check that points and classes go together."""
        if self.xy_um.shape != (len(self.class_id), 2):
            msg = f"{len(self.class_id)} classes for points of shape {self.xy_um.shape}; expected (N, 2)"
            raise ShapeMismatch(msg)

    def of_class(self, class_id: int) -> Points:
        """Keep the points of a class."""
        return self.xy_um[self.class_id == class_id]


@dataclass(frozen=True)
class DetectionCounts:
    """What precision, recall and F1 are made of. Counts of images add."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: DetectionCounts) -> DetectionCounts:
        """Pool two sets of counts."""
        return DetectionCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """Share of the predictions that are right; NaN without predictions."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else float("nan")

    @property
    def recall(self) -> float:
        """Share of the truth that was found; NaN without truth."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float("nan")

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN where there is nothing to find and nothing was found."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else float("nan")


def match_points(truth_um: Points, pred_um: Points, *, radius_um: float = RADIUS_UM) -> PointPairs:
    """Pair points one to one within a radius: as many pairs as possible, and among those the shortest in sum.

    Exact: each connected group of points within reach is solved as an assignment problem in which one more pair always
    outweighs any saving in distance.

    Parameters
    ----------
    truth_um, pred_um : (N, 2), (M, 2) float
        Centres in micrometres.
    radius_um : float
        A pair may be this far apart, inclusive.

    Examples
    --------
    >>> match_points(np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [-1.5, 0.0]])).pred
    array([1, 0])
    """
    if len(truth_um) == 0 or len(pred_um) == 0:
        nothing = np.empty(0, dtype=np.int64)
        return _pairs(nothing, nothing, len(truth_um), len(pred_um))
    near = KDTree(truth_um).sparse_distance_matrix(KDTree(pred_um), radius_um, output_type="ndarray")
    near = near[np.lexsort((near["j"], near["i"]))]
    truth, pred = near["i"].astype(np.int64), near["j"].astype(np.int64)
    more_than_any_detour = radius_um * len(truth_um) + 1.0
    chosen = assign_pairs(truth, pred, weight=more_than_any_detour - near["v"])
    return _pairs(truth[chosen], pred[chosen], len(truth_um), len(pred_um))


def match_points_hovernet(truth_um: Points, pred_um: Points, *, radius_um: float = RADIUS_UM) -> PointPairs:
    """Pair points as HoVer-Net's released evaluation does: least summed distance first, radius afterwards.

    Every point of the shorter list is paired, however far, and pairs beyond the radius are then dropped; this can leave
    points unpaired that :func:`match_points` would pair. Only for comparison with figures obtained this way.

    Parameters
    ----------
    truth_um, pred_um : (N, 2), (M, 2) float
        Centres in micrometres.
    radius_um : float
        A pair may be this far apart, inclusive.
    """
    distance = cdist(truth_um.reshape(-1, 2), pred_um.reshape(-1, 2))
    truth, pred = linear_sum_assignment(distance)
    near = distance[truth, pred] <= radius_um
    return _pairs(truth[near], pred[near], len(truth_um), len(pred_um))


def _pairs(truth: IntVector, pred: IntVector, n_truth: int, n_pred: int) -> PointPairs:
    order = np.argsort(truth, kind="stable")
    missed, extra = np.ones(n_truth, np.bool_), np.ones(n_pred, np.bool_)
    missed[truth], extra[pred] = False, False
    return PointPairs(truth[order], pred[order], np.flatnonzero(missed), np.flatnonzero(extra))


def count_detections(truth_um: Points, pred_um: Points, *, radius_um: float = RADIUS_UM) -> DetectionCounts:
    """Count hits, false alarms and misses of one image, whatever the class."""
    pairs = match_points(truth_um, pred_um, radius_um=radius_um)
    return DetectionCounts(len(pairs.truth), len(pairs.extra), len(pairs.missed))


def count_detections_by_class(
    truth: LabelledPoints, pred: LabelledPoints, *, class_ids: Sequence[int], radius_um: float = RADIUS_UM
) -> dict[int, DetectionCounts]:
    """Count class by class: predicted points of a class against true points of that class (protocol A, BRCA-M2C).

    Notes
    -----
    Abousamra et al., ICCV 2021: pool the counts over images, then F1.
    """
    return {c: count_detections(truth.of_class(c), pred.of_class(c), radius_um=radius_um) for c in class_ids}


@dataclass(frozen=True)
class TypeCounts:
    """What HoVer-Net's classification F1 of one class is made of (protocol B). Counts of images add.

    ``tp, fp, fn`` are about the class of paired nuclei; ``fp_d, fn_d`` are unpaired nuclei of the class.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    fp_d: int = 0
    fn_d: int = 0

    def __add__(self, other: TypeCounts) -> TypeCounts:
        """Pool two sets of counts."""
        return TypeCounts(
            self.tp + other.tp,
            self.fp + other.fp,
            self.fn + other.fn,
            self.fp_d + other.fp_d,
            self.fn_d + other.fn_d,
        )

    @property
    def fc(self) -> float:
        """F_c with the published weights 2, 2, 1, 1; NaN where the class is neither there nor predicted.

        Notes
        -----
        Graham et al., HoVer-Net, Medical Image Analysis 58, 2019, section 4.2 (classification). The formula has TP + TN
        in it; the released code looks only at pairs that involve the class, so TN is 0, and so it is here.
        """
        total = 2 * self.tp + 2 * self.fp + 2 * self.fn + self.fp_d + self.fn_d
        return 2 * self.tp / total if total else float("nan")


def count_types(
    truth: LabelledPoints, pred: LabelledPoints, *, pairs: PointPairs, class_ids: Sequence[int]
) -> dict[int, TypeCounts]:
    """Count class by class among points that were paired without regard to class (protocol B, HoVer-Net).

    Parameters
    ----------
    truth, pred : LabelledPoints
        A true point of class 0 is of unknown class: what is paired with it is neither right nor wrong.
    pairs : PointPairs
        From :func:`match_points_hovernet`, or from :func:`match_points` for exact pairs.
    class_ids : sequence of int
        Classes to count.
    """
    true, found = truth.class_id[pairs.truth], pred.class_id[pairs.pred]
    known = true != 0
    missed, extra = truth.class_id[pairs.missed], pred.class_id[pairs.extra]
    return {
        c: TypeCounts(
            tp=int(((true == c) & (found == c)).sum()),
            fp=int((known & (true != c) & (found == c)).sum()),
            fn=int(((true == c) & (found != c)).sum()),
            fp_d=int((extra == c).sum()),
            fn_d=int((missed == c).sum()),
        )
        for c in class_ids
    }
