"""The score of a slide: every number with its unit, its numerator and denominator, and a reason where it is empty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from pathopan.objects import COMPARTMENTS, Compartment, SlideObjects
from pathopan.objects.compartments import BUFFER, DRAWN_OUT, N_PLACES, part_of_place
from pathopan.scores.fields import FieldTally, tally_fields
from pathopan.scores.heterogeneity import score_heterogeneity
from pathopan.scores.itil import itil_per_100_tumor_cells, itil_per_mm2
from pathopan.scores.mutils import ROI_UM, score_mutils
from pathopan.scores.parts import ScoreRules, Scores, count_of, score_compartment
from pathopan.scores.phenotype import find_phenotype
from pathopan.scores.ratio import Ratio, record
from pathopan.scores.stil import MM2, stil_itil_ratio, til_area_percent_fixed, tils_per_tumor_cell

Status = Literal["scored", "empty", "failed"]
Section = Mapping[str, Any]

CALIBRATED = ("stil_percent_calibrated", "stil_percent_calibrated_ci_low", "stil_percent_calibrated_ci_high")
"""Values of ``calibration`` that have a column in ``scores.csv``."""

COMPARTMENT: Mapping[str, Compartment] = {compartment.name: compartment for compartment in COMPARTMENTS}


@dataclass(frozen=True)
class SlideScore:
    """All scores of a slide."""

    slide_id: str
    status: Status  # empty: nothing on the slide is tumor or stroma; failed: it could not be analysed
    error: str = ""  # why it failed
    headline: Section = field(default_factory=dict)
    phenotype: Section = field(default_factory=dict)
    compartments: Mapping[str, Section] = field(default_factory=dict)
    heterogeneity: Section = field(default_factory=dict)
    mutils: Section = field(default_factory=dict)
    exclusions: Mapping[str, Section] = field(default_factory=dict)
    settings: Section = field(default_factory=dict)
    fields: pd.DataFrame = field(default_factory=pd.DataFrame)  # one row a field that holds tissue
    edit: Section = field(default_factory=dict)  # whose regions were scored, where it was not the network's
    calibration: Section = field(default_factory=dict)  # the visual score that a calibration predicts, and its line
    stability: Section = field(default_factory=dict)  # the headline under other choices, where it was asked for
    manifest_id: str = ""  # what the manifest calls the slide: of its record, not of score.json

    @property
    def reasons(self) -> dict[str, str]:
        """Say of every empty value why it is empty, by section and name."""
        sections = {
            "headline": self.headline,
            "phenotype": self.phenotype,
            "heterogeneity": self.heterogeneity,
            "mutils": self.mutils,
            "calibration": self.calibration,
            **{f"compartments.{name}": section for name, section in self.compartments.items()},
        }
        return {
            f"{where}.{name}": reason
            for where, section in sections.items()
            for name, reason in section.get("reasons", {}).items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Give the form of ``score.json``: plain numbers, None where empty."""
        given = {"edit": self.edit, "calibration": self.calibration, "stability": self.stability}
        return {
            "slide_id": self.slide_id,
            "status": self.status,
            "error": self.error,
            "headline": dict(self.headline),
            "phenotype": dict(self.phenotype),
            "compartments": {name: dict(section) for name, section in self.compartments.items()},
            "heterogeneity": dict(self.heterogeneity),
            "mutils": dict(self.mutils),
            "exclusions": {name: dict(section) for name, section in self.exclusions.items()},
            "settings": dict(self.settings),
            **{name: dict(section) for name, section in given.items() if section},
            "reasons": self.reasons,
            "fields": _plain_rows(self.fields),
        }

    def to_row(self) -> dict[str, Any]:
        """Give one flat row of ``scores.csv``; `scores_table` lines rows up and fills what a failed slide lacks."""
        row: dict[str, Any] = {"slide_id": self.slide_id, "manifest_id": self.manifest_id or self.slide_id}
        row |= {"status": self.status, "error": self.error}
        for section in (self.headline, self.phenotype, self.heterogeneity):
            row |= section
        for name, section in self.compartments.items():
            row |= {f"{name}_{key}": value for key, value in section.items() if key != "reasons"}
        for name, section in self.exclusions.items():
            row |= {f"excluded_{name}_{key}": value for key, value in section.items()}
        row |= self.mutils
        row |= {c: self.calibration.get(c) for c in CALIBRATED}
        row["regions_from"] = "" if self.status == "failed" else "edited" if self.edit else "network"
        row.pop("reasons", None)
        row["reason"] = _told((self.headline, self.phenotype, self.heterogeneity))
        return row


def _told(sections: Iterable[Section]) -> str:
    """Say in one line why values are empty: each reason once, with its values; ends of intervals go without saying."""
    values: dict[str, list[str]] = {}
    for section in sections:
        for name, reason in section.get("reasons", {}).items():
            if "_ci_" not in name:
                values.setdefault(reason, []).append(name)
    return "; ".join(f"{reason} ({', '.join(names)})" for reason, names in values.items())


def failed_score(slide_id: str, error: str) -> SlideScore:
    """Give the score of a slide that could not be analysed: its name, why, and nothing else."""
    return SlideScore(slide_id, "failed", error)


def score_slide(objects: SlideObjects, *, slide_id: str, rules: ScoreRules | None = None) -> SlideScore:
    """Compute every score of a slide.

    Parameters
    ----------
    objects : SlideObjects
        From `find_objects`.
    slide_id : str
        Name of the slide.
    rules : ScoreRules, optional
        Numbers that no guideline fixes; defaults without it.

    Returns
    -------
    SlideScore

    Notes
    -----
    Definitions: International TILs Working Group (Salgado et al., Ann Oncol 2015; Kos et al. and Amgad et al., npj
    Breast Cancer 2020; Thagaard et al., J Pathol 2023). Each formula stands once, beside its source, in `stil`,
    `itil`, `heterogeneity`, `phenotype` and `mutils`.
    """
    rules = rules or ScoreRules()
    tally = tally_fields(objects, field_um=rules.field_um)
    parts = {c.name: score_compartment(tally, c, rules=rules) for c in COMPARTMENTS}
    headline = _headline(parts, tally, rules)
    phenotype, reason = find_phenotype(
        _ratio(headline["stil_percent"]),
        _ratio(headline["itil_per_mm2"]),
        inflamed_stil_percent=rules.inflamed_stil_percent,
        inflamed_itil_per_mm2=rules.inflamed_itil_per_mm2,
    )
    spread = score_heterogeneity(
        tally, tally.part(COMPARTMENT["stroma_in_bed"].holds(objects.taxonomy)), min_area_mm2=rules.min_compartment_mm2
    )
    scored = parts["tumor"]["n_nuclei"], parts["tumor"]["area_mm2"], parts["stroma"]["area_mm2"]
    return SlideScore(
        slide_id=slide_id,
        status="scored" if any(scored) else "empty",
        headline=record(headline),
        phenotype={"phenotype": phenotype} | ({"reasons": {"phenotype": reason}} if reason else {}),
        compartments={name: record(values) for name, values in parts.items()},
        heterogeneity=record(spread),
        mutils=record(score_mutils(tally_fields(objects, field_um=max(ROI_UM, objects.mpp)))),
        exclusions=_exclusions(tally),
        settings={"objects": asdict(objects.rules), "scores": asdict(rules), "mpp": objects.mpp}
        | {"taxonomy": objects.taxonomy.name},
        fields=_field_rows(tally, rules.min_compartment_mm2),
    )


def _ratio(value: Ratio | float | str) -> Ratio:
    return value if isinstance(value, Ratio) else Ratio(None)


def _headline(parts: Mapping[str, Scores], tally: FieldTally, rules: ScoreRules) -> Scores:
    """Name the scores that speak for the slide: stroma and tumor inside the tumor bed."""
    stroma, tumor, bed = parts["stroma_in_bed"], parts["tumor_in_bed"], parts["bed_inside"]
    area, least = float(_number(stroma, "area_mm2")), rules.min_compartment_mm2
    where = "stroma inside the tumor bed"
    n_til, n_itil = _number(stroma, "n_til"), _number(tumor, "n_til")
    percent = til_area_percent_fixed(n_til, area, footprint_um2=rules.til_footprint_um2, where=where, least_mm2=least)
    to_percent = 100 * rules.til_footprint_um2 / MM2
    nests = tally.part(COMPARTMENT["tumor_in_bed"].holds(tally.taxonomy)).counts.sum(axis=0)
    inside = tally.part(COMPARTMENT["bed_inside"].holds(tally.taxonomy)).counts.sum(axis=0)
    n_tumor_cells, n_bed_cells = count_of(tally.taxonomy, nests, "tumor"), count_of(tally.taxonomy, inside, "tumor")
    itil = itil_per_mm2(n_itil, float(_number(tumor, "area_mm2")), where="tumor inside the tumor bed", least_mm2=least)
    stil = _ratio(stroma["til_density_per_mm2"])
    low, high = _ratio(stroma["til_density_ci_low"]), _ratio(stroma["til_density_ci_high"])
    return {
        "stil_percent": percent,
        "stil_percent_ci_low": low.times(to_percent),
        "stil_percent_ci_high": high.times(to_percent),
        "stil_density_per_mm2": stil,
        "stil_density_ci_low": low,
        "stil_density_ci_high": high,
        "stil_area_fraction": _ratio(stroma["til_area_percent"]).times(0.01),
        "stil_dense_percent": _ratio(stroma["til_area_percent_dense"]),
        "stil_n_til": n_til,
        "stil_til_area_um2": _number(stroma, "til_area_um2"),
        "stil_dense_area_mm2": _number(stroma, "til_dense_area_mm2"),
        "stil_area_mm2": area,
        "itil_per_mm2": itil,
        "itil_ci_low": _ratio(tumor["til_density_ci_low"]),
        "itil_ci_high": _ratio(tumor["til_density_ci_high"]),
        "itil_per_100_tumor_cells": itil_per_100_tumor_cells(n_itil, n_tumor_cells),
        "itil_n_til": n_itil,
        "itil_n_tumor_cells": n_tumor_cells,
        "itil_area_mm2": _number(tumor, "area_mm2"),
        "stil_itil_ratio": stil_itil_ratio(stil, itil),
        "bed_tils_per_tumor_cell": tils_per_tumor_cell(_number(bed, "n_til"), n_bed_cells),
        "bed_til_fraction_of_nuclei": _ratio(bed["til_fraction_of_nuclei"]),
        "bed_n_til": _number(bed, "n_til"),
        "bed_n_tumor_cells": n_bed_cells,
        "bed_n_nuclei": _number(bed, "n_nuclei"),
    }


def _number(scores: Scores, name: str) -> float | int:
    value = scores[name]
    assert isinstance(value, float | int), name
    return value


def _exclusions(tally: FieldTally) -> dict[str, Section]:
    """List what is in no denominator, by reason: area and nuclei."""
    taxonomy, places = tally.taxonomy, np.arange(N_PLACES)
    part = part_of_place(taxonomy)
    kept = places & (BUFFER | DRAWN_OUT) == 0
    excluded = part == 2
    reasons = {c.name: (places & 255 == c.id) & kept for c in taxonomy.regions if c.role in ("excluded", "other")}
    reasons |= {
        "by_hand": excluded & (places & DRAWN_OUT > 0),
        "buffer": excluded & (places & DRAWN_OUT == 0) & (places & BUFFER > 0),
        "background": part == 1,
        "not_analysed": part == 0,
    }
    found: dict[str, Section] = {}
    for name, lookup in reasons.items():
        held = tally.part(lookup)
        counts = held.counts.sum(axis=0)
        found[name] = {
            "area_mm2": float(held.area_mm2.sum()),
            "n_nuclei": int(counts.sum()),
            "n_til": count_of(taxonomy, counts, "til"),
        }
    return found


def _field_rows(tally: FieldTally, least_mm2: float) -> pd.DataFrame:
    """Lay out the fields that hold tissue: where they lie, areas, counts, and densities on the least area or more."""
    taxonomy = tally.taxonomy
    corners = tally.corners_um()
    til = [i for i, c in enumerate(taxonomy.nuclei) if c.role == "til"]
    columns: dict[str, Any] = {"x_um": corners[:, 0], "y_um": corners[:, 1]}
    columns["tissue_mm2"] = tally.part(COMPARTMENT["tissue"].holds(taxonomy)).area_mm2
    for name in ("stroma_in_bed", "tumor_in_bed", "stroma", "tumor"):
        part = tally.part(COMPARTMENT[name].holds(taxonomy))
        n_til = part.counts[:, til].sum(axis=1)
        columns |= {f"{name}_mm2": part.area_mm2, f"{name}_n_til": n_til}
        density = np.full(len(n_til), np.nan)
        np.divide(n_til, part.area_mm2, out=density, where=(part.area_mm2 > 0) & (part.area_mm2 >= least_mm2))
        columns[f"{name}_til_per_mm2"] = density
    rows = pd.DataFrame(columns)
    return rows[rows["tissue_mm2"] > 0].reset_index(drop=True)


def _plain_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): None if value != value else value for name, value in row.items()} for row in rows.to_dict("records")
    ]
