"""From computed to visual scores: a straight line with its uncertainty, fitted where both are known."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from pathopan.errors import ShapeMismatch

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """visual = slope * computed + intercept, both in per cent."""

    slope: float
    intercept: float
    slope_ci: tuple[float, float]  # 95 %
    intercept_ci: tuple[float, float]  # 95 %
    residual_sd: float
    n: int
    mean: float  # of the computed scores
    spread: float  # sum of squares of their deviations

    def to_dict(self) -> dict[str, float | int | tuple[float, float]]:
        """Give the form in which it is stored."""
        return asdict(self)


def fit_calibration(computed: npt.ArrayLike, visual: npt.ArrayLike) -> Calibration:
    """Fit by least squares; pairs with an empty value are left out.

    Parameters
    ----------
    computed, visual : (N,) float
        Scores of the same slides, in per cent.

    Raises
    ------
    ShapeMismatch
        If fewer than three pairs remain, their numbers differ, or all computed scores are alike.

    Notes
    -----
    Draper & Smith, Applied Regression Analysis, 1998, chapter 1. MuTILs v1 calibrated with a slope alone.

    Examples
    --------
    >>> line = fit_calibration([0, 1, 2, 3], [1, 3, 5, 7])
    >>> round(line.slope, 6), round(line.intercept, 6)
    (2.0, 1.0)
    """
    x, y = np.asarray(computed, np.float64), np.asarray(visual, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        msg = f"{x.shape} computed and {y.shape} visual scores do not pair up"
        raise ShapeMismatch(msg)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    spread = float(((x - x.mean()) ** 2).sum()) if len(x) else 0.0
    if len(x) < 3 or spread == 0:
        msg = f"a calibration needs three pairs with different computed scores; there are {len(x)}"
        raise ShapeMismatch(msg)
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    intercept = float(y.mean() - slope * x.mean())
    residual_sd = float(np.sqrt(((y - slope * x - intercept) ** 2).sum() / (len(x) - 2)))
    t = float(special.stdtrit(len(x) - 2, 0.975))
    slope_error = t * residual_sd / spread**0.5
    intercept_error = t * residual_sd * float(np.sqrt(1 / len(x) + x.mean() ** 2 / spread))
    return Calibration(
        slope=slope,
        intercept=intercept,
        slope_ci=(slope - slope_error, slope + slope_error),
        intercept_ci=(intercept - intercept_error, intercept + intercept_error),
        residual_sd=residual_sd,
        n=len(x),
        mean=float(x.mean()),
        spread=spread,
    )


def apply_calibration(line: Calibration, computed: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Predict visual scores.

    Parameters
    ----------
    line : Calibration
        From `fit_calibration`.
    computed : (N,) float
        Computed scores, in per cent; empty ones stay empty.

    Returns
    -------
    value, low, high : (N,) float
        Prediction and the 95 % interval of one new reading, kept in 0..100.
    """
    x = np.asarray(computed, np.float64)
    value = line.slope * x + line.intercept
    t = float(special.stdtrit(line.n - 2, 0.975))
    error = t * line.residual_sd * np.sqrt(1 + 1 / line.n + (x - line.mean) ** 2 / line.spread)
    return np.clip(value, 0, 100), np.clip(value - error, 0, 100), np.clip(value + error, 0, 100)
