"""Agreement between readers, and between a score and readers: ICC, rank correlation, Bland-Altman, kappa, bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from pathopan.errors import ShapeMismatch

FloatArray = npt.NDArray[np.float64]
NAN = float("nan")


@dataclass(frozen=True)
class Icc:
    """An intraclass correlation with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BlandAltman:
    """Mean difference (second minus first) and the limits within which 95 % of differences lie."""

    bias: float
    sd: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap percentile interval."""

    value: float
    low: float
    high: float


def icc(ratings: npt.ArrayLike, *, form: Literal["ICC(2,1)", "ICC(3,1)"] = "ICC(2,1)", confidence: float = 0.95) -> Icc:
    """Compute the intraclass correlation of single ratings.

    Parameters
    ----------
    ratings : (N, K) float
        One row a case, one column a reader, no gaps.
    form : str
        ``ICC(2,1)``: readers are a sample of readers, and a constant difference between them counts as disagreement.
        ``ICC(3,1)``: these readers only; a constant difference is forgiven.
    confidence : float
        Level of the interval.

    Returns
    -------
    Icc
        NaN where nothing varies, or with fewer than two cases or readers.

    Raises
    ------
    ShapeMismatch
        If the ratings are not a table.

    Notes
    -----
    Shrout & Fleiss, Psychological Bulletin 86:420, 1979; intervals after McGraw & Wong,
    Psychological Methods 1:30, 1996.
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2:
        msg = f"ratings must have one row a case and one column a reader; found shape {table.shape}"
        raise ShapeMismatch(msg)
    n, k = table.shape
    if n < 2 or k < 2:
        return Icc(NAN, NAN, NAN)
    rows, columns, error = _mean_squares(table)
    if form == "ICC(3,1)":
        return _icc3(rows, error, n=n, k=k, confidence=confidence)
    return _icc2(rows, columns, error, shape=(n, k), confidence=confidence)


def _mean_squares(table: FloatArray) -> tuple[float, float, float]:
    """Split the variance into between cases, between readers, and the rest."""
    n, k = table.shape
    mean = table.mean()
    rows = k * ((table.mean(axis=1) - mean) ** 2).sum()
    columns = n * ((table.mean(axis=0) - mean) ** 2).sum()
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + mean
    return float(rows / (n - 1)), float(columns / (k - 1)), float((rest**2).sum() / ((n - 1) * (k - 1)))


def _icc3(rows: float, error: float, *, n: int, k: int, confidence: float) -> Icc:
    if rows == 0 and error == 0:
        return Icc(NAN, NAN, NAN)
    value = (rows - error) / (rows + (k - 1) * error)
    if error == 0:
        return Icc(value, value, value)
    tail = 1 - (1 - confidence) / 2
    low = rows / error / stats.f.ppf(tail, n - 1, (n - 1) * (k - 1))
    high = rows / error * stats.f.ppf(tail, (n - 1) * (k - 1), n - 1)
    return Icc(value, float((low - 1) / (low + k - 1)), float((high - 1) / (high + k - 1)))


def _icc2(rows: float, columns: float, error: float, *, shape: tuple[int, int], confidence: float) -> Icc:
    n, k = shape
    total = rows + (k - 1) * error + k * (columns - error) / n
    if total == 0:
        return Icc(NAN, NAN, NAN)
    value = (rows - error) / total
    if error == 0 and (columns == 0 or rows == 0):
        exact = value if columns == 0 else NAN
        return Icc(value, exact, exact)
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    freedom = (a * columns + b * error) ** 2 / ((a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1)))
    tail = 1 - (1 - confidence) / 2
    f_low, f_high = stats.f.ppf(tail, n - 1, freedom), stats.f.ppf(tail, freedom, n - 1)
    between = k * columns + (k * n - k - n) * error
    low = n * (rows - f_low * error) / (f_low * between + n * rows)
    high = n * (f_high * rows - error) / (between + n * f_high * rows)
    return Icc(value, float(low), float(high))


def spearman(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Compute Spearman's rank correlation, ties sharing their mean rank; NaN where either does not vary.

    Raises
    ------
    ShapeMismatch
        If the two are not equally long.
    """
    a, b = _paired(first, second)
    ranks = stats.rankdata(a), stats.rankdata(b)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return NAN
    return float(np.corrcoef(*ranks)[0, 1])


def bland_altman(first: npt.ArrayLike, second: npt.ArrayLike) -> BlandAltman:
    """Compute the bias of the second measurement against the first and the 95 % limits of agreement.

    Raises
    ------
    ShapeMismatch
        If the two are not equally long.

    Notes
    -----
    Bland & Altman, Lancet 327:307, 1986: bias +- 1.96 SD.
    """
    a, b = _paired(first, second)
    if len(a) < 2:
        return BlandAltman(float((b - a).mean()) if len(a) else NAN, NAN, NAN, NAN, len(a))
    bias, sd = float((b - a).mean()), float((b - a).std(ddof=1))
    return BlandAltman(bias, sd, bias - 1.96 * sd, bias + 1.96 * sd, len(a))


def quadratic_kappa(first: npt.ArrayLike, second: npt.ArrayLike, *, categories: Sequence[float]) -> float:
    """Compute Cohen's kappa with quadratic weights between ordered categories.

    Parameters
    ----------
    first, second : (N,)
        Categories given by two readers.
    categories : sequence of float
        All categories in order; steps between neighbours count as equal.

    Returns
    -------
    float
        NaN where no disagreement could be expected.

    Raises
    ------
    ShapeMismatch
        If the two are not equally long.
    ValueError
        If a rating is none of the categories.

    Notes
    -----
    Cohen, Psychological Bulletin 70:213, 1968.
    """
    a, b = _paired(first, second)
    order = np.asarray(categories, dtype=np.float64)
    unknown = sorted(set(np.setdiff1d(np.concatenate([a, b]), order).tolist()))
    if unknown:
        msg = f"ratings {unknown} are none of the categories {list(categories)}"
        raise ValueError(msg)
    codes_a, codes_b = (np.array([np.flatnonzero(order == v)[0] for v in side], dtype=np.int64) for side in (a, b))
    size = len(order)
    observed = np.bincount(codes_a * size + codes_b, minlength=size * size).reshape(size, size)
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / max(len(a), 1)
    weight = np.subtract.outer(np.arange(size), np.arange(size)) ** 2
    chance = float((weight * expected).sum())
    return 1.0 - float((weight * observed).sum()) / chance if chance else NAN


def _paired(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        msg = f"two lists of equal length are needed; found shapes {a.shape} and {b.shape}"
        raise ShapeMismatch(msg)
    return a, b


def bootstrap_counts(
    counts: npt.ArrayLike,
    statistic: Callable[[FloatArray], FloatArray],
    *,
    resamples: int = 1_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Bootstrap over patients a figure that is a function of pooled counts, all resamples at once.

    Parameters
    ----------
    counts : (P, K) float
        One row a patient (already summed over the patient's images), one column a count.
    statistic : callable
        Maps pooled counts (..., K) to figures (...), such as ``lambda c: 2 * c[..., 0] / c[..., 1]``.
    resamples, seed : int
        How often patients are drawn with replacement, and from which random stream.
    confidence : float
        Level of the percentile interval. Resamples in which the figure is undefined are left out.

    Returns
    -------
    Interval
        The figure of all patients, and NaN limits with fewer than two patients.
    """
    table = np.asarray(counts, dtype=np.float64)
    n = len(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(table.sum(axis=0)))
        if n < 2 or resamples == 0:
            return Interval(value, NAN, NAN)
        drawn = np.asarray(statistic(_draw_times(n, resamples, seed) @ table), dtype=np.float64)
    return Interval(value, *_percentiles(drawn, confidence))


@lru_cache(maxsize=2)
def _draw_times(n: int, resamples: int, seed: int) -> FloatArray:
    """Draw how often each patient is in each resample; the figures of one evaluation share the draws."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    drawn.flags.writeable = False
    return drawn


def bootstrap_groups(
    groups: Sequence[str],
    statistic: Callable[[npt.NDArray[np.int64]], float],
    *,
    resamples: int = 1_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Bootstrap over patients any figure of rows, such as a rank correlation.

    Parameters
    ----------
    groups : (N,) sequence of str
        Patient of each row; a patient's rows are drawn together.
    statistic : callable
        Maps the positions of the drawn rows to the figure.
    resamples, seed, confidence
        As in :func:`bootstrap_counts`.
    """
    everything = np.arange(len(groups))
    value = float(statistic(everything))
    names, code = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2 or resamples == 0:
        return Interval(value, NAN, NAN)
    rows = [np.flatnonzero(code == index) for index in range(len(names))]
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    drawn = np.array([statistic(np.concatenate([rows[i] for i in draw])) for draw in draws], dtype=np.float64)
    return Interval(value, *_percentiles(drawn, confidence))


def _percentiles(drawn: FloatArray, confidence: float) -> tuple[float, float]:
    defined = drawn[np.isfinite(drawn)]
    if len(defined) == 0:
        return NAN, NAN
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
