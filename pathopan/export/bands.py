"""Distance bands as a page shows them: how far stroma lies from tumor, how deep tumor lies, and the tumor bed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pathopan.classes import Color, Taxonomy
from pathopan.export.overlay import color_table
from pathopan.geometry import resize_labels
from pathopan.objects import PARTITION, CompartmentRules, Drawn, find_compartments, find_regions
from pathopan.objects.compartments import BED, partition_of_place

COLORS: Mapping[str, Color] = {
    "tumor_core": (136, 34, 85),
    "tumor_front": (204, 102, 119),
    "stroma_near": (221, 204, 119),
    "stroma_mid": (136, 204, 238),
    "stroma_far": (51, 34, 136),
    "excluded": (90, 90, 90),
}
"""Of the *muted* scheme that Paul Tol made for color-blind eyes, from the core of a nest outwards."""

_BED_LINE: Color = (0, 0, 0)
_BED_THICKNESS = 3


@dataclass(frozen=True)
class Bands:
    """Where the bands lie, on the pixels of a picture."""

    partition: npt.NDArray[np.uint8]  # (Y, X) index into `objects.PARTITION`
    bed: npt.NDArray[np.bool_]  # (Y, X) inside the tumor bed
    rules: CompartmentRules  # their widths

    def resized(self, size: tuple[int, int]) -> Bands:
        """Give the bands on a picture of another width and height."""
        if self.partition.shape[::-1] == size:
            return self
        bed = resize_labels(self.bed.view(np.uint8), size) > 0
        return replace(self, partition=resize_labels(self.partition, size), bed=bed)


def find_bands(
    classes: npt.NDArray[np.uint8],
    *,
    taxonomy: Taxonomy,
    mpp: float,
    rules: CompartmentRules,
    drawn: Drawn | None = None,
) -> Bands:
    """Draw the bands on a picture's region map: the picture's pixels are coarser than those that scores rest on.

    Parameters
    ----------
    classes : (Y, X) uint8
        Region classes.
    taxonomy : Taxonomy
        What the classes mean.
    mpp : float
        Micrometres per pixel.
    rules : CompartmentRules
        Widths of the bands.
    drawn : Drawn, optional
        What a person excluded or drew as the bed, in pixels of the map.
    """
    nowhere = np.zeros(0, np.int64)
    kept = find_regions(classes, taxonomy=taxonomy, mpp=mpp, min_region_um2=rules.min_region_um2).classes()
    found = find_compartments(kept, taxonomy=taxonomy, mpp=mpp, rules=rules, points=nowhere, drawn=drawn or Drawn())
    return Bands(partition_of_place(taxonomy)[found.places], found.places & BED > 0, rules)


def bands_layer(bands: Bands) -> npt.NDArray[np.uint8]:
    """Color the bands and draw the border of the tumor bed: (Y, X, 4) uint8, clear where there is none."""
    table = {PARTITION.index(name): (*color, 255) for name, color in COLORS.items()}
    layer = color_table(table, default=(0,) * 4)[bands.partition]
    outlines, _ = cv2.findContours(bands.bed.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(layer, outlines, -1, (*_BED_LINE, 255), _BED_THICKNESS)
    return layer


def bands_legend(bands: Bands, score: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Say what each band is, its color, and the TIL density that the score gives for it.

    Returns
    -------
    sequence of mapping
        ``title, color, density_per_mm2`` (``None`` if the score has none), from the core of a nest outwards.
    """
    rules = bands.rules
    titles = {
        "tumor_core": f"tumor core, > {rules.front_um:g} µm",
        "tumor_front": f"tumor front, ≤ {rules.front_um:g} µm",
        "stroma_near": f"stroma ≤ {rules.near_um:g} µm",
        "stroma_mid": f"stroma {rules.near_um:g}–{rules.mid_um:g} µm",
        "stroma_far": f"stroma > {rules.mid_um:g} µm",
        "excluded": "excluded",
    }
    compartments = score.get("compartments", {})
    return [
        {
            "title": titles[name],
            "color": color,
            "density_per_mm2": compartments.get(name, {}).get("til_density_per_mm2"),
        }
        for name, color in COLORS.items()
    ]
