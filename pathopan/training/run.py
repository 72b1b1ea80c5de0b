"""Train by a recipe's name, from data on disk to a bundle on disk."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from pathopan.network.bundle import Bundle, load_bundle
from pathopan.training.card import write_model_card
from pathopan.training.finish import write_bundle
from pathopan.training.folds import CURVES, read_report, report_folds, train_fold
from pathopan.training.recipe import read_notes, read_recipe, read_samples
from pathopan.training.train import train, trained_minutes


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
        Folder with ``brca_m2c``, ``consep`` and ``dsb2018_stained``.
    out : Path
        For the curve, the checkpoint and the bundle; a run that was stopped goes on.
    device, workers
        See :func:`pathopan.training.train.train`.
    start_from : str, optional
        Bundle to fine-tune.
    folds : Path, optional
        Folder of a cross-validation of the recipe: its threshold, calibration and figures go into the bundle.

    Raises
    ------
    ConfigError, DatasetError, BundleError
        If the recipe, the data or the bundle cannot be used.
    """
    recipe = read_recipe(recipe_name)
    notes, pictures = read_notes(recipe_name)
    report = None
    if folds:
        report = read_report(folds)
        pictures.append(folds / CURVES)
    samples = read_samples(data)
    net = load_bundle(start_from)[1] if start_from else None
    bundle, trained = train(recipe, samples, out, device=device, workers=workers, start_from=net)
    bundle, minutes = replace(bundle, card=notes), trained_minutes(out)
    made = write_bundle(out / "bundle", recipe, samples, bundle=bundle, net=trained, minutes=minutes, report=report)
    for picture in pictures:
        shutil.copyfile(picture, out / "bundle" / picture.name)
    write_model_card(out / "bundle")  # which shows pictures that are there
    return made


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
    samples = read_samples(data)
    for number in range(recipe.folds) if fold is None else [fold]:
        train_fold(recipe, samples, out, number, device=device, workers=workers)
    return report_folds(recipe, samples, out) if fold is None else None
