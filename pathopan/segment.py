"""Segment an image in memory: what a notebook and an evaluation need, by the very steps that a slide goes through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
import torch

from pathopan.classes import Taxonomy
from pathopan.config import InferenceConfig
from pathopan.contours import paint
from pathopan.datasets.sample import Sample
from pathopan.geometry import Grid, resize_labels
from pathopan.inference.predict import DecodeTask, predict_tiles
from pathopan.inference.runtime import Runtime, open_runtime
from pathopan.metrics import Prediction
from pathopan.network.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from pathopan.network.flips import FlippedNet
from pathopan.network.quantised import find_quantised
from pathopan.slide import ArraySlide, check_mpp
from pathopan.slide.array import check_rgb
from pathopan.stitcher.nuclei import merge_nuclei
from pathopan.tiler.grid import make_grid
from pathopan.tiler.tissue import TissueMask

SEAM_MARGIN_UM = 3.0
BORDER_UM = 32.0
"""An image is continued by reflection this far, so that nuclei at its border are not judged against white."""


@dataclass(frozen=True)
class Segmentation:
    """The panoptic output of one image, in the image's own pixels."""

    nuclei: gpd.GeoDataFrame  # nucleus_id, class_id, prob, prob_<class>, hematoxylin_mean, geometry in image pixels
    instances: npt.NDArray[np.int32]  # (Y, X) nucleus_id; 0 is none
    region: npt.NDArray[np.uint8]  # (Y, X) region class id
    taxonomy: Taxonomy


class Segmenter:
    """A network that segments images of any size in memory.

    Parameters
    ----------
    bundle : str or Path
        Name or folder of a bundle.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    precision : str
        ``auto``, ``float32`` or ``bfloat16``, by torch; ``int8`` by OpenVINO.
    mirrored : bool
        Average four mirror images: finds a little more, at four times the cost.

    Attributes
    ----------
    bundle : Bundle
        Description of the network.
    name : str
        The bundle's name, and how it runs where that is not as usual: ``breast-he-11, mirrored``.

    Raises
    ------
    ConfigError
        If mirror images are asked for in int8.

    Examples
    --------
    >>> Segmenter()(image, mpp=0.5).nuclei                                  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: str | Path = DEFAULT_BUNDLE,
        *,
        device: str = "auto",
        precision: str = "auto",
        mirrored: bool = False,
    ) -> None:
        InferenceConfig(precision=precision, mirrored=mirrored)  # refuses what cannot be
        description, net = load_bundle(bundle)
        net = FlippedNet(net) if mirrored else net
        self.bundle = description
        how = ["mirrored"] * mirrored + [precision] * (precision != "auto")
        self.name = ", ".join([description.name, *how])
        quantised = find_quantised(bundle) if precision == "int8" else None
        runtime = "torch" if quantised is None else "openvino"
        self.runtime = open_runtime(
            net, description, device=device, runtime=runtime, precision=precision, quantised=quantised
        )

    @classmethod
    def of(cls, net: torch.nn.Module, bundle: Bundle, *, device: str = "auto") -> Segmenter:
        """Wrap a network that is not a bundle on disk yet."""
        segmenter = cls.__new__(cls)
        segmenter.bundle, segmenter.name = bundle, bundle.name
        segmenter.runtime = open_runtime(net.eval(), bundle, device=device, runtime="torch")
        return segmenter

    def __call__(self, image: npt.NDArray[np.uint8], mpp: float) -> Segmentation:
        """Segment (Y, X, 3) uint8 RGB at ``mpp`` micrometres per pixel.

        Raises
        ------
        UpsamplingRefused
            If the image is much coarser than the network's mpp.
        ShapeMismatch
            If it is no RGB image.
        """
        check_rgb(image)
        border = min(round(BORDER_UM / mpp), min(image.shape[:2]) - 1)
        wide = np.pad(image, ((border, border), (border, border), (0, 0)), mode="reflect")
        slide = ArraySlide(wide, mpp=mpp, slide_id="image")
        check_mpp(slide.info, self.bundle.mpp)
        grid = _grid(slide, self.bundle)
        nuclei, region = _run(slide, grid, self.bundle, self.runtime)
        scale = self.bundle.mpp / mpp
        shapes = shapely.transform(nuclei.geometry.to_numpy(), lambda xy: xy * scale - border)
        nuclei = gpd.GeoDataFrame(nuclei.drop(columns="geometry"), geometry=shapes, crs=None)
        shape = (image.shape[0], image.shape[1])
        centre = shapely.get_coordinates(shapely.centroid(shapes)).reshape(-1, 2)
        inside = ((centre >= 0) & (centre < [shape[1], shape[0]])).all(axis=1)
        nuclei = nuclei[inside].reset_index(drop=True)
        nuclei["nucleus_id"] = np.arange(1, len(nuclei) + 1)
        return Segmentation(
            nuclei=nuclei,
            instances=paint(zip(nuclei.geometry, nuclei["nucleus_id"].tolist(), strict=True), shape=shape),
            region=_resized(region, wide.shape[:2], scale)[border : border + shape[0], border : border + shape[1]],
            taxonomy=self.bundle.taxonomy,
        )

    def predict(self, sample: Sample) -> Prediction:
        """Segment a data set's sample, in the form that evaluation takes, with the probabilities of each nucleus."""
        found = self(sample.image, sample.mpp)
        centre = shapely.get_coordinates(shapely.centroid(found.nuclei.geometry.to_numpy())).reshape(-1, 2)
        nuclei = pd.DataFrame(
            {
                "x_px": centre[:, 0],
                "y_px": centre[:, 1],
                "class_id": found.nuclei["class_id"].to_numpy(),
                "instance_id": found.nuclei["nucleus_id"].to_numpy(),
                **{name: found.nuclei[name].to_numpy() for name in found.nuclei.columns if name.startswith("prob")},
            }
        )
        return Prediction(nuclei, instances=found.instances, region=found.region)


def _grid(slide: ArraySlide, bundle: Bundle) -> Grid:
    """Lay a grid of one tile over a small image, of the bundle's tiles over a large one.

    A single tile has no seams: its halo sees nothing but white, and a narrow one is enough.
    """
    longest = max(slide.info.size_px(bundle.mpp))
    if longest <= bundle.step:
        return make_grid(slide.info, mpp=bundle.mpp, step=-(-longest // 32) * 32, halo=min(bundle.halo, 64))
    step, halo = bundle.step, bundle.halo
    return make_grid(slide.info, mpp=bundle.mpp, step=step, halo=halo)


def _run(
    slide: ArraySlide, grid: Grid, bundle: Bundle, runtime: Runtime
) -> tuple[gpd.GeoDataFrame, npt.NDArray[np.uint8]]:
    everywhere = TissueMask(np.ones((1, 1), dtype=bool), mpp=grid.mpp * max(grid.size) + 1)
    margin = SEAM_MARGIN_UM / grid.mpp
    task = DecodeTask(grid, bundle.taxonomy, everywhere, bundle.decode, seam_margin_px=margin)
    predictions = list(predict_tiles(lambda: slide, runtime, grid, task=task, workers=0))
    region = np.zeros((grid.size[1], grid.size[0]), dtype=np.uint8)
    for prediction in predictions:
        inside = prediction.tile.write.intersect(grid.plane)
        region[inside.slices] = prediction.region[inside.relative_to(prediction.tile.write).slices]
    tables = [prediction.nuclei for prediction in predictions]
    found = gpd.GeoDataFrame(pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True), crs=None)
    return merge_nuclei(found, grid, margin_px=margin), region


def _resized(region: npt.NDArray[np.uint8], shape: tuple[int, int], scale: float) -> npt.NDArray[np.uint8]:
    """Bring a region map to the image's pixels; the grid's last pixel may reach over the image's border."""
    size = (max(1, round(region.shape[1] * scale)), max(1, round(region.shape[0] * scale)))
    wide = resize_labels(region, size)
    missing = [(0, max(0, want - have)) for want, have in zip(shape, wide.shape, strict=True)]
    return np.asarray(np.pad(wide, missing, mode="edge")[: shape[0], : shape[1]], dtype=np.uint8)
