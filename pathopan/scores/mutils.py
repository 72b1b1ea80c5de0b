"""MuTILs' own eleven metrics, so that cohorts scored with it stay comparable.

Liu et al., "A panoptic segmentation dataset and deep-learning approach for explainable scoring of tumor-infiltrating
lymphocytes", npj Breast Cancer 2024. Names are theirs. Six differences, all on purpose: salient stroma is drawn on
the whole slide, where theirs is cut at the border of a 512-um square; a ratio without denominator is empty, where
theirs is 0; a square counts if more than half of it is tissue of our region map, where theirs asks a thumbnail;
excluded classes count as their junk, and ``other``, which a taxonomy may use for junk too, as tissue; stromal nuclei
are all that the taxonomy calls so, where theirs leave out active stroma; and what a person excluded, or was not
analysed, holds neither area nor nuclei.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from pathopan.classes import UNANALYSED, NucleusRole, RegionRole, Taxonomy
from pathopan.objects.compartments import ASSOCIATED, DRAWN_OUT, N_PLACES, Lookup
from pathopan.scores.fields import FieldTally
from pathopan.scores.ratio import Number, Ratio, divide

FloatArray = npt.NDArray[np.float64]
Sums = Mapping[str, float]

ROI_UM = 512.0
"""Side of a region of interest."""

PIXEL_UM2 = 0.25
"""MuTILs counts pixels of 0.5 um/px."""


def _over(numerator: str, denominator: str) -> Callable[[Sums], Ratio]:
    return lambda sums: divide(sums[numerator], sums[denominator], what=_WORDS[denominator])


def _saliency(sums: Sums) -> Ratio:
    whole = sums["everything"]
    return divide(sums["salient"] * sums["tumor"], whole * whole, what=_WORDS["everything"])


_WORDS = {
    "everything": "region of interest",
    "nonjunk": "tissue",
    "stroma": "stroma",
    "stroma_px": "stroma",
    "tumor": "tumor",
    "salient": "tumor-associated stroma",
    "n_stromal": "stromal nuclei",
    "n_til_stromal": "TILs or stromal nuclei",
    "n_all": "nuclei",
    "n_tumor": "tumor nuclei",
}

SUMMED_AREAS = ("everything", "nonjunk", "tumor", "stroma", "tils", "salient", "salient_tils")
SUMMED_COUNTS = ("n_til", "n_stromal", "n_tumor", "n_all")

METRICS: Mapping[str, Callable[[Sums], Ratio]] = {
    "SaliencyScore": _saliency,
    "TissueRatio": _over("nonjunk", "everything"),
    "TILs2AnyStromaRatio": _over("tils", "stroma"),
    "TILs2AllRatio": _over("tils", "nonjunk"),
    "TILs2TumorRatio": _over("tils", "tumor"),
    "SalientTILs2StromaRatio": _over("salient_tils", "salient"),
    "nTILsCells2AnyStromaRegionArea": _over("n_til", "stroma_px"),
    "nTILsCells2nStromaCells": _over("n_til", "n_stromal"),
    "nTILsCells2nAllStromaCells": _over("n_til", "n_til_stromal"),
    "nTILsCells2nAllCells": _over("n_til", "n_all"),
    "nTILsCells2nTumorCells": _over("n_til", "n_tumor"),
}
"""Each metric from the sums of a square, or of all squares. Areas in um2 but for ``stroma_px``."""


def score_mutils(tally: FieldTally, *, min_tissue: float = 0.5) -> dict[str, Ratio | Number]:
    """Compute the metrics over all regions of interest.

    Parameters
    ----------
    tally : FieldTally
        Fields of `ROI_UM`.
    min_tissue : float
        A square counts if more than this share of it is tissue.

    Returns
    -------
    dict
        ``mutils_n_rois``, ``mutils_n_salient_rois``, the sums; then for every metric ``mutils_pooled_<metric>`` (ratio
        of sums), ``mutils_weighted_<metric>`` (mean of the squares' ratios weighted by their SaliencyScore, all alike
        where none is salient; the SaliencyScore itself unweighted) and ``mutils_weighted_std_<metric>``.
    """
    sums = _sums(tally)
    used = sums["nonjunk"] > min_tissue * sums["everything"]
    chosen = {name: values[used] for name, values in sums.items()}
    total = {name: float(values.sum()) for name, values in chosen.items()}
    squares = [{name: float(values[i]) for name, values in chosen.items()} for i in range(int(used.sum()))]
    saliency = np.array([_saliency(square).value for square in squares], np.float64)
    scores: dict[str, Ratio | Number] = {
        "mutils_n_rois": len(squares),
        "mutils_n_salient_rois": int((saliency > 0).sum()),
        **{f"mutils_{name}_um2": total[name] for name in SUMMED_AREAS},
        **{f"mutils_{name}": int(total[name]) for name in SUMMED_COUNTS},
    }
    weight = saliency / saliency.max() if saliency.max(initial=0.0) > 0 else np.ones(len(squares))
    for name, formula in METRICS.items():
        values = np.array([formula(square).value for square in squares], np.float64)
        mean, spread = weighted_mean(values, np.ones(len(squares)) if name == "SaliencyScore" else weight)
        scores[f"mutils_pooled_{name}"] = formula(total)
        scores[f"mutils_weighted_{name}"] = mean
        scores[f"mutils_weighted_std_{name}"] = spread
    return scores


def weighted_mean(values: FloatArray, weights: FloatArray) -> tuple[Ratio, Ratio]:
    """Give weighted mean and standard deviation of the values that are there.

    Examples
    --------
    >>> weighted_mean(np.array([1.0, 4.0, np.nan]), np.array([2.0, 1.0, 9.0]))[0].value
    2.0
    """
    known = np.isfinite(values)
    total = float(weights[known].sum())
    if total <= 0:
        none = Ratio(None, "no region of interest with this ratio and any weight")
        return none, none
    mean = float((values[known] * weights[known]).sum() / total)
    variance = float((weights[known] * (values[known] - mean) ** 2).sum() / total)
    return Ratio(mean), Ratio(variance**0.5)


def _sums(tally: FieldTally) -> dict[str, FloatArray]:
    """Sum what the formulas need over each square."""
    taxonomy = tally.taxonomy

    def area(lookup: Lookup) -> FloatArray:
        return tally.pixels[:, lookup[tally.places]].sum(axis=1) * tally.mpp**2

    places = np.arange(N_PLACES)
    kept = (places & DRAWN_OUT == 0) & (places & 255 != UNANALYSED)
    nuclei = tally.counts[:, kept[tally.places]].sum(axis=1)

    def count(*roles: NucleusRole) -> FloatArray:
        chosen = [i for i, c in enumerate(taxonomy.nuclei) if c.role in roles]
        return nuclei[:, chosen].sum(axis=1).astype(np.float64)

    salient = places & ASSOCIATED > 0
    stroma, tils = area(_of_role(taxonomy, "stroma", "dense")), area(_of_role(taxonomy, "dense"))
    n_til, n_stromal = count("til"), count("stromal")
    return {
        "everything": np.full(len(nuclei), tally.field_um**2),
        "nonjunk": area(_of_role(taxonomy, "tumor", "stroma", "dense", "other")),
        "tumor": area(_of_role(taxonomy, "tumor")),
        "stroma": stroma,
        "tils": tils,
        "salient": area(_of_role(taxonomy, "stroma", "dense") & salient),
        "salient_tils": area(_of_role(taxonomy, "dense") & salient),
        "stroma_px": stroma / PIXEL_UM2,
        "n_til": n_til,
        "n_stromal": n_stromal,
        "n_til_stromal": n_til + n_stromal,
        "n_all": nuclei.sum(axis=1).astype(np.float64),
        "n_tumor": count("tumor"),
    }


def _of_role(taxonomy: Taxonomy, *roles: RegionRole) -> Lookup:
    """Look classes up by role, less what a person excluded; MuTILs knows no buffer round normal epithelium."""
    places = np.arange(N_PLACES)
    return np.isin(places & 255, taxonomy.region_ids(*roles)) & (places & DRAWN_OUT == 0)
