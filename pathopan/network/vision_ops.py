"""Let torchvision import beside a torch that it was not compiled for.

A CPU build of torch next to a CUDA build of torchvision cannot load torchvision's compiled operators, and
``import torchvision`` (so timm and segmentation_models_pytorch) stops: ``operator torchvision::nms does not exist``.
pathopan needs none of those operators, so declaring the missing schemas is enough. Where they exist nothing is done.
"""

from __future__ import annotations

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[torch.library.Library] = []  # a schema lives only as long as its Library object


def declare_missing_operators() -> None:
    """Declare torchvision's operators if, and only if, importing torchvision fails for want of them."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
                library.define(schema)
        _kept.append(library)
        import torchvision  # noqa: F401
