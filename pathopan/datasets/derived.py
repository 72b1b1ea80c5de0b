"""Region labels derived from nucleus labels, where nobody drew regions. Whatever rests on them is called *derived*."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.sample import Sample

FloatMap = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DerivationRules:
    """How nucleus densities become regions; lengths in um, densities in nuclei per mm2."""

    blur_um: float = 8.0  # Gaussian over nucleus centres
    inflammatory_weight: float = 0.5  # tumor where tumor > stromal + this x til
    dense_blur_um: float = 16.0  # an infiltrate is more than two neighbours: its density is taken over a wider Gaussian
    dense_share: float = 0.6  # lymphocyte-rich where TILs are more than this share of nuclei
    dense_per_mm2: float = 2_500.0  # ... and at least this dense
    empty_per_mm2: float = 150.0  # fewer nuclei say nothing about the tissue: left unlabelled
    glass_blur_um: float = 4.0  # Gaussian over the mean RGB
    glass_level: float = 225.0  # brighter than this, and flat, is background
    glass_texture: float = 6.0  # standard deviation of the gray level that still counts as flat


def derive_regions(sample: Sample, *, taxonomy: Taxonomy = BREAST, rules: DerivationRules | None = None) -> Sample:
    """Return the sample with a derived region map.

    Parameters
    ----------
    sample : Sample
        With classified nuclei.
    taxonomy : Taxonomy
        Regions are found by role: tumor, stroma, dense, other, background.
    rules : DerivationRules, optional
        Densities and lengths.

    Returns
    -------
    Sample
        Same image; ``region`` filled in, 0 where there are too few nuclei to tell, and ``region_derived`` set.
    """
    rules = rules or DerivationRules()
    density = {
        role: _density(sample, taxonomy.nucleus_ids(role), rules.blur_um)
        for role in ("tumor", "stromal", "til", "other")
    }
    total = sum(density.values())
    tumor = density["tumor"] > density["stromal"] + rules.inflammatory_weight * density["til"]
    crowd = _density(sample, taxonomy.nucleus_ids("til"), rules.dense_blur_um)
    everyone = _density(sample, tuple(kind.id for kind in taxonomy.nuclei), rules.dense_blur_um)
    dense = (crowd > rules.dense_share * everyone) & (crowd > rules.dense_per_mm2) & ~tumor
    region = np.full(sample.image.shape[:2], taxonomy.region_ids("stroma")[0], dtype=np.uint8)
    region[tumor] = taxonomy.region_ids("tumor")[0]
    region[density["other"] > total - density["other"]] = taxonomy.region_ids("other")[0]
    region[dense] = taxonomy.region_ids("dense")[0]
    region[total < rules.empty_per_mm2] = 0
    region[glass(sample.image, mpp=sample.mpp, rules=rules)] = taxonomy.region_ids("background")[0]
    return replace(sample, region=region, region_derived=True)


def derive_missing_regions(sample: Sample, *, taxonomy: Taxonomy = BREAST) -> Sample:
    """Derive regions where nobody drew any, and every nucleus is labelled and has a class; else leave the sample.

    Where some nuclei were not labelled, such as those of stroma in MoNuSAC, densities would tell a wrong tissue.
    """
    drawn = sample.region is not None and sample.region.any()
    if drawn or sample.labelled_nuclei is not None or not (sample.nuclei["class_id"] > 0).any():
        return sample
    return derive_regions(sample, taxonomy=taxonomy)


def glass(image: npt.NDArray[np.uint8], *, mpp: float, rules: DerivationRules) -> npt.NDArray[np.bool_]:
    """Find bare glass and empty lumen: bright and without texture (pale fibrous tissue is bright but textured)."""
    gray = image.mean(axis=2, dtype=np.float32)
    sigma = rules.glass_blur_um / mpp
    level = cv2.GaussianBlur(gray, (0, 0), sigma)
    variance = cv2.GaussianBlur(gray * gray, (0, 0), sigma) - level * level
    return (level > rules.glass_level) & (variance < rules.glass_texture**2)


def _density(sample: Sample, class_ids: tuple[int, ...], blur_um: float) -> FloatMap:
    """Smooth nucleus centres into a density in nuclei per mm2; at the border only the part inside counts.

    A Gaussian of points is a sum of outer products, so one matrix product does what a blur of the whole image would do
    at many times the cost; the weights are OpenCV's, cut off where OpenCV cuts them off.
    """
    height, width = sample.image.shape[:2]
    rows = sample.nuclei[sample.nuclei["class_id"].isin(class_ids)]
    along_y, inside_y = _spread(rows["y_px"].to_numpy(), height, blur_um / sample.mpp)
    along_x, inside_x = _spread(rows["x_px"].to_numpy(), width, blur_um / sample.mpp)
    smooth: FloatMap = along_y @ along_x.T / np.outer(inside_y, inside_x)
    return smooth * np.float32(1e6 / sample.mpp**2)


def _spread(points: npt.NDArray[np.floating], size: int, sigma: float) -> tuple[FloatMap, FloatMap]:
    """Spread points along one axis: the weight of each in each pixel, and how much of a Gaussian lies inside."""
    radius = (round(sigma * 8 + 1) | 1) // 2  # cv2.GaussianBlur's own choice for float images
    kernel = np.pad(cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F).ravel(), 1)
    pixel = np.arange(size)
    centre = np.clip(points.astype(np.int64), 0, size - 1)
    weights = kernel[np.clip(pixel[:, None] - centre + radius, -1, 2 * radius + 1) + 1]
    reach = np.concatenate([[0.0], np.cumsum(kernel[1:], dtype=np.float64)])
    low, high = np.maximum(0, radius - pixel), np.minimum(2 * radius + 1, size + radius - pixel)
    return weights, (reach[high] - reach[low]).astype(np.float32)
