"""One pure function per loss term, one weighted sum. Whatever a sample does not label is masked.

Axes: B batch, R regions, N nucleus classes, K shape channels, H, W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pathopan.network.model import PanopticLogits


class Batch(NamedTuple):
    """Images and what is known of them; 0 in a class map and False in a mask mean unknown."""

    image_B3HW: Tensor  # float, normalised
    region_BHW: Tensor  # long, 1-based channel; 0 unknown
    nucleus_BHW: Tensor  # long, 1-based channel; 0 unknown or no nucleus
    centre_BHW: Tensor  # float 0..1
    foreground_BHW: Tensor  # float 0 or 1
    foreground_known_BHW: Tensor  # bool
    offset_B2HW: Tensor  # float
    offset_known_BHW: Tensor  # bool
    centre_known_BHW: Tensor  # bool


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts."""

    centre: float = 8.0
    foreground: float = 1.0
    offset: float = 2.0
    nucleus: float = 1.0
    free_nucleus: float = 0.5
    region: float = 0.7


def centre_loss(logit_BHW: Tensor, target_BHW: Tensor, known_BHW: Tensor) -> Tensor:
    """Cross-entropy weighted by the squared error, so that easy background counts little (Li et al., QFL, 2020).

    Pixels of which nobody knows whether a nucleus is there do not count.
    """
    weight = (logit_BHW.detach().sigmoid() - target_BHW) ** 2
    loss = functional.binary_cross_entropy_with_logits(logit_BHW, target_BHW, reduction="none")
    known = known_BHW.to(logit_BHW.dtype)
    return (weight * loss * known).sum() / (target_BHW * known).sum().clamp(min=50.0)


def foreground_loss(logit_BHW: Tensor, target_BHW: Tensor, known_BHW: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice over the pixels whose foreground is known."""
    known = known_BHW.to(logit_BHW.dtype)
    cross = functional.binary_cross_entropy_with_logits(logit_BHW, target_BHW, reduction="none")
    prob = logit_BHW.sigmoid()
    overlap = (prob * target_BHW * known).sum()
    dice = 1 - (2 * overlap + 1) / (((prob + target_BHW) * known).sum() + 1)
    return (cross * known).sum() / known.sum().clamp(min=1) + dice


def offset_loss(pred_B2HW: Tensor, target_B2HW: Tensor, known_BHW: Tensor) -> Tensor:
    """Mean absolute error, in OFFSET_PX, over the pixels whose nucleus is known."""
    known = known_BHW.unsqueeze(1).to(pred_B2HW.dtype)
    return ((pred_B2HW - target_B2HW).abs() * known).sum() / known.sum().clamp(min=1)


def class_loss(logit_BCHW: Tensor, target_BHW: Tensor, weight_C: Tensor | None = None) -> Tensor:
    """Cross-entropy over pixels with a known class, optionally with class weights."""
    known = target_BHW > 0
    loss = functional.cross_entropy(
        logit_BCHW, (target_BHW - 1).clamp(min=0), weight=weight_C, reduction="none", label_smoothing=0.02
    )
    return (loss * known).sum() / known.sum().clamp(min=1)


def total_loss(
    logits: PanopticLogits,
    free_BNHW: Tensor,
    batch: Batch,
    *,
    weights: LossWeights,
    nucleus_weight_N: Tensor,
) -> tuple[Tensor, dict[str, float]]:
    """Sum the weighted terms.

    Returns
    -------
    loss : scalar tensor
    terms : dict
        Each unweighted term, for the log.
    """
    shape = logits.shape_BKHW.float()
    terms = {
        "centre": centre_loss(shape[:, 0], batch.centre_BHW, batch.centre_known_BHW),
        "foreground": foreground_loss(shape[:, 1], batch.foreground_BHW, batch.foreground_known_BHW),
        "offset": offset_loss(shape[:, 2:], batch.offset_B2HW, batch.offset_known_BHW),
        "nucleus": class_loss(logits.nucleus_BNHW.float(), batch.nucleus_BHW, nucleus_weight_N),
        "free_nucleus": class_loss(free_BNHW.float(), batch.nucleus_BHW, nucleus_weight_N),
        "region": class_loss(logits.region_BRHW.float(), batch.region_BHW),
    }
    loss = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return loss, {name: float(term.detach()) for name, term in terms.items()}
