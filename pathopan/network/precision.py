"""The precision that a machine computes a network fastest in."""

from __future__ import annotations

import torch

FLOAT32 = "float32"
BFLOAT16 = "bfloat16"


def fast_precision(device: str) -> str:
    """Give ``bfloat16`` where the hardware multiplies it, else ``float32``.

    A CPU without AVX512-BF16 only emulates bfloat16 in torch: a convolution took six times as long as in float32
    (measured on an AVX2 machine with torch 2.13).

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda``, or one of several such as ``cuda:1``.
    """
    if device.partition(":")[0] == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = torch.cpu._is_avx512_bf16_supported()  # torch has no public name for it
    return BFLOAT16 if fast else FLOAT32


def fast_autocast(place: torch.device) -> torch.autocast:
    """Let a block of code compute in :func:`fast_precision`; weights and gradients are float32 either way."""
    return torch.autocast(place.type, dtype=torch.bfloat16, enabled=fast_precision(place.type) == BFLOAT16)
