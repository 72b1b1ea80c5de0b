"""Make probabilities mean what they say: two corrections that a bundle may carry.

Both keep the order of what they correct. :mod:`pathopan.metrics.reliability` fits them, and prediction applies them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, softmax

FloatArray = npt.NDArray[np.float64]
FLOOR = 1e-7
"""Probabilities are kept this far from 0 and 1 before a logarithm is taken."""


def apply_temperature(probs: npt.ArrayLike, temperature: float) -> FloatArray:
    """Soften (T > 1) or sharpen (T < 1) class probabilities: ``softmax(log p / T)`` (Guo et al., ICML 2017, 4.2).

    Parameters
    ----------
    probs : (..., K) float
        Probabilities that sum to 1 along the last axis.
    temperature : float
        Positive; 1 changes nothing.

    Examples
    --------
    >>> apply_temperature([0.8, 0.2], 2.0).round(3).tolist()
    [0.667, 0.333]
    """
    table = np.asarray(probs, dtype=np.float64)
    if temperature == 1.0:
        return table
    return np.asarray(softmax(np.log(np.clip(table, FLOOR, 1)) / temperature, axis=-1))


def apply_platt(prob: npt.ArrayLike, slope: float, intercept: float) -> FloatArray:
    """Correct the probability that something is a nucleus: ``sigmoid(slope x logit(p) + intercept)`` (Platt 1999).

    Parameters
    ----------
    prob : float array
        0 to 1.
    slope, intercept : float
        1 and 0 change nothing.

    Examples
    --------
    >>> apply_platt([0.5, 0.9], 2.0, 0.0).round(3).tolist()
    [0.5, 0.988]
    """
    claims = np.asarray(prob, dtype=np.float64)
    if (slope, intercept) == (1.0, 0.0):
        return claims
    return np.asarray(expit(slope * to_logits(claims) + intercept))


def to_logits(prob: npt.ArrayLike) -> FloatArray:
    """Give log-odds, finite for 0 and 1 too."""
    return np.asarray(logit(np.clip(np.asarray(prob, dtype=np.float64), FLOOR, 1 - FLOOR)))
