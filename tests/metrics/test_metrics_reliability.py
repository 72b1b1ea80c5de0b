"""Reliability and its remedies against slow, obvious versions and cases counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pathopan.errors import ShapeMismatch
from pathopan.metrics.reliability import (
    TemperatureFit,
    class_reliability,
    classwise_ece,
    fit_platt,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from pathopan.probabilities import apply_platt, apply_temperature

claims = st.integers(0, 25).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=st.integers(0, 100).map(lambda i: i / 100)), hnp.arrays(np.bool_, n)
    )
)


def slow_ece(prob, true, bins):
    """Walk through the bins one by one, as the paper reads; the first one takes 0 as well."""
    total = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        inside = [i for i, p in enumerate(prob) if low < p <= high or (index == 0 and p == 0)]
        if inside:
            gap = abs(sum(true[i] for i in inside) / len(inside) - sum(prob[i] for i in inside) / len(inside))
            total += len(inside) / len(prob) * gap
    return total if len(prob) else math.nan


@given(claims)
def test_the_error_equals_the_slow_one(pair):
    prob, true = pair
    assert reliability(prob, true, bins=7).ece == pytest.approx(slow_ece(prob, true, 7), nan_ok=True)


def test_a_curve_counted_by_hand():
    found = reliability([0.1, 0.5, 0.6, 0.6, 1.0], [False, True, True, False, True], bins=2)
    assert found.count.tolist() == [2, 3]  # a half belongs to the lower bin
    assert found.claimed.tolist() == pytest.approx([0.3, 2.2 / 3])
    assert found.observed.tolist() == pytest.approx([0.5, 2 / 3])
    assert found.ece == pytest.approx(2 / 5 * 0.2 + 3 / 5 * (2.2 - 2) / 3)
    assert found.worst == pytest.approx(0.2)


def test_empty_bins_and_nothing_at_all():
    lonely = reliability([0.95], [True], bins=10)
    assert math.isnan(lonely.claimed[0])
    assert lonely.ece == pytest.approx(0.05)
    assert math.isnan(reliability([], []).ece)
    assert math.isnan(reliability([], []).worst)
    nothing = np.empty((0, 3))
    assert math.isnan(class_reliability(nothing, []).ece)
    assert math.isnan(negative_log_likelihood(nothing, []))
    assert np.isnan(classwise_ece(nothing, [])).all()
    assert fit_temperature(nothing, []).temperature == 1
    assert (fit_platt([], []).slope, fit_platt([], []).intercept) == (1, 0)


def test_the_likeliest_class_and_each_class_for_itself():
    probs = np.array([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6]])
    labels = np.array([0, 1, 1])
    assert class_reliability(probs, labels).ece == pytest.approx((2 * abs(0.8 - 0.5) + abs(0.6 - 1)) / 3)
    assert classwise_ece(probs, labels).tolist() == pytest.approx([(2 * 0.3 + 0.4) / 3, (2 * 0.3 + 0.4) / 3])
    assert negative_log_likelihood(probs, labels) == pytest.approx(-(math.log(0.8 * 0.2 * 0.6)) / 3)


def test_temperature_softens_sharpens_and_keeps_the_likeliest():
    probs = np.array([[0.7, 0.2, 0.1]])
    assert apply_temperature(probs, 1.0) == pytest.approx(probs)
    squared = np.array([0.49, 0.04, 0.01]) / 0.54
    assert apply_temperature(probs, 0.5)[0] == pytest.approx(squared)
    assert apply_temperature(probs, 100.0)[0] == pytest.approx(np.full(3, 1 / 3), abs=0.01)
    assert apply_temperature([[1.0, 0.0]], 2.0)[0, 0] < 1  # a certainty can be doubted


def test_the_temperature_of_an_overconfident_network_is_found():
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([1.0, 1.0, 1.0], 4_000)
    labels = (honest.cumsum(axis=1) > rng.uniform(size=(4_000, 1))).argmax(axis=1)
    boastful = apply_temperature(honest, 0.4)
    fit = fit_temperature(boastful, labels)
    assert fit.temperature == pytest.approx(1 / 0.4, rel=0.06)
    assert fit.nll_after < fit.nll_before == pytest.approx(negative_log_likelihood(boastful, labels))
    mended = apply_temperature(boastful, fit.temperature)
    assert negative_log_likelihood(mended, labels) == pytest.approx(fit.nll_after)
    assert class_reliability(mended, labels).ece < 0.25 * class_reliability(boastful, labels).ece


@given(st.integers(0, 10**6))
def test_no_temperature_of_a_fine_grid_is_better(seed):
    rng = np.random.default_rng(seed)
    probs, labels = rng.dirichlet([1.0, 2.0, 0.5], 12), rng.integers(0, 3, 12)
    fit = fit_temperature(probs, labels)
    trials = [negative_log_likelihood(apply_temperature(probs, 1 / s), labels) for s in np.geomspace(0.021, 49, 200)]
    assert fit.nll_after <= min(trials) + 1e-6


def test_a_temperature_for_one_right_and_one_wrong_nucleus_by_hand():
    """Two claims of 0.9, one of them wrong: only a coin's 0.5 is honest, so the temperature grows to its limit."""
    fit = fit_temperature([[0.9, 0.1], [0.9, 0.1]], [0, 1])
    assert isinstance(fit, TemperatureFit)
    assert fit.temperature == pytest.approx(50, rel=0.01)
    assert apply_temperature([0.9, 0.1], fit.temperature)[0] == pytest.approx(0.5, abs=0.02)
    three_of_four = fit_temperature([[0.9, 0.1]] * 4, [0, 0, 0, 1])
    assert apply_temperature([0.9, 0.1], three_of_four.temperature)[0] == pytest.approx(0.75, abs=1e-4)
    assert three_of_four.temperature == pytest.approx(math.log(9) / math.log(3), rel=1e-4)  # odds 9 become odds 3


def test_platt_finds_the_line_and_keeps_the_order():
    rng = np.random.default_rng(1)
    odds = rng.normal(0.5, 1.5, 6_000)
    true = rng.uniform(size=6_000) < 1 / (1 + np.exp(-(0.5 * odds + 1)))
    prob = 1 / (1 + np.exp(-odds))
    fit = fit_platt(prob, true)
    assert (fit.slope, fit.intercept) == (pytest.approx(0.5, abs=0.06), pytest.approx(1, abs=0.08))
    assert fit.nll_after < fit.nll_before
    mended = apply_platt(prob, fit.slope, fit.intercept)
    assert (np.argsort(mended) == np.argsort(prob)).all()
    assert reliability(mended, true).ece < 0.3 * reliability(prob, true).ece
    assert apply_platt([0.5, 0.9], 1.0, 0.0).tolist() == pytest.approx([0.5, 0.9])


def test_platt_survives_where_everything_is_a_nucleus():
    fit = fit_platt([0.6, 0.7, 0.9, 1.0], [True] * 4)
    assert np.isfinite([fit.slope, fit.intercept]).all()
    assert apply_platt([0.6, 0.9], fit.slope, fit.intercept) == pytest.approx(
        [5 / 6, 5 / 6], abs=0.02
    )  # (4 + 1) / (4 + 2)


def test_lengths_must_agree():
    for wrong in (
        lambda: reliability([0.5], [True, False]),
        lambda: fit_platt([0.5], [True, False]),
        lambda: fit_temperature([[0.5, 0.5]], [0, 1]),
        lambda: class_reliability([0.5, 0.5], [0]),
    ):
        with pytest.raises(ShapeMismatch, match="needed for each"):
            wrong()
