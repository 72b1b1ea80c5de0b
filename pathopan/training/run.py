"""Train by a recipe's name, from data on disk to a bundle on disk."""

from __future__ import annotations

from pathlib import Path

from pathopan.network.bundle import Bundle, load_bundle
from pathopan.training.finish import write_bundle
from pathopan.training.recipe import read_recipe, read_samples
from pathopan.training.train import train, trained_minutes


def train_bundle(
    recipe_name: str,
    data: Path,
    out: Path,
    *,
    device: str = "auto",
    workers: int = 1,
    start_from: str | None = None,
) -> Bundle:
    """Run a recipe and write ``out/bundle``.

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

    Raises
    ------
    ConfigError, DatasetError, BundleError
        If the recipe, the data or the bundle cannot be used.
    """
    recipe = read_recipe(recipe_name)
    samples = read_samples(data)
    net = load_bundle(start_from)[1] if start_from else None
    bundle, trained = train(recipe, samples, out, device=device, workers=workers, start_from=net)
    return write_bundle(out / "bundle", recipe, samples, bundle=bundle, net=trained, minutes=trained_minutes(out))
