"""Samples for the tests of training, painted in the colors of the synthetic slide."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
from oracle import TINY

from pathopan.classes import BREAST
from pathopan.datasets.sample import Sample, Source
from pathopan.datasets.synthetic import COLORS
from pathopan.training.recipe import Recipe

RECIPE = Recipe(
    name="tiny",
    steps=8,
    batch_size=2,
    crop_px=64,
    step_px=64,
    halo_px=32,
    arguments=dict(TINY),
    encoder_weights=None,
    shares={"A": 1.0},
    zooms={"A": [0.9, 1.1]},
)
"""A run of seconds on samples of source A."""

TUMOR, STROMA = BREAST.region("tumor").id, BREAST.region("stroma").id


def sample(
    number: int,
    *,
    source: str = "A",
    group: str | None = None,
    side: int = 128,
    points_only: bool = False,
    region: bool = True,
    **fields: object,
) -> Sample:
    """Tumor on the left with tumor nuclei, stroma on the right with TILs; on a jittered lattice."""
    rng = np.random.default_rng(number)
    regions = np.full((side, side), STROMA, np.uint8)
    regions[:, : side // 2] = TUMOR
    x, y = (axis.ravel() + rng.uniform(-2, 2, axis.size) for axis in np.meshgrid(*[np.arange(12, side, 24)] * 2))
    kinds = np.where(x < side // 2, BREAST.nucleus("tumor").id, BREAST.nucleus("til").id)
    instances = np.zeros((side, side), np.int32)
    for index, (cx, cy, kind) in enumerate(zip(x, y, kinds, strict=True), start=1):
        radius = 8 if kind == BREAST.nucleus("tumor").id else 5
        cv2.circle(instances, (int(cx), int(cy)), radius, index, -1)
    table = np.zeros((5, 6, 3), np.uint8)
    for (nucleus_id, region_id), color in COLORS.items():
        table[nucleus_id, region_id] = color
    image = table[np.concatenate([[0], kinds])[instances], regions]
    nuclei = pd.DataFrame({"x_px": x, "y_px": y, "class_id": kinds, "instance_id": np.arange(1, len(x) + 1)})
    settings: dict[str, object] = {
        "sample_id": str(number),
        "image": image,
        "mpp": 0.5,
        "group": group or f"patient {number}",
        "source": Source(source, "CC0-1.0", "made up", "breast"),
        "nuclei": nuclei,
        "instances": None if points_only else instances,
        "region": regions if region else None,
    }
    if "image" in fields and "region" not in fields:
        settings["region"] = None
    return Sample(**{**settings, **fields})  # type: ignore[arg-type]
