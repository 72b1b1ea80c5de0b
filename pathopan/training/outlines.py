"""Self-training: turn labelled points into outlines with the network that is being trained.

Axes: B batch, K shape channels, H, W.

A point says that there is a nucleus and of which kind; the network, taught outlines by other data sets, says how far it
reaches. From then on such a nucleus teaches its kind over its whole area instead of the pixels right around its point.
What is nucleus and what is not is still learned from points and from outlines that people drew: taught its own masks
too, a network repeats its mistakes. No label is invented: a predicted nucleus that nobody pointed at teaches nothing,
one that the network misses gets a small disc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from pathopan.datasets.sample import Sample
from pathopan.files import atomic_path
from pathopan.geometry import resize_labels
from pathopan.network.bundle import Bundle
from pathopan.network.model import InferenceNet
from pathopan.network.precision import fast_autocast
from pathopan.network.targets import POINT_RADIUS_PX, assign_pixels

PREDICTED = {"outlines": "predicted"}
"""Note of a sample whose outlines no person drew."""

BORDER_PX = 32
"""The image is continued by reflection this far, so that the network does not see its border."""


def outline_points(samples: Sequence[Sample], net: nn.Module, bundle: Bundle, *, path: Path) -> list[Sample]:
    """Give outlines to the samples that have points only.

    Parameters
    ----------
    samples : sequence of Sample
        Those with an instance map, or without nuclei, are returned as they are.
    net : Module
        In evaluation mode.
    bundle : Bundle
        Its mpp, normalisation and thresholds.
    path : Path
        Safetensors file that keeps the instance maps: read where it exists, so that a run that was stopped goes on
        with the same outlines.

    Returns
    -------
    list of Sample
        In the same order; the rows of ``nuclei`` keep their points and get ids.
    """
    pointed = [sample for sample in samples if _has_points_only(sample)]
    if path.exists():
        stored = load_file(path)
    else:
        stored = {_key(sample): _outline(sample, net, bundle) for sample in pointed}
        with atomic_path(path) as temporary:
            save_file(stored, temporary)
    return [_with_outlines(sample, stored[_key(sample)]) if _has_points_only(sample) else sample for sample in samples]


def _has_points_only(sample: Sample) -> bool:
    return sample.instances is None and len(sample.nuclei) > 0


def _key(sample: Sample) -> str:
    return f"{sample.source.name}/{sample.sample_id}"


def _with_outlines(sample: Sample, instances: npt.NDArray[np.int32]) -> Sample:
    nuclei = sample.nuclei.assign(instance_id=np.arange(1, len(sample.nuclei) + 1))
    return replace(sample, nuclei=nuclei, instances=instances, notes={**sample.notes, **PREDICTED})


def _outline(sample: Sample, net: nn.Module, bundle: Bundle) -> npt.NDArray[np.int32]:
    """Let the network say which pixels belong to each point; ids are rows + 1."""
    height, width = sample.image.shape[:2]
    scale = sample.mpp / bundle.mpp
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    foreground, offset = _shape_maps(cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA), net, bundle)
    centres = sample.nuclei[["x_px", "y_px"]].to_numpy() * [size[0] / width, size[1] / height]
    owner = assign_pixels(centres, foreground, offset, rules=bundle.decode)
    areas = np.bincount(owner.ravel(), minlength=len(centres) + 1)
    for row in np.flatnonzero(areas[1:] < bundle.decode.min_area_px):
        disc = np.zeros(owner.shape, np.uint8)
        cv2.circle(disc, tuple(np.floor(centres[row]).astype(int).tolist()), round(POINT_RADIUS_PX), 1, -1)
        owner[(disc > 0) & (owner == 0)] = row + 1
    return resize_labels(owner, (width, height))


def _shape_maps(
    image: npt.NDArray[np.uint8], net: nn.Module, bundle: Bundle
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Give foreground and offsets of an image at the network's mpp."""
    height, width = image.shape[:2]
    place = next(net.parameters()).device
    below, right = (BORDER_PX + (-(side + 2 * BORDER_PX)) % 32 for side in (height, width))
    wide = cv2.copyMakeBorder(image, BORDER_PX, below, BORDER_PX, right, cv2.BORDER_REFLECT_101)
    looking = InferenceNet(net, bundle.mean, bundle.std).to(place)
    with torch.inference_mode(), fast_autocast(place):
        _, _, shape_BKHW = looking(torch.from_numpy(wide[None]).to(place))
    maps = shape_BKHW[0].float().cpu().numpy()
    inner = maps[:, BORDER_PX : BORDER_PX + height, BORDER_PX : BORDER_PX + width]
    return inner[1], inner[2:]
