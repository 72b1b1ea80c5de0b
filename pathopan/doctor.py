"""Is this installation sound: versions, device, runtime, formats, disk, and a slide whose scores are known."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pathopan.attempt import run_slide
from pathopan.check import free_memory
from pathopan.classes import BREAST, Taxonomy
from pathopan.config import Config
from pathopan.datasets.sample import nuclei_of
from pathopan.datasets.synthetic import SyntheticTruth, classes_from_colors, make_slide
from pathopan.errors import PathopanError
from pathopan.inference.runtime import TileMaps, open_runtime
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import DEFAULT_BUNDLE, load_bundle
from pathopan.network.targets import encode
from pathopan.record import SlideRecord, read_json, versions
from pathopan.stages import Engine, Job

SIZE_PX = (1536, 1152)
"""Of the slide that the self-test makes."""

_AREA_TOLERANCE = 0.02  # of a region's area: half a pixel at each border


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    text: str
    sound: bool = True


class TruthRuntime:
    """Answers with the truth: reads classes from the colors of a synthetic slide, whose pieces are the nuclei."""

    name = "truth"
    device = "cpu"
    precision = "float32"
    streams = 2

    def __init__(self, taxonomy: Taxonomy) -> None:
        """Give channels in the order of a taxonomy."""
        self._taxonomy = taxonomy

    def run(self, image_BHW3: npt.NDArray[np.uint8]) -> list[TileMaps]:
        """Look at a batch of read windows."""
        return [self._look(image) for image in image_BHW3]

    def release(self) -> None:
        """Hold nothing."""

    def _look(self, image: npt.NDArray[np.uint8]) -> TileMaps:
        region_id, nucleus_id = classes_from_colors(image)
        instances = ndimage.label(nucleus_id > 0)[0].astype(np.int32)
        target = encode(nuclei_of(instances)[["x_px", "y_px"]].to_numpy(), instances, shape=instances.shape)
        region = np.zeros(region_id.shape, np.uint8)
        for channel, kind in enumerate(self._taxonomy.regions):
            region[region_id == kind.id] = channel
        nucleus = np.stack([nucleus_id == kind.id for kind in self._taxonomy.nuclei]).astype(np.float32)
        shape = np.concatenate([target.centre[None], target.foreground[None], target.offset])
        return TileMaps(region, nucleus, shape.astype(np.float32))


def examine(out: Path, *, bundle: str | Path = DEFAULT_BUNDLE, device: str = "auto") -> Iterator[Finding]:
    """Look at everything that a run needs.

    Parameters
    ----------
    out : Path
        Where results would go: its disk is looked at.
    bundle : str or Path
        The network to load.
    device : str
        ``auto``, ``cpu`` or ``cuda``.

    Yields
    ------
    Finding
        One after the other, as it is found.
    """
    for name, version in versions().items():
        yield Finding(name, version)
    yield Finding("processors", f"{os.cpu_count()}")
    yield Finding("memory", f"{free_memory() / 1e9:.1f} GB free")
    yield _disk(out)
    yield _openslide()
    yield _network(bundle, device)
    yield _self_test()


def _disk(out: Path) -> Finding:
    folder = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    free = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK)
    text = f"{free / 1e9:.1f} GB free under {folder}"
    if not writable or free < 1e9:
        text += f", which {'is too little' if writable else 'cannot be written to'}: choose another --out"
    return Finding("disk", text, writable and free > 1e9)


def _openslide() -> Finding:
    """Have OpenSlide open a slide: its library is loaded, and reads TIFF, of which most formats are kinds."""
    import openslide

    try:
        with tempfile.TemporaryDirectory() as folder:
            made = make_slide(Path(folder) / "slide.tif", size_px=(512, 512), discs_per_kind=0)
            with openslide.OpenSlide(made.path) as handle:
                handle.read_region((0, 0), 0, (64, 64))
    except (openslide.OpenSlideError, OSError) as error:
        return Finding("OpenSlide", f"cannot read a slide: {error}; pip install --force-reinstall openslide-bin", False)
    version = openslide.__library_version__
    return Finding("OpenSlide", f"{version}: SVS, NDPI, MRXS, SCN, BIF, VMS, Philips, Ventana, Zeiss, DICOM, TIFF")


def _network(bundle: str | Path, device: str) -> Finding:
    """Load a network, and have it look at an empty tile."""
    try:
        description, net = load_bundle(bundle)
        runtime = open_runtime(net, description, device=device)
        side = description.step + 2 * description.halo
        empty = np.full((1, side, side, 3), 240, np.uint8)
        runtime.run(empty)
        started = time.monotonic()
        runtime.run(empty)
    except (PathopanError, OSError, RuntimeError) as error:
        return Finding("network", f"{bundle}: {error}", False)
    seconds = time.monotonic() - started
    how = f"{runtime.name} on {runtime.device}, {runtime.precision}"
    return Finding("network", f"{description.name}: {how}, {seconds:.2f} s for a tile of {side} x {side} pixels")


def _self_test() -> Finding:
    """Take a slide with known scores from file to scores, with the truth in the network's place."""
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            wrong = compare_with_truth(Path(folder))
    except (PathopanError, OSError, RuntimeError, ValueError) as error:
        return Finding("self-test", f"stopped with {type(error).__name__}: {error}", False)
    seconds = time.monotonic() - started
    told = "; ".join(wrong) or "a slide with known scores gives just these"
    return Finding("self-test", f"{told} ({seconds:.1f} s)", not wrong)


def compare_with_truth(folder: Path) -> list[str]:
    """Make a slide in a folder, run it, and name what differs from the truth."""
    truth = make_slide(folder / "truth.tif", size_px=SIZE_PX)
    taxonomy = BREAST
    engine = Engine(DEFAULT_BUNDLE, Config(), runtime=TruthRuntime(taxonomy))
    out = folder / "out" / "slides" / "truth"
    out.mkdir(parents=True)
    job = Job(SlideEntry("truth", truth.path), Config(), engine, out)
    record = SlideRecord(out / "record.json", {"slide_id": "truth", "path": str(truth.path)})
    run_slide(job, record, lambda *_: None, run={"taxonomy": taxonomy.to_dict()})
    return list(_differences(read_json(out / "score.json"), truth))


def _differences(score: dict[str, Any], truth: SyntheticTruth) -> Iterator[str]:
    parts, tils, areas = score["compartments"], truth.til_counts, truth.areas_mm2
    known = {
        "tumor": (tils["tumor"], areas["tumor"]),
        "stroma": (tils["stroma"] + tils["tils"], areas["stroma"] + areas["tils"]),
    }
    for name, (count, area) in known.items():
        found = parts[name]
        if found["n_til"] != count:
            yield f"{found['n_til']} TILs in {name}, and there are {count}"
        if abs(found["area_mm2"] - area) > _AREA_TOLERANCE * area:
            yield f"{found['area_mm2']:.4f} mm2 of {name}, and there are {area:.4f}"
