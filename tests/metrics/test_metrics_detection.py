"""Point matching against exhaustive search, and the two F1 protocols on hand-made cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pathopan.errors import ShapeMismatch
from pathopan.metrics.assignment import assign_pairs
from pathopan.metrics.detection import (
    DetectionCounts,
    LabelledPoints,
    TypeCounts,
    count_detections,
    count_detections_by_class,
    count_types,
    match_points,
    match_points_hovernet,
)

few_points = st.integers(0, 4).flatmap(lambda n: hnp.arrays(np.float64, (n, 2), elements=st.integers(0, 6).map(float)))


def best_by_trying_all(truth, pred, radius):
    """Try every one-to-one assignment: most pairs first, then least distance."""
    best = (0, 0.0)
    short, long = (truth, pred) if len(truth) <= len(pred) else (pred, truth)
    for order in itertools.permutations(range(len(long)), len(short)):
        distances = np.linalg.norm(short - long[list(order)], axis=1) if len(short) else np.empty(0)
        near = distances[distances <= radius]
        for size in range(len(near) + 1):
            for kept in itertools.combinations(near, size):
                best = max(best, (size, -float(sum(kept))))
    return best


@settings(max_examples=120, deadline=None)
@given(few_points, few_points)
def test_matching_is_the_best_of_all(truth, pred):
    pairs = match_points(truth, pred, radius_um=3.0)
    most, least = best_by_trying_all(truth, pred, 3.0)
    distances = np.linalg.norm(truth[pairs.truth] - pred[pairs.pred], axis=1)
    assert len(pairs.truth) == most
    assert distances.sum() == pytest.approx(-least)
    assert (distances <= 3.0).all()
    assert sorted([*pairs.truth, *pairs.missed]) == list(range(len(truth)))
    assert sorted([*pairs.pred, *pairs.extra]) == list(range(len(pred)))


@settings(max_examples=60, deadline=None)
@given(few_points, few_points)
def test_hovernets_pairs_are_never_more(truth, pred):
    theirs = match_points_hovernet(truth, pred)
    assert len(theirs.truth) <= len(match_points(truth, pred).truth)
    assert (np.linalg.norm(truth[theirs.truth] - pred[theirs.pred], axis=1) <= 3.0).all()


def test_hovernets_pairing_can_lose_a_pair():
    truth, pred = np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([[3.0, 0.0], [3.0, 3.0]])
    assert len(match_points(truth, pred).truth) == 2
    assert len(match_points_hovernet(truth, pred).truth) == 1


def test_the_radius_is_inclusive():
    assert count_detections(np.array([[0.0, 0.0]]), np.array([[3.0, 0.0]])).tp == 1
    assert count_detections(np.array([[0.0, 0.0]]), np.array([[3.001, 0.0]])).tp == 0


def test_a_greedy_choice_would_lose_a_pair():
    truth = np.array([[0.0, 0.0], [2.0, 0.0]])
    pred = np.array([[1.9, 0.0], [4.5, 0.0]])
    pairs = match_points(truth, pred, radius_um=2.5)
    assert pairs.pred.tolist() == [0, 1]


def test_counts_f1_and_empty_images():
    none, one = np.empty((0, 2)), np.array([[1.0, 1.0]])
    assert count_detections(none, none) == DetectionCounts()
    assert count_detections(one, none) == DetectionCounts(fn=1)
    assert count_detections(none, one) == DetectionCounts(fp=1)
    assert math.isnan(DetectionCounts().f1)
    assert math.isnan(DetectionCounts().precision)
    assert math.isnan(DetectionCounts().recall)
    pooled = DetectionCounts(tp=2, fp=1) + DetectionCounts(tp=1, fn=3)
    assert (pooled.precision, pooled.recall, pooled.f1) == (3 / 4, 3 / 6, 6 / 10)


def points(rows):
    table = np.array(rows, dtype=float).reshape(-1, 3)
    return LabelledPoints(table[:, :2], table[:, 2].astype(np.int64))


def test_the_two_protocols_on_one_image():
    truth = points([[0, 0, 1], [10, 0, 1], [20, 0, 2], [30, 0, 2]])
    pred = points([[0, 1, 1], [10, 1, 2], [20, 1, 2], [50, 0, 1]])
    by_class = count_detections_by_class(truth, pred, class_ids=[1, 2])
    assert by_class == {1: DetectionCounts(1, 1, 1), 2: DetectionCounts(1, 1, 1)}
    types = count_types(truth, pred, pairs=match_points_hovernet(truth.xy_um, pred.xy_um), class_ids=[1, 2])
    assert types[1] == TypeCounts(tp=1, fp=0, fn=1, fp_d=1, fn_d=0)
    assert types[2] == TypeCounts(tp=1, fp=1, fn=0, fp_d=0, fn_d=1)
    assert types[1].fc == pytest.approx(2 / (2 + 2 + 1))
    assert (types[1] + types[2]).fc == pytest.approx(4 / (4 + 2 + 2 + 1 + 1))
    assert math.isnan(TypeCounts().fc)


def test_a_true_point_of_unknown_class_makes_no_class_error():
    pairs = match_points(np.array([[0.0, 0.0]]), np.array([[0.0, 0.0]]))
    counts = count_types(points([[0, 0, 0]]), points([[0, 0, 1]]), pairs=pairs, class_ids=[1])
    assert counts == {1: TypeCounts()}


def test_points_and_classes_must_go_together():
    with pytest.raises(ShapeMismatch, match="1 classes for points of shape"):
        LabelledPoints(np.zeros((2, 2)), np.array([1]))


def test_assignment_solves_each_group_of_candidates():
    left, right = np.array([0, 0, 1, 3]), np.array([0, 1, 1, 2])
    assert assign_pairs(left, right, weight=np.array([0.6, 0.7, 0.2, 0.1])).tolist() == [True, False, True, True]
    assert assign_pairs(left[:0], right[:0], weight=np.empty(0)).tolist() == []
