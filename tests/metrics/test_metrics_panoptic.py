"""Panoptic quality against hand-computed cases and a slow, obvious oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pathopan.errors import ShapeMismatch
from pathopan.metrics.overlap import aji, aji_plus, dice
from pathopan.metrics.panoptic import (
    PanopticCounts,
    count_binary,
    count_by_class,
    find_overlaps,
    match_instances,
    mean_pq,
    mean_pq_per_image,
    pool_counts,
)
from pathopan.metrics.panoptic_map import PanopticMap, count_panoptic

maps = hnp.arrays(np.int32, (7, 8), elements=st.integers(0, 4))


def slow_counts(truth, pred, void=None, min_iou=0.5):
    """Loop over every pair of masks, as the paper reads."""
    known = np.ones(truth.shape, bool) if void is None else ~void
    hits, used_t, used_p, total = 0, set(), set(), 0.0
    for t in set(truth[known].tolist()) - {0}:
        for p in set(pred.ravel().tolist()) - {0}:
            a, b = (truth == t) & known, (pred == p) & known
            iou = (a & b).sum() / (a | b).sum()
            if iou > min_iou:
                hits, total = hits + 1, total + iou
                used_t.add(t)
                used_p.add(p)
    fn = len(set(truth[known].tolist()) - {0} - used_t)
    fp = 0
    for p in set(pred.ravel().tolist()) - {0} - used_p:
        mask = pred == p
        fp += (mask & ~known).sum() <= 0.5 * mask.sum()
    return hits, fp, fn, total


@settings(max_examples=150, deadline=None)
@given(maps, maps, hnp.arrays(np.bool_, (7, 8)))
def test_counts_equal_the_slow_ones_with_and_without_void(truth, pred, void):
    for mask in (None, void):
        counts = count_binary(match_instances(truth, pred, void=mask))
        hits, fp, fn, total = slow_counts(truth, pred, mask)
        assert (counts.tp, counts.fp, counts.fn) == (hits, fp, fn)
        assert counts.sum_iou == pytest.approx(total)


@settings(max_examples=50, deadline=None)
@given(maps, maps, st.permutations([1, 2, 3, 4]))
def test_renaming_instances_changes_nothing_and_pq_is_sq_times_rq(truth, pred, names):
    counts = count_binary(match_instances(truth, pred))
    renamed = np.array([0, *(100 * n for n in names)], dtype=np.int64)[pred]
    assert count_binary(match_instances(truth, renamed)) == counts
    if counts.tp:
        assert counts.pq == pytest.approx(counts.sq * counts.rq)


@settings(max_examples=50, deadline=None)
@given(maps)
def test_a_map_agrees_perfectly_with_itself(labels):
    counts = count_binary(match_instances(labels, labels))
    if labels.any():
        assert (counts.pq, aji(labels, labels), aji_plus(labels, labels), dice(labels, labels)) == (1, 1, 1, 1)
    else:
        assert math.isnan(counts.pq)
        assert math.isnan(aji(labels, labels))
        assert math.isnan(dice(labels, labels))


@settings(max_examples=60, deadline=None)
@given(maps, maps)
def test_class_counts_equal_matching_each_class_alone(truth, pred):
    truth_class, pred_class = {1: 1, 2: 1, 3: 2, 4: 2}, {1: 2, 2: 1, 3: 2, 4: 1}
    counts = count_by_class(match_instances(truth, pred), truth_class, pred_class, class_ids=[1, 2])
    for c, found in counts.items():
        only_t = np.where(np.isin(truth, [i for i in truth_class if truth_class[i] == c]), truth, 0)
        only_p = np.where(np.isin(pred, [i for i in pred_class if pred_class[i] == c]), pred, 0)
        hits, fp, fn, total = slow_counts(only_t, only_p)
        assert (found.tp, found.fp, found.fn) == (hits, fp, fn)
        assert found.sum_iou == pytest.approx(total)


def test_one_nucleus_split_in_two():
    truth = np.array([[1, 1, 1, 1, 1, 0]])
    pred = np.array([[1, 1, 1, 2, 2, 0]])
    counts = count_binary(match_instances(truth, pred))
    assert counts == PanopticCounts(tp=1, fp=1, fn=0, sum_iou=0.6)
    assert counts.pq == pytest.approx(0.6 / 1.5)
    assert counts.sq == pytest.approx(0.6)
    assert counts.rq == pytest.approx(2 / 3)
    assert aji(truth, pred) == pytest.approx(3 / (5 + 2))  # the second half was never taken
    assert dice(truth, pred) == 1.0


def test_an_iou_of_exactly_a_half_is_no_match():
    matches = match_instances(np.array([[1, 1]]), np.array([[1, 0]]))
    assert matches.truth.tolist() == []
    assert matches.missed.tolist() == [1]
    assert matches.extra.tolist() == [1]


def test_below_a_half_pairs_are_still_one_to_one():
    truth, pred = np.array([[1, 1, 1, 1, 2, 2]]), np.array([[5, 5, 6, 6, 6, 6]])
    matches = match_instances(truth, pred, min_iou=0.2)
    assert matches.truth.tolist() == [1, 2]
    assert matches.pred.tolist() == [5, 6]
    assert matches.iou.tolist() == [0.5, 0.5]


def test_void_pixels_count_in_no_overlap_and_forgive_predictions():
    truth = np.array([[1, 1, 0, 0, 0, 0, 0, 0]])
    pred = np.array([[4, 4, 4, 4, 5, 5, 6, 6]])
    void = np.array([[False, False, True, True, True, True, False, False]])
    matches = match_instances(truth, pred, void=void)
    assert matches.iou.tolist() == [1.0]
    assert matches.ignored.tolist() == [5]
    assert matches.extra.tolist() == [6]


def test_a_pair_of_two_classes_is_a_miss_and_a_false_alarm():
    labels = np.array([[1, 1, 2, 2]])
    counts = count_by_class(match_instances(labels, labels), {1: 1, 2: 2}, {1: 1, 2: 1}, class_ids=[1, 2, 3])
    assert counts[1] == PanopticCounts(tp=1, fp=1, fn=0, sum_iou=1.0)
    assert counts[2] == PanopticCounts(tp=0, fp=0, fn=1, sum_iou=0.0)
    assert counts[2].pq == 0
    assert math.isnan(counts[2].sq)
    assert math.isnan(counts[3].pq)
    assert mean_pq(counts) == pytest.approx((1 / 1.5 + 0) / 2)


def test_a_true_nucleus_of_unknown_class_judges_nobody():
    labels = np.array([[1, 1, 2, 2]])
    counts = count_by_class(match_instances(labels, labels), {1: 0, 2: 1}, {1: 2, 2: 1}, class_ids=[1, 2])
    assert counts == {1: PanopticCounts(1, 0, 0, 1.0), 2: PanopticCounts()}


def test_pannuke_skips_absent_classes_and_conic_pools():
    first = {1: PanopticCounts(1, 0, 0, 1.0), 2: PanopticCounts(0, 3, 0, 0.0)}  # class 2 absent, falsely seen
    second = {1: PanopticCounts(0, 0, 1, 0.0), 2: PanopticCounts(1, 0, 0, 0.8)}
    assert mean_pq_per_image([first, second]) == pytest.approx((1.0 + 0.4) / 2)
    assert mean_pq_per_image([first, second, second], tissues=["a", "b", "b"]) == pytest.approx((1.0 + 0.4) / 2)
    pooled = {c: pool_counts([first[c], second[c]]) for c in (1, 2)}
    assert mean_pq(pooled) == pytest.approx((1.0 / 1.5 + 0.8 / 2.5) / 2)


def test_counts_of_nothing_are_empty_and_nan():
    assert pool_counts([]) == PanopticCounts()
    assert math.isnan(mean_pq({}))
    assert math.isnan(mean_pq_per_image([]))
    empty = np.zeros((3, 3), int)
    matches = match_instances(empty, empty)
    assert [len(part) for part in (matches.truth, matches.missed, matches.extra)] == [0, 0, 0]


def test_aji_of_hand_computed_maps():
    truth = np.array([[1, 1, 0, 2, 2, 2, 0, 3]])
    pred = np.array([[7, 0, 0, 8, 8, 9, 9, 0]])
    assert aji(truth, pred) == pytest.approx((1 + 2) / (2 + 3 + 1 + 2))  # 1~7, 2~8, 3 and 9 alone
    one_for_two = np.array([[5, 5, 5, 5]])
    assert aji(np.array([[1, 1, 2, 2]]), one_for_two) == pytest.approx(4 / 8)  # 5 is taken twice
    assert aji_plus(np.array([[1, 1, 2, 2]]), one_for_two) == pytest.approx(2 / (4 + 2))


def slow_aji(truth, pred):
    shared, union, used = 0, 0, set()
    for t in sorted(set(truth.ravel().tolist()) - {0}):
        best, best_iou = None, 0.0
        for p in sorted(set(pred.ravel().tolist()) - {0}):
            iou = ((truth == t) & (pred == p)).sum() / ((truth == t) | (pred == p)).sum()
            if iou > best_iou:
                best, best_iou = p, iou
        if best is None:
            union += (truth == t).sum()
            continue
        shared += ((truth == t) & (pred == best)).sum()
        union += ((truth == t) | (pred == best)).sum()
        used.add(best)
    union += sum((pred == p).sum() for p in set(pred.ravel().tolist()) - {0} - used)
    return shared / union if union else math.nan


@settings(max_examples=100, deadline=None)
@given(maps, maps)
def test_aji_equals_the_slow_one(truth, pred):
    assert aji(truth, pred) == pytest.approx(slow_aji(truth, pred), nan_ok=True)


def test_stuff_and_things_together():
    region = np.array([[1, 1, 1, 2, 2, 2, 0, 0]])
    nuclei = np.array([[0, 9, 0, 0, 0, 0, 0, 0]])
    truth = PanopticMap(region, nuclei, {9: 1})
    pred = PanopticMap(np.array([[1, 1, 1, 1, 2, 2, 2, 3]]), np.array([[0, 3, 0, 0, 0, 0, 0, 0]]), {3: 1})
    stuff, things = count_panoptic(truth, pred, region_ids=[1, 2, 3], nucleus_ids=[1, 2])
    assert things == {1: PanopticCounts(1, 0, 0, 1.0), 2: PanopticCounts()}
    assert stuff[1] == PanopticCounts(1, 0, 0, pytest.approx(2 / 3))  # 2 of 3 px, the nucleus is not stroma's
    assert stuff[2] == PanopticCounts(1, 0, 0, pytest.approx(2 / 3))  # its void pixel counts in no union
    assert stuff[3] == PanopticCounts()  # wholly in void: no false positive
    assert mean_pq({**{-r: c for r, c in stuff.items()}, **things}) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_shapes_must_agree():
    with pytest.raises(ShapeMismatch, match=r"truth is \(2, 2\) and the prediction \(2, 3\)"):
        find_overlaps(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ShapeMismatch, match="void"):
        match_instances(np.zeros((2, 2), int), np.zeros((2, 2), int), void=np.zeros((1, 2), bool))
    with pytest.raises(ShapeMismatch, match="prediction"):
        dice(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ShapeMismatch, match="region map"):
        PanopticMap(np.zeros((2, 2), int), np.zeros((2, 3), int), {})
