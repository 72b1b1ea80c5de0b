"""How unevenly TILs are spread over fields. Hot spots are shown, and are never the headline."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pathopan.scores.fields import FieldTally, Part
from pathopan.scores.ratio import Number, Ratio

FloatArray = npt.NDArray[np.float64]


def gini(values: FloatArray) -> Ratio:
    """Compute the Gini coefficient: 0 where all are equal, towards 1 where one has all.

    Notes
    -----
    Half the relative mean absolute difference (Gini 1912).

    Examples
    --------
    >>> gini(np.array([0.0, 0.0, 0.0, 4.0])).value
    0.75
    """
    if len(values) == 0 or values.sum() == 0:
        return Ratio(None, "no TIL in any field")
    ordered, n = np.sort(values), len(values)
    return Ratio(float(2 * (np.arange(1, n + 1) * ordered).sum() / (n * ordered.sum()) - (n + 1) / n))


def morans_i(values: FloatArray, *, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Ratio:
    """Compute Moran's I over neighbouring fields: above 0 clustered, near -1 / (n - 1) random, below that dispersed.

    Parameters
    ----------
    values : (F,) float
        One value a field.
    rows, columns : (F,) int
        Where the field lies. Neighbours share a side or a corner, all with weight 1.

    Notes
    -----
    Moran, "Notes on continuous stochastic phenomena", Biometrika 1950.

    Examples
    --------
    >>> morans_i(np.array([1.0, 1.0, 0.0, 0.0]), rows=np.zeros(4, int), columns=np.arange(4)).value
    0.333...
    """
    if len(values) < 3:
        return Ratio(None, f"{len(values)} fields; Moran's I needs 3")
    grid = np.full((int(rows.max()) + 3, int(columns.max()) + 3), np.nan)
    grid[rows + 1, columns + 1] = values - values.mean()
    deviation = values - values.mean()
    if np.allclose(deviation, 0):
        return Ratio(None, "all fields have the same density")
    products, pairs = 0.0, 0
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if (down, right) != (0, 0):
                beside = grid[rows + 1 + down, columns + 1 + right]
                known = np.isfinite(beside)
                products += float((deviation[known] * beside[known]).sum())
                pairs += int(known.sum())
    if pairs == 0:
        return Ratio(None, "no two fields are neighbours")
    return Ratio(len(values) / pairs * products / float((deviation**2).sum()))


def score_heterogeneity(tally: FieldTally, part: Part, *, min_area_mm2: float) -> dict[str, Ratio | Number]:
    """Describe how the TIL density of a compartment varies from field to field.

    Parameters
    ----------
    tally : FieldTally
        The fields.
    part : Part
        The compartment.
    min_area_mm2 : float
        Fields with less of the compartment are left out: their density means little.

    Returns
    -------
    dict
        Number of fields used; median, quartiles and interquartile range of the densities (per mm2); coefficient of
        variation (sample standard deviation over mean); Gini; Moran's I; the densest field and its corner.
    """
    used = np.flatnonzero((part.area_mm2 > 0) & (part.area_mm2 >= min_area_mm2))
    til = [i for i, c in enumerate(tally.taxonomy.nuclei) if c.role == "til"]
    density = part.counts[used][:, til].sum(axis=1) / part.area_mm2[used]
    rows, columns = np.divmod(used, tally.shape[1])
    none = Ratio(None, f"no field with {min_area_mm2:g} mm2 of stroma inside the tumor bed")
    low, middle, high = np.quantile(density, [0.25, 0.5, 0.75]).tolist() if len(used) else (0.0, 0.0, 0.0)
    densest = int(density.argmax()) if len(used) else 0
    corner = tally.corners_um()[used[densest]].tolist() if len(used) else [0.0, 0.0]

    def known(value: float) -> Ratio:
        return Ratio(float(value)) if len(used) else none

    return {
        "fields_n": len(used),
        "fields_median_per_mm2": known(middle),
        "fields_q1_per_mm2": known(low),
        "fields_q3_per_mm2": known(high),
        "fields_iqr_per_mm2": known(high - low),
        "fields_cv": _variation(density) if len(used) else none,
        "fields_gini": gini(density) if len(used) else none,
        "fields_morans_i": morans_i(density, rows=rows, columns=columns) if len(used) else none,
        "hot_spot_per_mm2": known(density[densest] if len(used) else 0.0),
        "hot_spot_x_um": known(corner[0]),
        "hot_spot_y_um": known(corner[1]),
    }


def _variation(density: FloatArray) -> Ratio:
    if len(density) < 2:
        return Ratio(None, "one field; a coefficient of variation needs 2")
    if density.mean() == 0:
        return Ratio(None, "no TIL in any field")
    return Ratio(float(density.std(ddof=1) / density.mean()))
