"""The columns of ``scores.csv``: the same for every slide of a taxonomy, whether scored, empty or failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from pathopan.classes import Taxonomy
from pathopan.objects import COMPARTMENTS, Compartment
from pathopan.scores.mutils import METRICS, SUMMED_AREAS, SUMMED_COUNTS
from pathopan.scores.summary import SlideScore
from pathopan.tables import Column, Schema

COMPARTMENT_MEANINGS: Mapping[str, str] = {
    "tissue": "everything analysed but background",
    "tumor": "invasive tumor",
    "tumor_front": "tumor near the interface with stroma (objects.front_um)",
    "tumor_core": "tumor deeper than the front",
    "tumor_in_bed": "tumor inside the tumor bed",
    "stroma": "stroma, lymphocyte-rich stroma included",
    "stroma_near": "stroma nearest to tumor (objects.near_um)",
    "stroma_mid": "stroma farther than near, up to objects.mid_um",
    "stroma_far": "stroma beyond mid",
    "stroma_associated": "tumor-associated stroma (MuTILs): within objects.associated_um of opened tumor",
    "stroma_dense": "lymphocyte-rich stroma alone",
    "stroma_in_bed": "stroma inside the tumor bed: where the headline sTIL is counted",
    "stroma_outside_bed": "stroma outside the tumor bed",
    "bed_inside": "tumor and stroma inside the tumor bed",
    "bed_outside": "tumor and stroma outside it",
    "margin_inside": "invasive margin: tumor and stroma inside the bed, near its border (objects.margin_um)",
    "margin_outside": "invasive margin: tumor and stroma outside the bed, near its border",
    "other": "tissue in no denominator",
    "excluded": "excluded tissue: by class, by the buffer around normal and in-situ epithelium, or by hand",
    "background": "no tissue",
    "not_analysed": "pixels that no tile looked at",
}

_COUNTS = (
    Column("area_mm2", "float", "mm2", "area"),
    Column("n_nuclei", "int", "", "nuclei whose centroid lies here"),
    Column("n_til", "int", "", "lymphocytes and plasma cells"),
    Column("til_area_um2", "float", "um2", "segmented area of TIL nuclei"),
)

_RATIOS = (
    Column("til_density_per_mm2", "float", "1/mm2", "n_til over area"),
    Column("til_density_ci_low", "float", "1/mm2", "lower end of its 95 % interval"),
    Column("til_density_ci_high", "float", "1/mm2", "upper end of its 95 % interval"),
    Column("til_density_ci_method", "str", "", "bootstrap over fields, poisson, or the wider of both"),
    Column("n_fields", "int", "", "fields that hold some of it"),
    Column("til_area_percent", "float", "%", "segmented area of TIL nuclei over area"),
    Column("til_area_percent_fixed", "float", "%", "n_til times scores.til_footprint_um2 over area"),
    Column("til_fraction_of_nuclei", "float", "", "n_til over n_nuclei"),
    Column("tils_per_tumor_cell", "float", "", "n_til over tumor nuclei"),
)

_DENSE = (
    Column("til_dense_area_mm2", "float", "mm2", "lymphocyte-rich stroma"),
    Column("til_area_percent_dense", "float", "%", "lymphocyte-rich stroma over area"),
)

HEADLINE = (
    Column("stil_percent", "float", "%", "sTIL: fixed area of TILs in stroma inside the tumor bed, over its area"),
    Column("stil_percent_ci_low", "float", "%", "lower end of its 95 % interval"),
    Column("stil_percent_ci_high", "float", "%", "upper end of its 95 % interval"),
    Column("stil_density_per_mm2", "float", "1/mm2", "sTIL: TILs over area of stroma inside the tumor bed"),
    Column("stil_density_ci_low", "float", "1/mm2", "lower end of its 95 % interval"),
    Column("stil_density_ci_high", "float", "1/mm2", "upper end of its 95 % interval"),
    Column("stil_area_fraction", "float", "", "sTIL: segmented area of TIL nuclei over area of stroma inside the bed"),
    Column("stil_dense_percent", "float", "%", "lymphocyte-rich stroma over stroma, inside the bed"),
    Column("stil_n_til", "int", "", "TILs in stroma inside the bed"),
    Column("stil_til_area_um2", "float", "um2", "their segmented area"),
    Column("stil_dense_area_mm2", "float", "mm2", "lymphocyte-rich stroma inside the bed"),
    Column("stil_area_mm2", "float", "mm2", "stroma inside the bed"),
    Column("itil_per_mm2", "float", "1/mm2", "iTIL: TILs in tumor nests inside the bed, over their area"),
    Column("itil_ci_low", "float", "1/mm2", "lower end of its 95 % interval"),
    Column("itil_ci_high", "float", "1/mm2", "upper end of its 95 % interval"),
    Column("itil_per_100_tumor_cells", "float", "", "iTIL for every hundred tumor nuclei in the same nests"),
    Column("itil_n_til", "int", "", "TILs in tumor nests inside the bed"),
    Column("itil_n_tumor_cells", "int", "", "tumor nuclei in tumor nests inside the bed"),
    Column("itil_area_mm2", "float", "mm2", "tumor nests inside the bed"),
    Column("stil_itil_ratio", "float", "", "sTIL density over iTIL density"),
    Column("bed_tils_per_tumor_cell", "float", "", "TILs over tumor nuclei, inside the bed"),
    Column("bed_til_fraction_of_nuclei", "float", "", "TILs over all nuclei, inside the bed"),
    Column("bed_n_til", "int", "", "TILs inside the bed"),
    Column("bed_n_tumor_cells", "int", "", "tumor nuclei inside the bed"),
    Column("bed_n_nuclei", "int", "", "nuclei inside the bed"),
    Column("phenotype", "str", "", "inflamed, excluded or desert"),
)

FIELDS = (
    Column("fields_n", "int", "", "fields with enough stroma inside the bed"),
    Column("fields_median_per_mm2", "float", "1/mm2", "median of their sTIL densities"),
    Column("fields_q1_per_mm2", "float", "1/mm2", "lower quartile"),
    Column("fields_q3_per_mm2", "float", "1/mm2", "upper quartile"),
    Column("fields_iqr_per_mm2", "float", "1/mm2", "interquartile range"),
    Column("fields_cv", "float", "", "coefficient of variation"),
    Column("fields_gini", "float", "", "Gini coefficient: 0 even, 1 all in one field"),
    Column("fields_morans_i", "float", "", "Moran's I: above 0 where dense fields lie together"),
    Column("hot_spot_per_mm2", "float", "1/mm2", "density of the densest field; not a score"),
    Column("hot_spot_x_um", "float", "um", "left border of that field"),
    Column("hot_spot_y_um", "float", "um", "top border of that field"),
)

_SLIDE = (
    Column("slide_id", "str", "", "name of the slide"),
    Column("status", "str", "", "scored, empty (neither tumor nor stroma) or failed"),
    Column("error", "str", "", "why the slide failed, or is empty"),
    Column("regions_from", "str", "", "whose regions were scored: network, or edited by a person"),
    Column("reason", "str", "", "why headline or field values are empty, with the names of the values"),
    Column("manifest_id", "str", "", "what the manifest calls it, to join tables by; else slide_id"),
)

_CALIBRATED = (
    Column("stil_percent_calibrated", "float", "%", "visual sTIL that a calibration predicts; empty without one"),
    Column("stil_percent_calibrated_ci_low", "float", "%", "lower end of the 95 % interval of one visual reading"),
    Column("stil_percent_calibrated_ci_high", "float", "%", "upper end of that interval"),
)


def scores_schema(taxonomy: Taxonomy) -> Schema:
    """List the columns of ``scores.parquet`` for a taxonomy."""
    return Schema(
        "scores",
        (
            *_SLIDE,
            *HEADLINE,
            *_CALIBRATED,
            *FIELDS,
            *(column for compartment in COMPARTMENTS for column in _compartment(compartment, taxonomy)),
            *_exclusions(taxonomy),
            *_mutils(),
        ),
    )


def scores_table(scores: Iterable[SlideScore], taxonomy: Taxonomy) -> pd.DataFrame:
    """Line up the scores of slides as rows, all with the same columns.

    Parameters
    ----------
    scores : iterable of SlideScore
        In the order of the rows.
    taxonomy : Taxonomy
        That they were scored with.

    Returns
    -------
    DataFrame
        Columns as `scores_schema` says; empty where a slide has no value. Counts are nullable integers.

    Raises
    ------
    SchemaError
        If a column is missing or holds another kind of value.
    """
    return lined_up((score.to_row() for score in scores), taxonomy)


def lined_up(rows: Iterable[Mapping[str, Any]], taxonomy: Taxonomy) -> pd.DataFrame:
    """Line rows up that `SlideScore.to_row` gave, perhaps read back from JSON."""
    schema, found = scores_schema(taxonomy), list(rows)
    columns = {c.name: _lined_up_column(c, [row.get(c.name) for row in found]) for c in schema.columns}
    return schema.check(pd.DataFrame(columns))


def _lined_up_column(column: Column, values: Sequence[Any]) -> pd.Series:
    if column.kind == "str":
        return pd.Series(["" if value is None else value for value in values], dtype="str")
    return pd.Series(values, dtype="Int64" if column.kind == "int" else "float64")


def _compartment(compartment: Compartment, taxonomy: Taxonomy) -> Sequence[Column]:
    kinds = [Column(f"n_{c.name}", "int", "", f"nuclei of class {c.name}") for c in taxonomy.nuclei]
    columns = [*_COUNTS[:2], *(c for c in kinds if c.name != "n_til"), *_COUNTS[2:]]
    if compartment.scored:
        columns += [*_RATIOS, *(_DENSE if compartment.parts == ("stroma", "dense") else ())]
    meaning = COMPARTMENT_MEANINGS[compartment.name]
    return [Column(f"{compartment.name}_{c.name}", c.kind, c.unit, f"{c.meaning}; {meaning}") for c in columns]


def _exclusions(taxonomy: Taxonomy) -> Iterable[Column]:
    names = [c.name for c in taxonomy.regions if c.role in ("excluded", "other")]
    for name in (*names, "by_hand", "buffer", "background", "not_analysed"):
        yield Column(f"excluded_{name}_area_mm2", "float", "mm2", f"in no denominator, because: {name}")
        yield Column(f"excluded_{name}_n_nuclei", "int", "", f"nuclei in no denominator, because: {name}")
        yield Column(f"excluded_{name}_n_til", "int", "", f"TILs in no denominator, because: {name}")


def _mutils() -> Iterable[Column]:
    yield Column("mutils_n_rois", "int", "", "512-um squares that are more than half tissue")
    yield Column("mutils_n_salient_rois", "int", "", "of these, with tumor and tumor-associated stroma")
    for name in SUMMED_AREAS:
        yield Column(f"mutils_{name}_um2", "float", "um2", f"MuTILs' {name}, summed over the squares")
    for name in SUMMED_COUNTS:
        yield Column(f"mutils_{name}", "int", "", f"MuTILs' {name}, summed over the squares")
    for name in METRICS:
        yield Column(f"mutils_pooled_{name}", "float", "", f"MuTILs' {name} from the sums")
        yield Column(f"mutils_weighted_{name}", "float", "", f"MuTILs' {name}, mean over squares weighted by saliency")
        yield Column(f"mutils_weighted_std_{name}", "float", "", "its weighted standard deviation over squares")
