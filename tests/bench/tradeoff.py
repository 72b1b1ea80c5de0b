"""Accuracy against speed: several encoders and widths, trained alike on one fold, with and without mirror images.

``PYTHONPATH=tests python -m bench.tradeoff --data DATA --out OUT --picture docs/pictures/tradeoff.png``. Each network
is trained by the recipe, shortened to ``--steps``, on all patients outside the fold, and judged on the fold; its
threshold comes from images that it was trained on. A run that was stopped goes on, and what is complete is not trained
again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pathopan.datasets.sample import Sample
from pathopan.inference.runtime import open_runtime
from pathopan.network.bundle import Bundle, load_bundle
from pathopan.network.flips import FlippedNet
from pathopan.training.finish import measure, set_threshold
from pathopan.training.folds import fold_groups, train_fold
from pathopan.training.recipe import Recipe, read_recipe, read_samples

VARIANTS: dict[str, dict[str, Any]] = {
    "lite2, narrow": {"nucleus_channels": [96, 64, 48, 32], "region_channels": [64, 48, 32]},
    "lite2, as it ships": {},
    "lite0": {"encoder": "tu-tf_efficientnet_lite0"},
}
FIGURES = (
    ("BRCA-M2C", "detection_f1", "all"),
    ("BRCA-M2C", "class_f1", "mean"),
    ("CoNSeP", "pq", "all"),
    ("CoNSeP", "dice", "all"),
)
TILE_PX = 512


def shorten(recipe: Recipe, name: str, steps: int) -> Recipe:
    """Give the recipe of a variant; self-training begins after the same share of the steps as in a fold."""
    turn = round(recipe.outline_step * steps / (recipe.fold_steps or recipe.steps) / 100) * 100
    arguments = {**recipe.arguments, **VARIANTS[name]}
    return replace(recipe, name=name, steps=steps, fold_steps=0, outline_step=turn, arguments=arguments)


def judge(net: nn.Module, bundle: Bundle, samples: list[Sample], held: list[str]) -> dict[str, float]:
    """Set the threshold on training images and measure on the fold."""
    seen = [s for s in samples if s.source.name == FIGURES[0][0] and s.group not in held]
    chosen = set_threshold(net, bundle, seen)
    found: dict[str, float] = {"threshold": chosen.decode.min_centre}
    for source in dict.fromkeys(source for source, _, _ in FIGURES):
        judged = measure(net, chosen, [s for s in samples if s.source.name == source and s.group in held])
        wanted = [(metric, cls) for name, metric, cls in FIGURES if name == source]
        found |= {f"{source} {metric} {cls}": round(judged.value(metric, cls), 4) for metric, cls in wanted}
    return found


def milliseconds(net: nn.Module, bundle: Bundle, *, tiles: int = 40) -> dict[str, Any]:
    """Time a tile of 512 x 512 px, all cores at work, in the fastest runtime there is; the median of five rounds."""
    runtime = open_runtime(net, replace(bundle, step=TILE_PX - 128, halo=64))
    image = np.random.default_rng(0).integers(0, 256, (1, TILE_PX, TILE_PX, 3), dtype=np.uint8)
    rounds = []
    with ThreadPoolExecutor(runtime.streams) as pool:
        for _ in range(6):
            started = time.perf_counter()
            list(pool.map(lambda _: runtime.run(image), range(tiles)))
            rounds.append((time.perf_counter() - started) / tiles * 1e3)
    return {"runtime": f"{runtime.name} {runtime.precision}", "ms_per_tile": round(float(np.median(rounds[1:])), 1)}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw one panel a figure: milliseconds a tile across, the figure upward, with and without mirror images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    times = [row["ms_per_tile"] for row in rows]
    ticks = [ms for ms in (10, 20, 30, 50, 100, 150, 200, 500, 1000) if 0.8 * min(times) < ms < 1.2 * max(times)]
    panels = ("BRCA-M2C class_f1 mean", "BRCA-M2C detection_f1 all", "CoNSeP pq all")
    for axes, key in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name in VARIANTS:
            line = [row for row in rows if row["network"] == name]
            axes.plot([row["ms_per_tile"] for row in line], [row[key] for row in line], marker="o", label=name)
        axes.set_xscale("log")
        axes.set_xticks(ticks, labels=map(str, ticks))
        axes.set_xticks([], minor=True)
        axes.set(title=key.replace("_", " "), xlabel=f"ms a {TILE_PX} px tile; right: four mirror images")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(VARIANTS), frameon=False)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Train, judge and time the variants, or train one of them."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="breast-he-3")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--train", choices=VARIANTS, help="train this one only")
    parser.add_argument("--picture", type=Path)
    chosen = parser.parse_args()
    recipe = read_recipe(chosen.recipe)
    samples = read_samples(chosen.data, recipe)
    for name in [chosen.train] if chosen.train else VARIANTS:
        short = shorten(recipe, name, chosen.steps)
        train_fold(short, samples, chosen.out / name, chosen.fold, device="cpu", workers=0)
    if chosen.train:
        return
    rows = []
    for name in VARIANTS:
        bundle, net = load_bundle(chosen.out / name / f"fold-{chosen.fold}" / "bundle")
        held = fold_groups(recipe, samples, chosen.fold)
        for mirrored, looks in ((False, net), (True, FlippedNet(net).eval())):
            row = {"network": name, "mirrored": mirrored, **milliseconds(looks, bundle)}
            rows.append(row | judge(looks, bundle, samples, held))
            sys.stdout.write(json.dumps(rows[-1]) + "\n")
    (chosen.out / "tradeoff.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if chosen.picture:
        draw(rows, chosen.picture)


if __name__ == "__main__":
    main()
