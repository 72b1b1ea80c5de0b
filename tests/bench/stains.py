"""How well a network stands other laboratories' stains: images of BRCA-M2C in the stains of other slides.

``PYTHONPATH=tests python -m bench.stains BUNDLE --data DATA --stains SLIDE…``. A fold's bundle is judged on the images
that it held out, any other on all, which it may have been trained on: compare it with itself only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.classes import BREAST
from pathopan.datasets import read_dataset
from pathopan.datasets.derived import derive_missing_regions
from pathopan.datasets.sample import Sample
from pathopan.geometry import Window
from pathopan.metrics import evaluate
from pathopan.network.bundle import load_bundle
from pathopan.segment import Segmenter
from pathopan.slide import open_slide
from pathopan.slide.stain import optical_density

FIGURES = (
    ("detection_f1", "all"),
    ("class_f1", "til"),
    ("class_f1", "tumor"),
    ("class_f1", "stromal"),
    ("class_f1", "mean"),
    ("derived_region_dice", "tumor"),
    ("derived_region_dice", "stroma"),
)
LEAST_DENSITY = 0.15  # of a pixel that is stained, in each color; base e
WINDOW_PX = 1500


@dataclass(frozen=True)
class Stain:
    """Optical density of hematoxylin and eosin in R, G, B, and the amount of each that 99 % of pixels stay below."""

    colors_23: npt.NDArray[np.float64]
    amounts_2: npt.NDArray[np.float64]


def find_stain(image: npt.NDArray[np.uint8]) -> Stain:
    """Estimate the two stains of an H&E image (Macenko et al., ISBI 2009)."""
    density = optical_density(image).reshape(-1, 3).astype(np.float64)
    stained = density[(density > LEAST_DENSITY).all(axis=1)]
    _, axes = np.linalg.eigh(np.cov(stained.T))
    plane = axes[:, [2, 1]] * np.sign(axes[0, [2, 1]])
    angles = np.arctan2(*(stained @ plane).T[::-1])
    ends = [plane @ [np.cos(angle), np.sin(angle)] for angle in np.percentile(angles, [1, 99])]
    colors = np.abs(sorted(ends, key=lambda color: -color[0]))  # hematoxylin absorbs more red
    return Stain(colors, np.percentile(_amounts(image, colors), 99, axis=1))


def recolor(image: npt.NDArray[np.uint8], stain: Stain) -> npt.NDArray[np.uint8]:
    """Give an image the stains of another; glass stays as it is."""
    own = find_stain(image)
    amounts = _amounts(image, own.colors_23) * (stain.amounts_2 / own.amounts_2)[:, None]
    pixels = np.exp(-(amounts.T @ stain.colors_23)) * 256 - 1
    return np.clip(pixels, 0, 255).astype(np.uint8).reshape(image.shape)


def _amounts(image: npt.NDArray[np.uint8], colors_23: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.linalg.lstsq(colors_23.T, optical_density(image).reshape(-1, 3).T, rcond=None)[0]


def middle(path: Path) -> npt.NDArray[np.uint8]:
    """Read a square from the middle of a slide, whatever it says of its mpp."""
    with open_slide(path, slide_mpp=1.0) as slide:
        width, height = slide.info.size_l0
        side = min(WINDOW_PX, width, height)
        return slide.read(Window((width - side) // 2, (height - side) // 2, side, side), 1.0)


def judge(segmenter: Segmenter, samples: Sequence[Sample], stain: Stain | None) -> dict[str, float]:
    """Measure on samples, as they are or recolored."""
    if stain:
        samples = [replace(sample, image=recolor(sample.image, stain)) for sample in samples]
    found = evaluate(((s, segmenter.predict(s)) for s in samples), taxonomy=segmenter.bundle.taxonomy, resamples=2)
    return {f"{metric} {cls}": round(found.value(metric, cls), 3) for metric, cls in FIGURES}


def main() -> None:
    """Print a row for the images as they are, and one for each stain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stains", type=Path, nargs="+", required=True, help="slides of these stains")
    parser.add_argument("--images-of", metavar="BUNDLE", help="judge all on the images that this one held out")
    parser.add_argument("--every", type=int, default=1, help="judge every N-th image only")
    asked = parser.parse_args()
    stains = {"as they are": None} | {path.name: find_stain(middle(path)) for path in asked.stains}
    read = read_dataset("brca_m2c", asked.data / "brca_m2c")
    samples = [derive_missing_regions(sample, taxonomy=BREAST) for sample in read]
    rows = []
    for name in asked.bundles:
        held = load_bundle(asked.images_of or name)[0].card.get("recipe", {}).get("hold_out")
        judged = [sample for sample in samples if not held or sample.group in held][:: asked.every]
        segmenter = Segmenter(name)
        for stain, found in stains.items():
            rows.append({"bundle": name, "stain": stain, "images": len(judged)} | judge(segmenter, judged, found))
    sys.stdout.write(pd.DataFrame(rows).to_string(index=False) + "\n")


if __name__ == "__main__":
    main()
