"""How much a slide's headline hangs on choices that could have been made otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.classes import Taxonomy
from pathopan.objects import SlideObjects
from pathopan.scores.fields import FieldTally, tally_fields
from pathopan.scores.heterogeneity import score_heterogeneity
from pathopan.scores.parts import ScoreRules, interval_of, score_compartment
from pathopan.scores.ratio import Ratio, record
from pathopan.scores.summary import COMPARTMENT

TIL_FACTORS = (0.9, 1.0, 1.1)
"""What the probability of a TIL is multiplied by."""


@dataclass(frozen=True)
class Stability:
    """The headline under other choices: by name of the choice, then by name of the score."""

    class_threshold: Mapping[str, Mapping[str, float | None]]
    field_shift: Mapping[str, Mapping[str, float | None]]

    def to_dict(self, headline: Mapping[str, Any]) -> dict[str, Any]:
        """Give the form of ``score.json``: the range beside each headline score, and what each choice gives.

        Parameters
        ----------
        headline : mapping
            ``headline`` of the slide's score: the values that the ranges stand beside.
        """
        ranges = {}
        for choices in (self.class_threshold, self.field_shift):
            for name in next(iter(choices.values())):
                if name in headline:  # an empty score has no range
                    chosen = choices.values() if headline[name] is not None else ()
                    found = [value for choice in chosen if (value := choice.get(name)) is not None]
                    low, high = min(found, default=None), max(found, default=None)
                    ranges[name] = {"value": headline[name], "low": low, "high": high}
        return {"ranges": ranges, "class_threshold": self.class_threshold, "field_shift": self.field_shift}


def score_stability(objects: SlideObjects, *, rules: ScoreRules | None = None) -> Stability:
    """Score again with TILs 10 % less and more likely, and with fields shifted by half a field.

    Parameters
    ----------
    objects : SlideObjects
        From `find_objects`, with the probabilities of every class.
    rules : ScoreRules, optional
        Defaults without it.

    Returns
    -------
    Stability
        ``class_threshold``: sTIL in per cent, its density and area, and the density of iTIL. ``field_shift``: the
        interval of the sTIL density and how it varies over fields; the density itself does not depend on fields.
    """
    rules = rules or ScoreRules()
    by_factor = {}
    for factor in TIL_FACTORS:
        kinds = reclassify(objects.nuclei, objects.taxonomy, til_factor=factor)
        again = replace(objects, nuclei=objects.nuclei.assign(class_id=kinds))
        by_factor[f"til_prob_x{factor:g}"] = _densities(tally_fields(again, field_um=rules.field_um), rules)
    half = rules.field_um / 2
    shifts = {"none": (0.0, 0.0), "x": (half, 0.0), "y": (0.0, half), "both": (half, half)}
    by_shift = {
        name: _spread(tally_fields(objects, field_um=rules.field_um, shift_um=shift), rules)
        for name, shift in shifts.items()
    }
    return Stability(by_factor, by_shift)


def reclassify(nuclei: pd.DataFrame, taxonomy: Taxonomy, *, til_factor: float) -> npt.NDArray[np.int64]:
    """Class nuclei again, with the probabilities of TIL classes multiplied.

    Parameters
    ----------
    nuclei : DataFrame
        With ``prob_<class>`` for every class.
    taxonomy : Taxonomy
        The classes.
    til_factor : float
        Above 1 more nuclei become TILs, below 1 fewer.

    Returns
    -------
    (N,) int
        Class ids; the first class in the taxonomy's order wins a tie.
    """
    factors = [til_factor if c.role == "til" else 1.0 for c in taxonomy.nuclei]
    prob = nuclei[[f"prob_{c.name}" for c in taxonomy.nuclei]].to_numpy(np.float64) * factors
    ids = np.array([c.id for c in taxonomy.nuclei], np.int64)
    return ids[prob.argmax(axis=1)]


def _densities(tally: FieldTally, rules: ScoreRules) -> dict[str, float | None]:
    lean = replace(rules, bootstrap=0)
    stroma, tumor = (
        score_compartment(tally, COMPARTMENT[name], rules=lean) for name in ("stroma_in_bed", "tumor_in_bed")
    )
    chosen = {
        "stil_percent": stroma["til_area_percent_fixed"],
        "stil_density_per_mm2": stroma["til_density_per_mm2"],
        "stil_area_fraction": _hundredth(stroma["til_area_percent"]),
        "itil_per_mm2": tumor["til_density_per_mm2"],
    }
    return {name: record({name: value})[name] for name, value in chosen.items()}


def _hundredth(value: Ratio | float | str) -> Ratio | float | str:
    return value.times(0.01) if isinstance(value, Ratio) else value


def _spread(tally: FieldTally, rules: ScoreRules) -> dict[str, float | None]:
    part = tally.part(COMPARTMENT["stroma_in_bed"].holds(tally.taxonomy))
    til = [i for i, c in enumerate(tally.taxonomy.nuclei) if c.role == "til"]
    filled = part.area_mm2 > 0
    known = Ratio(0.0) if filled.any() else Ratio(None, "no stroma inside the tumor bed")
    interval = interval_of(part.counts[filled][:, til].sum(axis=1), part.area_mm2[filled], known, rules)
    spread = score_heterogeneity(tally, part, min_area_mm2=rules.min_compartment_mm2)
    found = {
        "stil_density_ci_low": interval["til_density_ci_low"],
        "stil_density_ci_high": interval["til_density_ci_high"],
        **{name: spread[name] for name in ("fields_median_per_mm2", "fields_iqr_per_mm2", "fields_gini")},
    }
    return {name: record({name: value})[name] for name, value in found.items()}
