"""Mean teacher: a network learns also from what the moving average of its weights says of a mirror image.

What a network says depends on how an image lies, though nothing in tissue does. The moving average of its weights is
the steadier of the two (Tarvainen & Valpola, NeurIPS 2017); seen in one of the eight ways to lay down a square, drawn
anew at each step, it stands for the average over all eight, which is better than any single one and costs eight times
as much. The network that learns from it comes closer to that average in one look.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pathopan.network.flips import FLIPS, look
from pathopan.network.losses import LossWeights, centre_loss, foreground_loss, offset_loss
from pathopan.network.model import PanopticLogits


def teach(average: nn.Module, image_B3HW: Tensor, rng: np.random.Generator) -> PanopticLogits:
    """Let the moving average look at images in one of eight ways, all alike.

    Parameters
    ----------
    average : Module
        ``forward(image_B3HW) -> PanopticLogits``; its mode is the same after as before.
    image_B3HW : tensor
        Squares, normalised.
    rng : Generator
        Chooses the way.
    """
    axes, swapped = FLIPS[int(rng.integers(len(FLIPS)))], bool(rng.integers(2))
    was_training = average.training
    average.eval()
    with torch.no_grad():
        taught = look(average, image_B3HW, axes, swapped=swapped)
    average.train(was_training)
    return PanopticLogits(*(maps.float() for maps in taught))


def consistency_loss(logits: PanopticLogits, taught: PanopticLogits, *, weights: LossWeights) -> Tensor:
    """Compare a network with its teacher: the terms of the labels' loss, with the teacher's probabilities as labels.

    Offsets and the classes of nuclei count where the teacher sees a nucleus.

    Parameters
    ----------
    logits, taught : PanopticLogits
        Of the network and of its teacher.
    weights : LossWeights
        How much each term counts; ``free_nucleus`` has none.
    """
    shape = logits.shape_BKHW.float()
    goal = taught.shape_BKHW[:, :2].sigmoid()
    everywhere = torch.ones_like(goal[:, 0], dtype=torch.bool)
    nucleus = goal[:, 1] > 0.5
    return (
        weights.centre * centre_loss(shape[:, 0], goal[:, 0], everywhere)
        + weights.foreground * foreground_loss(shape[:, 1], goal[:, 1], everywhere)
        + weights.offset * offset_loss(shape[:, 2:], taught.shape_BKHW[:, 2:], nucleus)
        + weights.nucleus * _soft_class_loss(logits.nucleus_BNHW.float(), taught.nucleus_BNHW, nucleus)
        + weights.region * _soft_class_loss(logits.region_BRHW.float(), taught.region_BRHW, everywhere)
    )


def _soft_class_loss(logit_BCHW: Tensor, taught_BCHW: Tensor, known_BHW: Tensor) -> Tensor:
    """Cross-entropy against probabilities, over known pixels."""
    loss = functional.cross_entropy(logit_BCHW, taught_BCHW.softmax(dim=1), reduction="none")
    return (loss * known_BHW).sum() / known_BHW.sum().clamp(min=1)
