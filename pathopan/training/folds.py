"""Cross-validation by patient: what a recipe is worth on images that its network has never seen.

Every choice that follows training is cross-fitted: the detection threshold and the calibration that a fold is reported
with come from the held-out images of the *other* folds. The bundle that ships takes its threshold and calibration from
all of them, less the patients that its recipe holds out to measure it. A recipe may train its folds for fewer steps
than the network that ships.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from pathopan.datasets.sample import Sample
from pathopan.datasets.splits import assign_folds
from pathopan.errors import ConfigError
from pathopan.evaluation_page import draw_curves
from pathopan.files import atomic_path
from pathopan.metrics import EvaluationResult, pool
from pathopan.metrics.calibrate import calibrate_folds
from pathopan.network.bundle import Bundle, load_bundle, save_bundle
from pathopan.network.flips import FlippedNet
from pathopan.network.targets import DecodeRules
from pathopan.training.card import calibration_entry, folds_entry
from pathopan.training.finish import best_threshold, lowest, measure
from pathopan.training.recipe import Recipe
from pathopan.training.train import train, training_effort

REPORT = "folds.json"
CURVES = "calibration.png"


@dataclass(frozen=True)
class HeldOut:
    """A fold's network and what it has never seen."""

    bundle: Bundle
    net: nn.Module
    samples: dict[str, list[Sample]]  # source -> images

    def evaluate(self, rules: DecodeRules, *, net: nn.Module | None = None) -> dict[str, EvaluationResult]:
        """Judge the network, or a variant of it, on the fold's images, source by source."""
        bundle = replace(self.bundle, decode=rules)
        return {name: measure(net or self.net, bundle, images) for name, images in self.samples.items()}


def fold_groups(recipe: Recipe, samples: Sequence[Sample], fold: int) -> list[str]:
    """List the groups that a fold holds out: a share of the patients of every source that the recipe reports.

    Raises
    ------
    ConfigError
        If there is no such fold.
    """
    if not 0 <= fold < recipe.folds:
        msg = f"recipe {recipe.name!r} has folds 0 to {recipe.folds - 1}; fold {fold} was asked for"
        raise ConfigError(msg)
    held: set[str] = set()
    for source in recipe.fold_sources:
        groups = [sample.group for sample in samples if sample.source.name == source]
        if not groups:
            msg = f"recipe {recipe.name!r} reports {source}, of which there is no image in the data"
            raise ConfigError(msg)
        assigned = assign_folds(groups, folds=recipe.folds, seed=recipe.seed)
        held |= {group for group, its_fold in assigned.items() if its_fold == fold}
    return sorted(held)


def fold_recipe(recipe: Recipe, samples: Sequence[Sample], fold: int) -> Recipe:
    """Give the recipe of a fold: without the groups that it holds out, and as long as folds are trained.

    It starts from the encoder's weights: a bundle that the recipe starts from has been trained on what folds hold out.

    Raises
    ------
    ConfigError
        If there is no such fold.
    """
    groups = fold_groups(recipe, samples, fold)
    steps = recipe.fold_steps or recipe.steps
    return replace(recipe, hold_out=groups, steps=steps, start_from=None, start_share=0.0)


def train_fold(
    recipe: Recipe, samples: Sequence[Sample], out: Path, fold: int, *, device: str = "auto", workers: int = 1
) -> None:
    """Train one fold and write ``out/fold-K/bundle``.

    A fold that is complete is left alone, and one that was stopped resumes. Folds do not touch each other, so each may
    run on a machine of its own.

    Raises
    ------
    ConfigError
        If there is no such fold, or the folder holds a run of another recipe.
    """
    folder = out / f"fold-{fold}"
    if (folder / "bundle" / "bundle.json").exists():
        return
    held = fold_recipe(recipe, samples, fold)
    bundle, net = train(held, samples, folder, device=device, workers=workers)
    save_bundle(folder / "bundle", replace(bundle, card={"recipe": held.to_dict()}), net)


def report_folds(recipe: Recipe, samples: Sequence[Sample], out: Path) -> dict[str, Any]:
    """Judge all folds and write ``out/folds.json`` and tables.

    Returns
    -------
    dict
        ``decode`` (threshold and calibration for the bundle that ships, from the patients that it is trained on: those
        that the recipe holds out measure it later), and ``folds`` (a source each, with 95 %
        intervals by bootstrap over patients), ``calibration`` and ``ablations`` in the form of
        :mod:`pathopan.training.card`; ``recipe`` and ``minutes``.

    Raises
    ------
    ConfigError
        If a fold was not trained, or by another recipe.
    """
    folds = [_open_fold(recipe, samples, out, fold) for fold in range(recipe.folds)]
    loose = lowest(recipe.decode)
    candidates = [fold.evaluate(loose) for fold in folds]
    main = recipe.fold_sources[0]
    found = []
    for index, fold in enumerate(folds):
        others = [part[main] for position, part in enumerate(candidates) if position != index]
        found.append(fold.evaluate(replace(recipe.decode, min_centre=best_threshold(others))))
    calibration = calibrate_folds([part[main] for part in found], folds[0].bundle.taxonomy)
    kept = [[_without(part[main], recipe.hold_out) for part in parts] for parts in (candidates, found)]
    shipped = calibrate_folds(kept[1], folds[0].bundle.taxonomy)
    chosen = replace(
        recipe.decode,
        min_centre=best_threshold(kept[0]),
        class_temperature=round(shipped.temperature.temperature, 4),
        prob_slope=round(shipped.platt.slope, 4),
        prob_intercept=round(shipped.platt.intercept, 4),
    )
    protocol = (
        f"{recipe.folds}-fold cross-validation by patient (CoNSeP: by tile), {recipe.fold_steps or recipe.steps:,} of "
        f"{recipe.steps:,} steps, from the encoder's weights and never from another network's; threshold and "
        f"calibration of a fold come from the {main} images of the other folds"
    )
    report: dict[str, Any] = {
        "recipe": recipe.to_dict(),
        "decode": {name: getattr(chosen, name) for name in _CHOSEN},
        "folds": [folds_entry(name, [part[name] for part in found], protocol=protocol) for name in found[0]],
        "calibration": calibration_entry(calibration, picture=CURVES),
        "ablations": _ablate(folds, chosen),
        "minutes": round(sum(training_effort(out / f"fold-{fold}").minutes for fold in range(recipe.folds)), 1),
    }
    for name in found[0]:
        pool([part[name] for part in found]).write_tables(out / name)
    calibration.folds.to_csv(out / "calibration.csv", index=False)
    with atomic_path(out / CURVES) as temporary:
        Image.fromarray(draw_curves(calibration.curves)).save(temporary, format="png")
    with atomic_path(out / REPORT) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


_COMPARED = (
    ("detection_f1", "all"),
    ("class_f1", "til"),
    ("class_f1", "tumor"),
    ("class_f1", "stromal"),
    ("class_f1", "mean"),
    ("pq", "all"),
    ("dice", "all"),
    ("derived_region_dice", "tumor"),
    ("derived_region_dice", "stroma"),
)
"""Figures that ablations are compared by."""

_CHOSEN = ("min_centre", "class_temperature", "prob_slope", "prob_intercept")


def read_report(out: Path) -> dict[str, Any]:
    """Read what :func:`report_folds` wrote.

    Raises
    ------
    ConfigError
        If there is none.
    """
    path = out / REPORT
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: no report of a cross-validation: run `pathopan crossvalidate` first ({error})"
        raise ConfigError(msg) from error
    return report


def _open_fold(recipe: Recipe, samples: Sequence[Sample], out: Path, fold: int) -> HeldOut:
    folder = out / f"fold-{fold}" / "bundle"
    if not (folder / "bundle.json").exists():
        msg = f"fold {fold} was not trained yet: {folder} is missing; run `pathopan crossvalidate` with --fold {fold}"
        raise ConfigError(msg)
    held_out = fold_recipe(recipe, samples, fold)
    bundle, net = load_bundle(folder)
    if not held_out.learns_as(bundle.card["recipe"]):
        msg = f"{folder} was trained by another recipe than {recipe.name!r} as it is now; choose another folder"
        raise ConfigError(msg)
    unseen = [sample for sample in samples if sample.group in held_out.hold_out]
    return HeldOut(bundle, net, {name: [s for s in unseen if s.source.name == name] for name in recipe.fold_sources})


def _without(found: EvaluationResult, groups: Sequence[str]) -> EvaluationResult:
    """Leave patients out of what thresholds and calibration are fitted on."""
    tables = (found.parts, found.nuclei)
    parts, nuclei = (table[~table["group"].isin(groups)] if len(table) else table for table in tables)
    return replace(found, parts=parts, nuclei=nuclei)


def _ablate(folds: Sequence[HeldOut], rules: DecodeRules) -> list[dict[str, Any]]:
    """Judge the folds' networks without the tissue's prior, and with test-time augmentation, at one threshold."""
    plain = replace(rules, class_temperature=1.0, prob_slope=1.0, prob_intercept=0.0)
    variants: dict[str, Callable[[HeldOut], nn.Module]] = {
        "as it ships": lambda fold: fold.net,
        "without region-nucleus compatibility": _without_prior,
        "with four flips, at four times the cost": lambda fold: FlippedNet(fold.net),
    }
    rows = []
    for variant, build in variants.items():
        parts = [fold.evaluate(plain, net=build(fold)) for fold in folds]
        for name in parts[0]:
            pooled = pool([part[name] for part in parts])
            figures = {f"{metric} {cls}": pooled.value(metric, cls) for metric, cls in _COMPARED}
            kept = {figure: round(value, 4) for figure, value in figures.items() if not math.isnan(value)}
            rows.append({"what": variant, "dataset": name, **kept})
    return rows


def _without_prior(fold: HeldOut) -> nn.Module:
    """Give the fold's network with a prior that is the same in every tissue: what its nucleus head says alone."""
    net = fold.bundle.build()
    state = fold.net.state_dict()
    net.load_state_dict({**state, "compatibility.weight_NR": torch.zeros_like(state["compatibility.weight_NR"])})
    return net.eval()
