"""Calibration of a network from judged nuclei, fold by fold: what is reported was never fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.classes import Taxonomy
from pathopan.errors import SchemaError
from pathopan.metrics.evaluate import EvaluationResult
from pathopan.metrics.reliability import (
    PlattFit,
    Reliability,
    TemperatureFit,
    class_reliability,
    classwise_ece,
    fit_platt,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from pathopan.probabilities import apply_platt, apply_temperature

POOLED = "all"
"""Row of all folds together, each nucleus corrected by the fit that has not seen its fold."""


@dataclass(frozen=True)
class Calibration:
    """How honest a network's probabilities are, and the correction that its bundle should carry.

    Parameters
    ----------
    folds : DataFrame
        One row a fold and one called ``all``: ``fold, n`` (nuclei with a true partner of known class),
        ``temperature`` (fitted on the other folds), ``ece_before, ece_after`` of the likeliest class,
        ``nll_before, nll_after``, ``ece_NAME_before, ece_NAME_after`` of each class's own probability;
        ``n_detected, slope, intercept, detection_ece_before, detection_ece_after`` of the probability of a nucleus.
    temperature : TemperatureFit
        Fitted on all folds' held-out nuclei: for the bundle.
    platt : PlattFit
        The same for the probability of a nucleus.
    curves : dict of str to Reliability
        ``class before``, ``class after``, ``detection before``, ``detection after``, over all folds.
    """

    folds: pd.DataFrame
    temperature: TemperatureFit
    platt: PlattFit
    curves: dict[str, Reliability]


@dataclass(frozen=True)
class Judged:
    """Probabilities of predicted nuclei beside what is true of them."""

    probs: npt.NDArray[np.float64]  # (M, K) of nuclei with a true partner of known class
    labels: npt.NDArray[np.int64]  # (M,) column of the partner's class
    prob: npt.NDArray[np.float64]  # (N,) of every predicted nucleus
    matched: npt.NDArray[np.bool_]  # (N,) whether it has a true partner


def judged(found: EvaluationResult, taxonomy: Taxonomy) -> Judged:
    """Take the probabilities out of an evaluation.

    Parameters
    ----------
    found : EvaluationResult
        Of predictions that came with ``prob`` and ``prob_<class>``, as those of a bundle do.
    taxonomy : Taxonomy
        Order of the columns.

    Raises
    ------
    SchemaError
        If there are predicted nuclei and they came without probabilities.
    """
    wanted = ["prob", *(f"prob_{kind.name}" for kind in taxonomy.nuclei)]
    rows = found.nuclei
    if len(rows) == 0:
        return Judged(np.empty((0, len(taxonomy.nuclei))), np.empty(0, np.int64), np.empty(0), np.empty(0, np.bool_))
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        msg = f"the predictions lack the columns {missing}: calibration needs each nucleus's probabilities"
        raise SchemaError(msg)
    rows = rows.dropna(subset=wanted)
    column = {kind.id: index for index, kind in enumerate(taxonomy.nuclei)}
    known = rows[rows["true_class_id"].isin(list(column))]
    return Judged(
        probs=known[wanted[1:]].to_numpy(np.float64),
        labels=known["true_class_id"].map(column).to_numpy(np.int64),
        prob=rows["prob"].to_numpy(np.float64),
        matched=rows["matched"].to_numpy(np.bool_),
    )


def calibrate_folds(results: Sequence[EvaluationResult], taxonomy: Taxonomy) -> Calibration:
    """Fit on all folds but one and look at that one, for each; then fit on all of them, for the bundle.

    Parameters
    ----------
    results : sequence of EvaluationResult
        One a fold: its network on the images that it was not trained on. With a single one there is nothing to hold
        out, and what is reported was fitted on itself.
    taxonomy : Taxonomy
        Of the network.

    Raises
    ------
    SchemaError
        If predictions came without probabilities.
    """
    parts = [judged(found, taxonomy) for found in results]
    everything = _join(parts, taxonomy)
    rows, after = [], []
    for index, part in enumerate(parts):
        others = [other for position, other in enumerate(parts) if position != index]
        fitted_on = _join(others, taxonomy) if others else part
        temperature = fit_temperature(fitted_on.probs, fitted_on.labels)
        platt = fit_platt(fitted_on.prob, fitted_on.matched)
        mended = _mend(part, temperature.temperature, platt)
        after.append(mended)
        fits = {"temperature": temperature.temperature, "slope": platt.slope, "intercept": platt.intercept}
        rows.append({"fold": str(index), **_figures(part, mended, taxonomy), **fits})
    pooled = _join(after, taxonomy)
    temperature = fit_temperature(everything.probs, everything.labels)
    platt = fit_platt(everything.prob, everything.matched)
    fits = {"temperature": temperature.temperature, "slope": platt.slope, "intercept": platt.intercept}
    rows.append({"fold": POOLED, **_figures(everything, pooled, taxonomy), **fits})
    curves = {
        "class before": class_reliability(everything.probs, everything.labels),
        "class after": class_reliability(pooled.probs, pooled.labels),
        "detection before": reliability(everything.prob, everything.matched),
        "detection after": reliability(pooled.prob, pooled.matched),
    }
    return Calibration(pd.DataFrame(rows), temperature, platt, curves)


def _mend(part: Judged, temperature: float, platt: PlattFit) -> Judged:
    return Judged(
        apply_temperature(part.probs, temperature),
        part.labels,
        apply_platt(part.prob, platt.slope, platt.intercept),
        part.matched,
    )


def _figures(before: Judged, after: Judged, taxonomy: Taxonomy) -> dict[str, float]:
    figures: dict[str, float] = {"n": len(before.labels), "n_detected": len(before.prob)}
    for when, part in (("before", before), ("after", after)):
        figures[f"ece_{when}"] = class_reliability(part.probs, part.labels).ece
        figures[f"nll_{when}"] = negative_log_likelihood(part.probs, part.labels)
        figures[f"detection_ece_{when}"] = reliability(part.prob, part.matched).ece
        for kind, ece in zip(taxonomy.nuclei, classwise_ece(part.probs, part.labels).tolist(), strict=True):
            figures[f"ece_{kind.name}_{when}"] = ece
    return figures


def _join(parts: Sequence[Judged], taxonomy: Taxonomy) -> Judged:
    nothing = np.empty((0, len(taxonomy.nuclei)))
    return Judged(
        np.concatenate([nothing, *(part.probs for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.labels for part in parts)]),
        np.concatenate([np.empty(0), *(part.prob for part in parts)]),
        np.concatenate([np.empty(0, np.bool_), *(part.matched for part in parts)]),
    )
