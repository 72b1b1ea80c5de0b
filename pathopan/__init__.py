"""pathopan: whole-slide panoptic segmentation of breast cancer H&E, and TIL scores. For research use only.

::

    slide  →  tiler  →  network  →  inference  →  stitcher  →  objects  →  scores  →  export
    pixels    where     the joint    stream        merged       nuclei &    sTIL,      GeoJSON, OME-Zarr,
    at an     to look   panoptic     tiles         region map   regions     iTIL       GeoParquet, QuPath,
    mpp                 net          through it    + nuclei     as tables              report.html

    workshop (beside the line):  datasets → training → a bundle          metrics: PQ, Dice, agreement

>>> import pathopan
>>> result = pathopan.run(["slides/"], "results")            # doctest: +SKIP
>>> result.scores                                            # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathopan import plot
    from pathopan.api import demo, run, score
    from pathopan.classes import BREAST, Taxonomy
    from pathopan.config import Config, load_config
    from pathopan.datasets import Sample, Source, read_dataset
    from pathopan.errors import PathopanError
    from pathopan.metrics import agreement, evaluate, match_instances
    from pathopan.result import Result, open_result
    from pathopan.segment import Segmenter
    from pathopan.slide import open_slide
    from pathopan.training.finish import write_bundle
    from pathopan.training.recipe import Recipe
    from pathopan.training.train import train

__version__ = "0.1.0"

_HOMES = {
    "BREAST": "pathopan.classes",
    "Config": "pathopan.config",
    "PathopanError": "pathopan.errors",
    "Recipe": "pathopan.training.recipe",
    "Result": "pathopan.result",
    "Sample": "pathopan.datasets",
    "Segmenter": "pathopan.segment",
    "Source": "pathopan.datasets",
    "Taxonomy": "pathopan.classes",
    "agreement": "pathopan.metrics",
    "demo": "pathopan.api",
    "evaluate": "pathopan.metrics",
    "load_config": "pathopan.config",
    "match_instances": "pathopan.metrics",
    "open_result": "pathopan.result",
    "open_slide": "pathopan.slide",
    "read_dataset": "pathopan.datasets",
    "run": "pathopan.api",
    "score": "pathopan.api",
    "train": "pathopan.training.train",
    "write_bundle": "pathopan.training.finish",
}

__all__ = [
    "BREAST",
    "Config",
    "PathopanError",
    "Recipe",
    "Result",
    "Sample",
    "Segmenter",
    "Source",
    "Taxonomy",
    "agreement",
    "demo",
    "evaluate",
    "load_config",
    "match_instances",
    "open_result",
    "open_slide",
    "plot",
    "read_dataset",
    "run",
    "score",
    "train",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that reading results needs no torch."""
    if name == "plot":
        return importlib.import_module("pathopan.plot")
    if name not in _HOMES:
        msg = f"module 'pathopan' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
