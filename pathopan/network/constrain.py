"""Region-nucleus compatibility: what the tissue says about the kinds of nuclei in it. The joint part of the network.

Axes: B batch, R regions, N nucleus classes, H, W.

MuTILs multiplies two raw logits, so that two denials make a yes, and forbids lymphocytes inside tumor. Here the tissue
gives a *prior*: ``p(n) = sum_r p(r) p(n | r)``, with ``p(n | r)`` learned and never below ``FLOOR / N``. Its logarithm
is added to the nucleus logits, so evidence and prior multiply as probabilities do; no pair is impossible, and a class
that both deny stays denied.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOOR = 0.05
"""Share of the prior that is uniform, whatever the tissue: a bound on what a region can hold against a nucleus."""


class Compatibility(nn.Module):
    """Add the tissue's log prior to nucleus logits.

    Parameters
    ----------
    regions, nuclei : int
        Numbers of classes.
    """

    def __init__(self, regions: int, nuclei: int) -> None:
        super().__init__()
        self.weight_NR = nn.Parameter(torch.zeros(nuclei, regions))

    def prior_NR(self) -> Tensor:
        """Give p(nucleus class | region class), (N, R); columns sum to 1."""
        nuclei = self.weight_NR.shape[0]
        return (1 - FLOOR) * self.weight_NR.softmax(dim=0) + FLOOR / nuclei

    def forward(self, region_BRHW: Tensor, nucleus_BNHW: Tensor) -> Tensor:
        """Return constrained nucleus logits, (B, N, H, W).

        The region logits are detached: nuclei inform the region head only through shared features, so that a wrong
        nucleus label cannot move a region border.
        """
        region_probs = region_BRHW.detach().softmax(dim=1)
        prior = torch.einsum("nr,brhw->bnhw", self.prior_NR().to(region_probs.dtype), region_probs)
        return nucleus_BNHW + prior.log()
