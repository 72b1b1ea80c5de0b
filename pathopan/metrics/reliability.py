"""Do probabilities mean what they say? Reliability curves, expected calibration error, and what mends it.

Two kinds of probability are judged: that a detected nucleus is of a class (:func:`fit_temperature`), and that it is a
nucleus at all (:func:`fit_platt`). Fit on images that the network was not trained on, and report on images that neither
the network nor the fit has seen: :func:`pathopan.metrics.calibrate.calibrate_folds` does so fold by fold.

A bundle that carries ``temperature`` T corrects the class probabilities of a nucleus once, after the mean over the
nucleus's pixels (:func:`pathopan.probabilities.apply_temperature`): the likeliest class stays the likeliest. One that
carries the two numbers of Platt corrects the probability of a nucleus (:func:`pathopan.probabilities.apply_platt`): the
order of nuclei stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax

from pathopan.errors import ShapeMismatch
from pathopan.probabilities import FLOOR, FloatArray, to_logits

BINS = 15
"""Of equal width, as in Guo et al. 2017."""
SHARPNESS = (0.02, 50.0)
"""Range in which 1 / T is sought."""


@dataclass(frozen=True)
class Reliability:
    """A reliability curve: what was claimed, and how often it came true, bin by bin."""

    edges: FloatArray  # (B + 1,) of the bins; a bin holds its upper edge
    count: npt.NDArray[np.int64]  # (B,) predictions in the bin
    claimed: FloatArray  # (B,) mean probability; NaN in an empty bin
    observed: FloatArray  # (B,) share that came true; NaN in an empty bin

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean gap between claimed and observed, over predictions; NaN of none."""
        filled = self.count > 0
        if not filled.any():
            return float("nan")
        return float(np.average(np.abs(self.claimed - self.observed)[filled], weights=self.count[filled]))

    @property
    def worst(self) -> float:
        """Maximum calibration error: the largest gap of any bin; NaN of none."""
        filled = self.count > 0
        return float(np.abs(self.claimed - self.observed)[filled].max()) if filled.any() else float("nan")


@dataclass(frozen=True)
class TemperatureFit:
    """One number that makes class probabilities honest, and what it does on the data it was fitted on."""

    temperature: float
    n: int  # nuclei it was fitted on
    nll_before: float  # mean negative log-likelihood of the true class
    nll_after: float


@dataclass(frozen=True)
class PlattFit:
    """Two numbers that make the probability of a nucleus honest: ``sigmoid(slope x logit(p) + intercept)``."""

    slope: float
    intercept: float
    n: int  # predicted nuclei it was fitted on
    nll_before: float
    nll_after: float


def reliability(prob: npt.ArrayLike, true: npt.ArrayLike, *, bins: int = BINS) -> Reliability:
    """Compute a reliability curve of binary claims.

    Parameters
    ----------
    prob : (N,) float
        Probability with which something was claimed, 0 to 1.
    true : (N,) bool
        Whether it came true.
    bins : int
        Of equal width; a probability on an edge belongs to the bin below.

    Raises
    ------
    ShapeMismatch
        If the two are not equally long.

    Notes
    -----
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2.

    Examples
    --------
    >>> reliability([0.9, 0.9, 0.9, 0.9], [True, True, True, False], bins=10).ece
    0.15...
    """
    claims, hits = np.asarray(prob, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if claims.shape != hits.shape or claims.ndim != 1:
        msg = f"a probability and an outcome are needed for each claim; found shapes {claims.shape} and {hits.shape}"
        raise ShapeMismatch(msg)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, claims, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        claimed = np.bincount(place, weights=claims, minlength=bins) / count
        observed = np.bincount(place, weights=hits, minlength=bins) / count
    return Reliability(edges, count, claimed, observed)


def class_reliability(probs: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = BINS) -> Reliability:
    """Compute the reliability curve of the likeliest class, which should be right as often as it says.

    Parameters
    ----------
    probs : (N, K) float
        Probability of each class.
    labels : (N,) int
        Column of the true class.
    bins : int
        Of equal width.

    Raises
    ------
    ShapeMismatch
        If there are not as many labels as rows.
    """
    table, true = _classes(probs, labels)
    if len(table) == 0:
        return reliability(np.empty(0), np.empty(0), bins=bins)
    return reliability(table.max(axis=1), table.argmax(axis=1) == true, bins=bins)


def classwise_ece(probs: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = BINS) -> FloatArray:
    """Compute the calibration error of each class's own probability, whichever class is the likeliest.

    A score that adds up probabilities of TILs rests on this one.

    Returns
    -------
    (K,) float

    Raises
    ------
    ShapeMismatch
        If there are not as many labels as rows.

    Notes
    -----
    Kull et al., Beyond temperature scaling, NeurIPS 2019, section 2 (classwise-ECE before the mean over classes).
    """
    table, true = _classes(probs, labels)
    return np.array([reliability(table[:, k], true == k, bins=bins).ece for k in range(table.shape[1])])


def negative_log_likelihood(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the mean of -log of the probability that the true class was given; NaN of none.

    Raises
    ------
    ShapeMismatch
        If there are not as many labels as rows.
    """
    table, true = _classes(probs, labels)
    if len(table) == 0:
        return float("nan")
    return float(-np.log(np.clip(table, FLOOR, 1)[np.arange(len(true)), true]).mean())


def fit_temperature(probs: npt.ArrayLike, labels: npt.ArrayLike) -> TemperatureFit:
    """Find the temperature at which the true classes are the most likely.

    Parameters
    ----------
    probs : (N, K) float
        Class probabilities of detected nuclei that have a true partner.
    labels : (N,) int
        Column of the partner's class.

    Returns
    -------
    TemperatureFit
        Temperature 1 if there is nothing to fit on.

    Raises
    ------
    ShapeMismatch
        If there are not as many labels as rows.

    Notes
    -----
    Guo et al., ICML 2017, section 4.2. The mean negative log-likelihood is convex in 1 / T, so a bounded line search
    finds its minimum.
    """
    table, true = _classes(probs, labels)
    before = negative_log_likelihood(table, true)
    if len(table) == 0:
        return TemperatureFit(1.0, 0, before, before)
    logs = np.log(np.clip(table, FLOOR, 1))

    def loss(sharpness: float) -> float:
        return float(-log_softmax(logs * sharpness, axis=1)[np.arange(len(true)), true].mean())

    best = minimize_scalar(loss, bounds=SHARPNESS, method="bounded", options={"xatol": 1e-6})
    return TemperatureFit(1 / float(best.x), len(true), before, float(best.fun))


def fit_platt(prob: npt.ArrayLike, true: npt.ArrayLike) -> PlattFit:
    """Fit a line in log-odds to whether predicted nuclei are nuclei.

    Parameters
    ----------
    prob : (N,) float
        Of each predicted nucleus.
    true : (N,) bool
        Whether it has a true partner.

    Returns
    -------
    PlattFit
        Slope 1 and intercept 0, which change nothing, if there is nothing to fit on.

    Raises
    ------
    ShapeMismatch
        If the two are not equally long.

    Notes
    -----
    Platt, Probabilistic outputs for support vector machines, 1999: targets are (N+ + 1) / (N+ + 2) and 1 / (N- + 2),
    so that the fit exists even where all were nuclei. The likelihood is that of these targets, and concave.
    """
    claims, hits = np.asarray(prob, dtype=np.float64), np.asarray(true, dtype=np.bool_)
    if claims.shape != hits.shape or claims.ndim != 1:
        msg = f"a probability and an outcome are needed for each nucleus; found shapes {claims.shape} and {hits.shape}"
        raise ShapeMismatch(msg)
    if len(claims) == 0:
        return PlattFit(1.0, 0.0, 0, float("nan"), float("nan"))
    positive, x = int(hits.sum()), to_logits(claims)
    target = np.where(hits, (positive + 1) / (positive + 2), 1 / (len(hits) - positive + 2))

    def loss(line: FloatArray) -> tuple[float, FloatArray]:
        z = line[0] * x + line[1]
        error = expit(z) - target
        return float((np.logaddexp(0, z) - target * z).mean()), np.array([(error * x).mean(), error.mean()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS", options={"gtol": 1e-8})
    return PlattFit(float(found.x[0]), float(found.x[1]), len(claims), loss(np.array([1.0, 0.0]))[0], float(found.fun))


def _classes(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    table, true = np.asarray(probs, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if table.ndim != 2 or true.shape != table.shape[:1]:
        msg = f"a row of class probabilities and a label are needed for each nucleus; found {table.shape}, {true.shape}"
        raise ShapeMismatch(msg)
    return table, true
