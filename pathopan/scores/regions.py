"""One row for each connected region: its nuclei, and its TIL density with an interval."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.objects import SlideObjects
from pathopan.objects.slide_objects import field_indices
from pathopan.scores.interval import density_interval
from pathopan.scores.parts import ScoreRules
from pathopan.tables import regions_schema

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def score_regions(objects: SlideObjects, *, rules: ScoreRules | None = None) -> gpd.GeoDataFrame:
    """Score every connected region.

    Parameters
    ----------
    objects : SlideObjects
        From `find_objects`; intervals use the fields of its rules.
    rules : ScoreRules, optional
        Least area and bootstrap; defaults without it.

    Returns
    -------
    GeoDataFrame
        Rows of ``regions.parquet``. A region below ``min_compartment_mm2``, or of tissue that is in no denominator,
        has counts and areas, and no density: ``reason`` says so.
    """
    rules = rules or ScoreRules()
    table, nuclei = objects.regions, objects.nuclei
    n = len(table)
    owner = nuclei["region_id"].to_numpy()
    inside = owner > 0
    taxonomy = objects.taxonomy
    kinds, owners = nuclei["class_id"].to_numpy()[inside], owner[inside] - 1
    is_til = np.isin(kinds, taxonomy.nucleus_ids("til"))
    n_nuclei, n_til = np.bincount(owners, minlength=n), np.bincount(owners[is_til], minlength=n)
    til_area = _sums(owners[is_til], nuclei["area_um2"].to_numpy()[inside][is_til], n)
    prob = _sums(owners, nuclei["prob"].to_numpy()[inside], n)
    area = table["area_mm2"].to_numpy()
    scored = np.isin(table["class_id"].to_numpy(), taxonomy.region_ids("tumor", "stroma", "dense"))
    large = (area >= rules.min_compartment_mm2) & scored
    low, high = _intervals(objects, large, n_til, rules)
    columns = {
        "n_nuclei": n_nuclei,
        **{f"n_{c.name}": np.bincount(owners[kinds == c.id], minlength=n) for c in taxonomy.nuclei},
        "n_til": n_til,
        "til_density_per_mm2": _divided(n_til, area, large),
        "til_density_ci_low": low,
        "til_density_ci_high": high,
        "til_area_um2": til_area,
        "til_area_percent": _divided(til_area / 1e6, area, large) * 100,
        "til_fraction_of_nuclei": _divided(n_til, n_nuclei, n_nuclei > 0),
        "mean_prob": _divided(prob, n_nuclei, n_nuclei > 0),
        "reason": _reasons(area, n_nuclei, scored, rules.min_compartment_mm2),
    }
    return regions_schema(taxonomy).check(table.assign(**columns))


def _sums(owners: IntArray, values: FloatArray, n: int) -> FloatArray:
    """Sum values by owner; floats even where there are none (``bincount`` of nothing counts)."""
    return np.bincount(owners, weights=values, minlength=n).astype(np.float64)


def _divided(numerator: npt.ArrayLike, denominator: npt.ArrayLike, where: npt.NDArray[np.bool_]) -> FloatArray:
    """Divide where allowed; NaN elsewhere."""
    above, below = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    found = np.full(len(above), np.nan)
    np.divide(above, below, out=found, where=where)
    return found


def _reasons(
    area: FloatArray, n_nuclei: IntArray, scored: npt.NDArray[np.bool_], least_mm2: float
) -> pd.api.extensions.ExtensionArray:
    outside, small = "tissue that is in no denominator", f"area is below the least of {least_mm2:.3g} mm2"
    told = ((outside, ~scored), (small, area < least_mm2), ("no nuclei", n_nuclei == 0))
    texts = ["; ".join(text for text, applies in told if applies[row]) for row in range(len(area))]
    return pd.array(texts, dtype="str")


def _intervals(
    objects: SlideObjects, large: npt.NDArray[np.bool_], n_til: IntArray, rules: ScoreRules
) -> tuple[FloatArray, FloatArray]:
    """Bound the density of each large region over the fields that it spreads over."""
    spread = objects.region_fields
    owner, field = spread["region_id"].to_numpy(), spread["field"].to_numpy()
    areas = spread["n_pixels"].to_numpy() * (objects.mpp / 1000) ** 2
    counts = _til_by_field(objects, owner, field)
    low, high = np.full(len(n_til), np.nan), np.full(len(n_til), np.nan)
    first, last = (np.searchsorted(owner, np.arange(1, len(n_til) + 1), side=side) for side in ("left", "right"))
    for region in np.flatnonzero(large).tolist():
        part = slice(first[region], last[region])
        low[region], high[region], _ = density_interval(
            counts[part], areas[part], resamples=rules.bootstrap, seed=rules.seed
        )
    return low, high


def _til_by_field(objects: SlideObjects, owner: IntArray, field: IntArray) -> IntArray:
    """Count the TILs of each pair of region and field."""
    nuclei, shape = objects.nuclei, objects.places.shape
    chosen = (nuclei["region_id"] > 0) & nuclei["class_id"].isin(objects.taxonomy.nucleus_ids("til"))
    row, column = np.divmod(objects.nucleus_pixels()[chosen.to_numpy()], max(shape[1], 1))
    row_field, column_field = (field_indices(n, objects.rules.field_um / objects.mpp) for n in shape)
    n_columns = int(column_field.max(initial=-1)) + 1
    base = int(field.max(initial=0)) + 1
    key = nuclei["region_id"].to_numpy()[chosen.to_numpy()] * base + row_field[row] * n_columns + column_field[column]
    return np.bincount(np.searchsorted(owner * base + field, key), minlength=len(owner))
