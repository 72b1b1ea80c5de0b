"""95 % intervals of a density that was counted in fields."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]

LEVEL = 0.95
MIN_FIELDS = 5
"""With fewer fields, a bootstrap over them covers far less than it says, and the wider interval counts."""

SLIVER = 0.05
"""A field with less than this share of the largest one's area is counted with that: the grid cut it off by chance."""

_AT_ONCE = 2**20
"""Resampled numbers held in memory together; changes no result."""


def poisson_interval(counts: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Bound the expectation of Poisson counts exactly.

    Parameters
    ----------
    counts : (N,) int
        Observed counts.

    Returns
    -------
    low, high : (N,) float
        Limits of the central 95 % interval.

    Notes
    -----
    Garwood, "Fiducial limits for the Poisson distribution", Biometrika 1936.

    Examples
    --------
    >>> low, high = poisson_interval([0, 10])
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0, 4.795], [3.689, 18.39])
    """
    counts = np.asarray(counts, np.float64)
    tail = (1 - LEVEL) / 2
    low = np.where(counts > 0, special.gammaincinv(counts, tail), 0.0)  # half of chi-squared with 2 x counts
    return low, np.asarray(special.gammaincinv(counts + 1, 1 - tail))


def density_interval(
    counts: npt.ArrayLike, areas: npt.ArrayLike, *, resamples: int = 1_000, seed: int = 0
) -> tuple[float, float, str]:
    """Bound a pooled density, sum of counts over sum of areas.

    Parameters
    ----------
    counts, areas : (F,) float
        Of each field with some area.
    resamples : int
        Bootstrap samples of fields; 0 for the Poisson interval.
    seed : int
        Of the bootstrap: the same fields give the same interval.

    Returns
    -------
    low, high : float
        Limits of the central 95 % interval, in counts per unit of area.
    method : str
        ``bootstrap`` over fields (percentile), which sees that TILs come in clusters; ``poisson`` where there is one
        field, or no count to resample: a bootstrap would then claim to know that the density is 0. Of two to four
        fields, ``wider``: from the lower of both low ends to the higher of both high ends.

    Notes
    -----
    Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Examples
    --------
    >>> low, high, method = density_interval([4, 6, 5, 7, 5], [1.0] * 5)
    >>> (round(low, 2), round(high, 2), method)
    (4.6, 6.4, 'bootstrap')
    """
    counts, areas = _without_slivers(np.asarray(counts, np.float64), np.asarray(areas, np.float64))
    least, most = (float(end / areas.sum()) for end in poisson_interval(counts.sum()))
    if len(counts) < 2 or counts.sum() == 0 or resamples == 0:
        return least, most, "poisson"
    rng, share = np.random.default_rng(seed), np.full(len(counts), 1 / len(counts))
    found, step = [], max(1, _AT_ONCE // len(counts))
    for first in range(0, resamples, step):
        times = rng.multinomial(len(counts), share, size=min(step, resamples - first))
        found.append((times @ counts) / (times @ areas))
    low, high = np.quantile(np.concatenate(found), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if len(counts) < MIN_FIELDS:
        return min(float(low), least), max(float(high), most), "wider"
    return float(low), float(high), "bootstrap"


def _without_slivers(counts: FloatArray, areas: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Count slivers with the largest field."""
    if len(areas) < 2:
        return counts, areas
    largest = int(areas.argmax())
    tiny = areas < SLIVER * areas[largest]
    kept_counts, kept_areas = counts[~tiny], areas[~tiny]
    at = largest - int(tiny[:largest].sum())
    kept_counts[at] += counts[tiny].sum()
    kept_areas[at] += areas[tiny].sum()
    return kept_counts, kept_areas
