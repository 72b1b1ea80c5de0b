"""Scores of one compartment: areas and counts, and what they make when divided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pathopan.classes import Taxonomy
from pathopan.objects import Compartment
from pathopan.scores.fields import FieldTally
from pathopan.scores.interval import density_interval
from pathopan.scores.ratio import Number, Ratio
from pathopan.scores.stil import (
    til_area_percent,
    til_area_percent_dense,
    til_area_percent_fixed,
    til_density_per_mm2,
    til_fraction_of_nuclei,
    tils_per_tumor_cell,
)


@dataclass(frozen=True)
class ScoreRules:
    """Numbers that no guideline fixes: the settings ``scores`` of a run."""

    field_um: float = 500.0
    bootstrap: int = 1_000
    seed: int = 0
    til_footprint_um2: float = 64.0
    min_compartment_mm2: float = 0.01
    inflamed_stil_percent: float = 10.0
    inflamed_itil_per_mm2: float = 100.0


Scores = dict[str, Ratio | Number | str]


def score_compartment(tally: FieldTally, compartment: Compartment, *, rules: ScoreRules) -> Scores:
    """Count a compartment and, if it is a denominator, divide.

    Parameters
    ----------
    tally : FieldTally
        The slide in fields of ``rules.field_um``.
    compartment : Compartment
        Which part of the slide.
    rules : ScoreRules
        Footprint, least area and bootstrap.

    Returns
    -------
    dict
        ``area_mm2``, counts by class, ``n_til``, ``til_area_um2``; for a denominator also density with its interval,
        the three area percentages (``_dense`` for stroma only) and ratios of counts.
    """
    taxonomy, lookup = tally.taxonomy, compartment.holds(tally.taxonomy)
    part = tally.part(lookup)
    area, til_area = float(part.area_mm2.sum()), float(part.til_area_um2.sum())
    counts = part.counts.sum(axis=0)
    n_til, n_tumor, n_all = count_of(taxonomy, counts, "til"), count_of(taxonomy, counts, "tumor"), int(counts.sum())
    scores: Scores = {
        "area_mm2": area,
        "n_nuclei": n_all,
        **{f"n_{c.name}": int(n) for c, n in zip(taxonomy.nuclei, counts, strict=True)},
        "n_til": n_til,
        "til_area_um2": til_area,
    }
    if not compartment.scored:
        return scores
    where, least = compartment.name.replace("_", " "), rules.min_compartment_mm2
    scores["til_density_per_mm2"] = density = til_density_per_mm2(n_til, area, where=where, least_mm2=least)
    filled = part.area_mm2 > 0
    til = [i for i, c in enumerate(taxonomy.nuclei) if c.role == "til"]
    scores |= interval_of(part.counts[filled][:, til].sum(axis=1), part.area_mm2[filled], density, rules)
    scores["til_area_percent"] = til_area_percent(til_area, area, where=where, least_mm2=least)
    scores["til_area_percent_fixed"] = til_area_percent_fixed(
        n_til, area, footprint_um2=rules.til_footprint_um2, where=where, least_mm2=least
    )
    if compartment.parts == ("stroma", "dense"):
        dense = tally.part(lookup & np.isin(np.arange(len(lookup)) & 255, taxonomy.region_ids("dense")))
        scores["til_dense_area_mm2"] = dense_mm2 = float(dense.area_mm2.sum())
        scores["til_area_percent_dense"] = til_area_percent_dense(dense_mm2, area, where=where, least_mm2=least)
    scores["til_fraction_of_nuclei"] = til_fraction_of_nuclei(n_til, n_all)
    scores["tils_per_tumor_cell"] = tils_per_tumor_cell(n_til, n_tumor)
    return scores


def count_of(taxonomy: Taxonomy, counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]], role: str) -> int:
    """Sum counts by class over the classes of one role."""
    return int(sum(n for c, n in zip(taxonomy.nuclei, counts.tolist(), strict=True) if c.role == role))


def interval_of(
    counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    areas_mm2: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    density: Ratio,
    rules: ScoreRules,
) -> Scores:
    """Bound a density, and say how: empty where the density is."""
    if density.value is None:
        low = high = Ratio(None, density.reason)
        method = ""
    else:
        least, most, method = density_interval(counts, areas_mm2, resamples=rules.bootstrap, seed=rules.seed)
        low, high = Ratio(least), Ratio(most)
    return {
        "til_density_ci_low": low,
        "til_density_ci_high": high,
        "til_density_ci_method": method,
        "n_fields": len(counts),
    }
