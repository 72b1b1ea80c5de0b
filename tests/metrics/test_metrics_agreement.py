"""Reader agreement against published examples, and the bootstrap against what it must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from pathopan.errors import ShapeMismatch
from pathopan.metrics.agreement import (
    bland_altman,
    bootstrap_counts,
    bootstrap_groups,
    icc,
    quadratic_kappa,
    spearman,
)
from pathopan.metrics.semantic import accuracy, confusion, dice_by_class, iou_by_class, merge_classes

SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_icc_of_shrout_and_fleiss():
    """Table 2 of the paper; intervals as R's psych::ICC prints them."""
    two, three = icc(SHROUT_FLEISS), icc(SHROUT_FLEISS, form="ICC(3,1)")
    assert (two.value, two.low, two.high) == pytest.approx((0.290, 0.019, 0.761), abs=6e-4)
    assert (three.value, three.low, three.high) == pytest.approx((0.715, 0.342, 0.946), abs=6e-4)


def test_icc_at_its_ends():
    exact = icc([[1, 1], [2, 2], [5, 5]])
    assert (exact.value, exact.low, exact.high) == (1, 1, 1)
    shifted = [[1, 2], [2, 3], [5, 6]]
    assert icc(shifted, form="ICC(3,1)").value == pytest.approx(1)
    assert icc(shifted).value < 1
    assert math.isnan(icc([[3, 3], [3, 3]]).value)
    assert math.isnan(icc([[3, 3], [3, 3]], form="ICC(3,1)").value)
    assert icc([[1, 2], [1, 2]]).value == 0
    assert math.isnan(icc([[1, 2]]).value)
    with pytest.raises(ShapeMismatch, match="one row a case"):
        icc([1, 2, 3])


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, (6, 2), elements=st.integers(0, 5).map(float)))
def test_spearman_is_scipys(table):
    a, b = table.T
    if np.ptp(a) and np.ptp(b):
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    else:
        assert math.isnan(spearman(a, b))


def test_bland_altman_by_hand():
    result = bland_altman([10, 20, 30], [12, 21, 33])
    assert (result.bias, result.sd) == (2, 1)
    assert (result.low, result.high) == pytest.approx((0.04, 3.96))
    assert math.isnan(bland_altman([1], [2]).sd)
    with pytest.raises(ShapeMismatch, match="equal length"):
        bland_altman([1, 2], [1])


def test_quadratic_kappa_by_hand():
    first, second = [1, 2, 3, 3], [1, 2, 3, 2]
    observed = 1.0
    expected = sum((a - b) ** 2 for a in first for b in second) / 4
    assert quadratic_kappa(first, second, categories=[1, 2, 3]) == pytest.approx(1 - observed / expected)
    assert quadratic_kappa(first, first, categories=[1, 2, 3]) == 1
    assert math.isnan(quadratic_kappa([1, 1], [1, 1], categories=[1, 2]))
    with pytest.raises(ValueError, match=r"ratings \[4.0\] are none"):
        quadratic_kappa([4], [1], categories=[1, 2])


def f1(counts):
    return 2 * counts[..., 0] / (2 * counts[..., 0] + counts[..., 1])


def test_bootstrap_of_counts_is_seeded_and_brackets_the_pooled_figure():
    table = np.random.default_rng(1).integers(5, 40, size=(20, 2))
    first, again = bootstrap_counts(table, f1, seed=3), bootstrap_counts(table, f1, seed=3)
    assert first == again
    assert first.value == pytest.approx(f1(table.sum(axis=0)))
    assert first.low < first.value < first.high
    assert bootstrap_counts(table, f1, seed=4) != first


def test_bootstrap_of_equal_patients_has_no_width_and_of_one_patient_no_interval():
    same = bootstrap_counts([[3, 1]] * 5, f1)
    assert same.low == pytest.approx(same.high)
    alone = bootstrap_counts([[3, 1]], f1)
    assert alone.value == pytest.approx(6 / 7)
    assert math.isnan(alone.low)
    assert math.isnan(bootstrap_counts([[0, 0], [0, 0]], f1).low)


def test_bootstrap_of_rows_draws_patients_whole():
    groups = ["a", "a", "a", "b"]
    sizes = set()

    def statistic(rows):
        assert (rows == 0).sum() == (rows == 1).sum() == (rows == 2).sum()
        sizes.add(len(rows))
        return float(len(rows))

    result = bootstrap_groups(groups, statistic, resamples=200)
    assert sizes == {2, 4, 6}
    assert result.value == 4
    assert math.isnan(bootstrap_groups(["a", "a"], lambda rows: 1.0).low)


def test_the_two_bootstraps_agree_in_law():
    table = np.random.default_rng(2).integers(1, 30, size=(15, 2)).astype(float)
    groups = [str(i) for i in range(15)]
    fast = bootstrap_counts(table, f1, resamples=4000)
    slow = bootstrap_groups(groups, lambda rows: float(f1(table[rows].sum(axis=0))), resamples=4000)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.02)


def test_confusion_ignores_and_remembers_what_was_not_predicted():
    truth = np.array([[1, 1, 2], [2, 0, 5]])
    pred = np.array([[1, 2, 2], [0, 1, 5]])
    matrix = confusion(truth, pred, class_ids=[5, 1, 2])
    assert matrix.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert dice_by_class(matrix) == pytest.approx([1, 2 / 3, 2 / 4])
    assert iou_by_class(matrix) == pytest.approx([1, 1 / 2, 1 / 3])
    assert accuracy(matrix) == pytest.approx(3 / 5)
    merged = merge_classes(matrix, {"five": [0], "rest": [1, 2]})
    assert merged.tolist() == [[1, 0, 0], [0, 3, 1]]


def test_confusion_of_absent_classes_and_its_errors():
    nothing = confusion(np.zeros(3, int), np.ones(3, int), class_ids=[1, 2])
    assert nothing.sum() == 0
    assert np.isnan(dice_by_class(nothing)).all()
    assert math.isnan(accuracy(nothing))
    with pytest.raises(ShapeMismatch):
        confusion(np.zeros(3, int), np.zeros(2, int), class_ids=[1])
    with pytest.raises(ValueError, match=r"classes \[7\], which are not among \[1, 2\]"):
        confusion(np.array([7]), np.array([1]), class_ids=[1, 2])
