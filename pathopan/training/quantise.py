"""Make a bundle's network in 8 bits, which runs faster on a CPU, and measure what that costs.

Weights and activations are rounded after training (NNCF, https://github.com/openvinotoolkit/nncf): each layer's range
is taken from images that the network was trained on, and its bias is corrected for what the rounding shifts.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pathopan.datasets.sample import Sample
from pathopan.errors import ConfigError, RuntimeUnavailable
from pathopan.files import atomic_path
from pathopan.inference.child import Answer, Child, Tell, unheard
from pathopan.inference.predict import rim_px
from pathopan.inference.runtime import convert_to_openvino
from pathopan.inference.telemetry import without_telemetry
from pathopan.metrics import EvaluationResult, evaluate
from pathopan.network.bundle import Bundle, find_bundle, load_bundle, write_description
from pathopan.network.quantised import INT8_FILES
from pathopan.segment import Segmenter
from pathopan.training.card import write_model_card
from pathopan.training.recipe import Recipe, read_samples, stored_recipe

Image = npt.NDArray[np.uint8]

PATIENCE_S = 7_200.0
"""For all the rounding, of which nothing is heard until it is done."""

MOST_IMAGES = 60
"""Images that ranges are taken from: about a minute of two cores."""

COMPARED = (
    ("detection_f1", "all"),
    ("class_f1", "mean"),
    ("class_f1", "til"),
    ("pq", "all"),
    ("dice", "all"),
    ("derived_region_dice", "tumor"),
    ("derived_region_dice", "stroma"),
)
"""Figures that the network in 8 bits is compared by."""


def quantise_bundle(name_or_path: str | Path, data: Path) -> Bundle:
    """Write ``int8.xml`` and ``int8.bin`` into a bundle, and into its card what they cost.

    Parameters
    ----------
    name_or_path : str or Path
        Of a bundle that pathopan trained: its card holds the recipe, which says what images it learned from.
    data : Path
        Folder with the folders of the recipe's ``sets``.

    Returns
    -------
    Bundle
        As it is now.

    Raises
    ------
    RuntimeUnavailable
        If OpenVINO or NNCF is not installed.
    ConfigError
        If the bundle does not tell its recipe.
    DatasetError
        If its data is not there.
    """
    folder = find_bundle(name_or_path)
    bundle, net = load_bundle(folder)
    recipe = stored_recipe(bundle.card.get("recipe"), bundle.name)
    with closing(Child(start_rounding, patience_s=PATIENCE_S)) as rounder:
        tool = rounder.greeting()
        reported = [sample for sample in read_samples(data, recipe) if sample.source.name in recipe.fold_sources]
        learned = [sample for sample in reported if sample.group not in recipe.hold_out]
        if not learned:
            msg = f"recipe {recipe.name!r} was trained on nothing of {recipe.fold_sources}, which ranges are taken from"
            raise ConfigError(msg)
        chosen, rim = learned[:: math.ceil(len(learned) / MOST_IMAGES)], rim_px(bundle)
        images = [_shown(sample, bundle.mpp, rim) for sample in chosen]
        with atomic_path(folder) as draft:  # a bundle has it when it was measured, or not at all
            shutil.copytree(folder, draft)
            exact = convert_to_openvino(net, bundle, shape=(1, -1, -1, 3), crop=rim, add_up=False)
            _round(rounder, exact, images, draft)
            sums = {name: hashlib.sha256((draft / name).read_bytes()).hexdigest() for name in INT8_FILES}
            told = {"tool": tool, "images": len(images), "weights": bundle.sha256, "sha256": sums, "crop": rim}
            made = replace(bundle, card={**bundle.card, "int8": told})
            write_description(draft, made)
            made = replace(made, card={**made.card, "int8": told | _compare(draft, recipe, reported)})
            write_description(draft, made)
            write_model_card(draft)
    return made


def start_rounding() -> tuple[str, Answer]:
    """Be ready to round networks in a process of its own: NNCF changes torch and logging wherever it is imported."""
    try:
        with without_telemetry():
            import nncf
            import openvino
    except ImportError as error:
        msg = (
            "rounding a network to 8 bits takes OpenVINO, which is made for x86-64, and NNCF; one is not installed: "
            "pip install 'pathopan[int8]'"
        )
        raise RuntimeUnavailable(msg) from error
    nncf.set_log_level(logging.ERROR)

    def answer(request: tuple[str, str, list[Image]], _tell: Tell) -> None:
        exact, rough, images = request
        with without_telemetry():
            model = nncf.quantize(
                openvino.Core().read_model(exact), nncf.Dataset(images, lambda image: image), subset_size=len(images)
            )
        openvino.save_model(model, rough)

    return f"nncf {nncf.__version__}", answer


def _round(rounder: Child, model: Any, images: list[Image], folder: Path) -> None:
    """Write a network of OpenVINO's with its weights and activations rounded to 8 bits."""
    import openvino

    with tempfile.TemporaryDirectory() as temporary:
        exact = Path(temporary, "exact.xml")
        openvino.save_model(model, exact, compress_to_fp16=False)
        rounder.ask((str(exact), str(folder / INT8_FILES[0]), images), unheard)


def _shown(sample: Sample, mpp: float, rim: int) -> Image:
    """Give a sample's picture at an mpp, continued by reflection, as one tile of which the network leaves out a rim."""
    size = [max(32, round(side * sample.mpp / mpp)) for side in sample.image.shape[1::-1]]
    image = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA)
    ends = [(rim, rim + -(side + 2 * rim) % 32) for side in image.shape[:2]]
    return np.pad(image, (*ends, (0, 0)), mode="reflect")[None]


def _compare(folder: Path, recipe: Recipe, samples: Sequence[Sample]) -> dict[str, Any]:
    """Measure both networks: on patients that were held out if there are any, else on those that it was trained on."""
    held_out = [sample for sample in samples if sample.group in recipe.hold_out]
    found = {
        precision: dict(_judge(Segmenter(folder, device="cpu", precision=precision), held_out or samples))
        for precision in ("float32", "int8")
    }
    rows = [{"figure": name, **{p: figures.get(name) for p, figures in found.items()}} for name in found["float32"]]
    seen = "" if held_out else ", which the network was trained on"
    return {"measured_on": f"{len(held_out or samples)} images{seen}", "quality": rows}


def _judge(segmenter: Segmenter, samples: Sequence[Sample]) -> Iterator[tuple[str, float]]:
    for source in sorted({sample.source.name for sample in samples}):
        judged: EvaluationResult = evaluate(
            ((s, segmenter.predict(s)) for s in samples if s.source.name == source), taxonomy=segmenter.bundle.taxonomy
        )
        for metric, name in COMPARED:
            value = judged.value(metric, name)
            if not math.isnan(value):
                yield f"{source} {metric} {name}", round(value, 4)
