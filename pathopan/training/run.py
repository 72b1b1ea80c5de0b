"""Train by a recipe's name, from data on disk to a bundle on disk."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pathopan.classes import BREAST
from pathopan.errors import IncompatibleBundle
from pathopan.network.bundle import Bundle, find_bundle, load_bundle
from pathopan.training.card import write_model_card
from pathopan.training.finish import check_report, inherit, write_bundle
from pathopan.training.folds import CURVES, read_report, report_folds, train_fold
from pathopan.training.recipe import Recipe, read_notes, read_recipe, read_samples
from pathopan.training.train import describe, train, training_effort


def train_bundle(
    recipe_name: str,
    data: Path,
    out: Path,
    *,
    device: str = "auto",
    workers: int = 1,
    start_from: str | None = None,
    folds: Path | None = None,
) -> Bundle:
    """Run a recipe and write ``out/bundle`` with its model card.

    Parameters
    ----------
    recipe_name : str
        Of a recipe in the package, or a YAML file.
    data : Path
        Folder with the folders of the recipe's ``sets``.
    out : Path
        For the curve, the checkpoint and the bundle; a run that was stopped goes on.
    device, workers
        See :func:`pathopan.training.train.train`.
    start_from : str, optional
        Bundle to fine-tune, in place of the one that the recipe starts from.
    folds : Path, optional
        Folder of a cross-validation of the recipe: its threshold, calibration and figures go into the bundle.

    Raises
    ------
    ConfigError, DatasetError, BundleError
        If the recipe, the data or the bundle cannot be used.
    IncompatibleBundle
        If the bundle to fine-tune has another architecture, classes or mpp than the recipe.
    """
    recipe = read_recipe(recipe_name)
    if start_from:
        recipe = replace(recipe, start_from=start_from)
    notes, pictures = read_notes(recipe_name)
    report = None
    if folds:
        report = read_report(folds)
        check_report(recipe, report)
        pictures.append(folds / CURVES)
    samples = read_samples(data, recipe)
    start, net = _open_start(recipe)
    curves = start.card.get("calibration", {}).get("picture") if start and not report else None
    if curves and (find_bundle(str(recipe.start_from)) / curves).is_file():
        pictures.append(find_bundle(str(recipe.start_from)) / curves)
    bundle, trained = train(recipe, samples, out, device=device, workers=workers, start_from=net)
    if recipe.start_share:
        _, before = load_bundle(str(recipe.start_from))
        trained = blend(trained, before, recipe.start_share)
    bundle = replace(bundle, card={**notes, **bundle.card})
    if start:
        bundle = inherit(start, bundle)
    minutes = training_effort(out).minutes
    made = write_bundle(out / "bundle", recipe, samples, bundle=bundle, net=trained, minutes=minutes, report=report)
    for picture in pictures:
        shutil.copyfile(picture, out / "bundle" / picture.name)
    write_model_card(out / "bundle")  # which shows pictures that are there
    return made


def blend(net: nn.Module, before: nn.Module, share: float) -> nn.Module:
    """Average the weights of a fine-tuned network with those that it started from (Wortsman et al., CVPR 2022).

    What was learned before and is forgotten in fine-tuning comes back, at no cost: the two lie in one valley.

    Parameters
    ----------
    net, before : Module
        Of the same architecture; ``net`` gets the average.
    share : float
        Of ``before``, 0 to 1.
    """
    old = before.state_dict()
    mixed = {
        key: torch.lerp(value, old[key], share) if value.is_floating_point() else value
        for key, value in net.state_dict().items()
    }
    net.load_state_dict(mixed)
    return net


def _open_start(recipe: Recipe) -> tuple[Bundle | None, nn.Module | None]:
    """Open the bundle that a recipe starts from, if any."""
    if recipe.start_from is None:
        return None, None
    bundle, net = load_bundle(recipe.start_from)
    wanted = describe(recipe, BREAST)
    for name in ("architecture", "arguments", "taxonomy", "mpp", "mean", "std"):
        has, needs = getattr(bundle, name), getattr(wanted, name)
        if has != needs:
            msg = f"recipe {recipe.name!r} cannot start from bundle {bundle.name!r}: its {name} is {has}, not {needs}"
            raise IncompatibleBundle(msg)
    return bundle, net


def cross_validate(
    recipe_name: str, data: Path, out: Path, *, fold: int | None = None, device: str = "auto", workers: int = 1
) -> dict[str, Any] | None:
    """Train a recipe's folds and report them, or train one of them.

    Parameters
    ----------
    recipe_name, data, device, workers
        See :func:`train_bundle`.
    out : Path
        For ``fold-K/`` each, ``folds.json`` and the tables; what is complete is not done again.
    fold : int, optional
        Train this one only, and report nothing: so that folds can run on several machines.

    Returns
    -------
    dict or None
        The report, see :func:`pathopan.training.folds.report_folds`.

    Raises
    ------
    ConfigError, DatasetError
        If the recipe or the data cannot be used, or there is no such fold.
    """
    recipe = read_recipe(recipe_name)
    samples = read_samples(data, recipe)
    for number in range(recipe.folds) if fold is None else [fold]:
        train_fold(recipe, samples, out, number, device=device, workers=workers)
    return report_folds(recipe, samples, out) if fold is None else None
