"""Samples to batches. Batch ``k`` is a pure function of (samples, settings, seed, k), so training resumes exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pathopan.classes import Taxonomy
from pathopan.datasets.sample import Sample
from pathopan.errors import ConfigError
from pathopan.geometry import resize_labels
from pathopan.network.losses import Batch
from pathopan.network.targets import FAR_RADIUS_PX, encode
from pathopan.training.augment import bare_glass, jitter_focus, jitter_light, jitter_stain, paint_artefact

PixelT = TypeVar("PixelT", bound=np.generic)

_GLASS_LEVEL = 240
"""Gray of what lies beyond a small image."""


@dataclass(frozen=True)
class CropRules:
    """How crops are drawn; lengths in pixels at the network's mpp."""

    mpp: float = 0.5
    side: int = 256
    batch_size: int = 8
    seed: int = 0
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    artefact_share: float = 0.2  # of crops
    glass_share: float = 0.03  # of crops
    stain_strength: float = 0.3
    density: tuple[float, float] = (1.0, 1.0)  # range of the factor on all stains alike
    stain_hue: float = 0.0


@dataclass(frozen=True)
class Crop:
    """A square of a sample at the network's mpp, before augmentation of its colours."""

    image: npt.NDArray[np.uint8]
    centres_xy: npt.NDArray[np.float64]
    class_channel: npt.NDArray[np.int64]  # (N,) 1-based channel of each nucleus; 0 unknown
    instances: npt.NDArray[np.int32] | None  # ids are rows + 1
    region: npt.NDArray[np.uint8]  # region class id; 0 unknown
    complete: bool = True  # every nucleus is labelled; if not, what lies between the labelled ones teaches nothing
    drawn: bool = True  # the outlines are a person's; predicted ones tell only which pixels share a nucleus's class
    coverage: npt.NDArray[np.float32] | None = None  # share of each pixel that lies within drawn outlines


class CropStream(IterableDataset[Batch]):
    """Batches ``start, start + 1, ...`` without end; workers take turns.

    Parameters
    ----------
    samples : sequence of Sample
        With regions where they are known.
    shares : mapping of str to float
        Source name -> share of crops; sources without one are not drawn.
    scales : mapping of str to (float, float)
        Source name -> range of the zoom applied on top of the mpp.
    taxonomy : Taxonomy
        Order of the channels.
    rules : CropRules
        Sizes and strengths.
    start : int
        First batch.

    Raises
    ------
    ConfigError
        If no sample is of a source with a share.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        shares: Mapping[str, float],
        *,
        scales: Mapping[str, tuple[float, float]],
        taxonomy: Taxonomy,
        rules: CropRules,
        start: int = 0,
    ) -> None:
        super().__init__()
        self.pools = {name: [s for s in samples if s.source.name == name] for name in shares}
        self.shares = {name: share for name, share in shares.items() if self.pools[name]}
        if not self.shares:
            msg = f"no sample is left to train on: the recipe draws from {sorted(shares)}, less the groups it holds out"
            raise ConfigError(msg)
        self.scales = scales
        self.taxonomy = taxonomy
        self.rules = rules
        self.start = start

    def __iter__(self) -> Iterator[Batch]:
        """Yield this worker's share of the batches, in order."""
        cv2.setNumThreads(1)
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        index = self.start + first
        while True:
            yield self.batch(index)
            index += step

    def batch(self, index: int) -> Batch:
        """Build batch number ``index``."""
        rng = np.random.default_rng((self.rules.seed, index))
        items = [self._item(rng) for _ in range(self.rules.batch_size)]
        return Batch(*(torch.stack(parts) for parts in zip(*items, strict=True)))

    def _item(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        names = list(self.shares)
        weights = np.array([self.shares[name] for name in names])
        name = names[rng.choice(len(names), p=weights / weights.sum())]
        pool = self.pools[name]
        crop = draw_crop(
            pool[rng.integers(len(pool))],
            rng,
            rules=self.rules,
            zoom=self.scales.get(name, (0.8, 1.25)),
            taxonomy=self.taxonomy,
        )
        return to_tensors(crop, rng, rules=self.rules, taxonomy=self.taxonomy)


def draw_crop(
    sample: Sample, rng: np.random.Generator, *, rules: CropRules, zoom: tuple[float, float], taxonomy: Taxonomy
) -> Crop:
    """Cut a random square, resample it to the network's mpp times a random zoom, flip and turn it.

    An image that is too small for the square is filled up with glass, not magnified: nuclei keep their size.
    """
    scale = sample.mpp / rules.mpp * float(np.exp(rng.uniform(*np.log(zoom))))
    height, width = sample.image.shape[:2]
    wanted = round(rules.side / scale)
    cut_x, cut_y = min(wanted, width), min(wanted, height)
    x, y = int(rng.integers(width - cut_x + 1)), int(rng.integers(height - cut_y + 1))
    scale, window = rules.side / wanted, np.s_[y : y + cut_y, x : x + cut_x]
    size = (max(1, round(cut_x * scale)), max(1, round(cut_y * scale)))
    flips, turns = int(rng.integers(2)), int(rng.integers(4))

    def turned(array: npt.NDArray[PixelT], glass: int) -> npt.NDArray[PixelT]:
        beyond = [(0, rules.side - array.shape[0]), (0, rules.side - array.shape[1]), (0, 0)][: array.ndim]
        array = np.pad(array, beyond, constant_values=glass)
        return np.ascontiguousarray(np.rot90(array[:, ::-1] if flips else array, turns))

    image = cv2.resize(sample.image[window], size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    region = np.zeros(size[::-1], np.uint8)
    if sample.region is not None:
        region = resize_labels(sample.region[window], size)
    points = (sample.nuclei[["x_px", "y_px"]].to_numpy() - [x, y]) * scale
    inside = ((points > -FAR_RADIUS_PX) & (points < rules.side + FAR_RADIUS_PX)).all(axis=1)
    centres, rows = _turn_points(points[inside], flips, turns, rules.side), np.flatnonzero(inside)
    instances, coverage, drawn = None, None, "outlines" not in sample.notes
    if sample.instances is not None:
        lookup = np.zeros(int(sample.instances.max(initial=0)) + 1, np.int32)
        lookup[sample.nuclei["instance_id"].to_numpy()[rows]] = np.arange(1, len(rows) + 1)
        lookup[0] = 0  # nuclei with a point and no outline all say 0, and so does the background
        outlined = lookup[sample.instances[window]]
        instances = turned(resize_labels(outlined, size), 0)
        if drawn:
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            coverage = turned(cv2.resize((outlined > 0).astype(np.float32), size, interpolation=how), 0)
    channels = np.zeros(256, np.int64)
    for channel, nucleus in enumerate(taxonomy.nuclei, start=1):
        channels[nucleus.id] = channel
    return Crop(
        image=turned(image, _GLASS_LEVEL),
        centres_xy=centres,
        class_channel=channels[sample.nuclei["class_id"].to_numpy()[rows]],
        instances=instances,
        coverage=coverage,
        region=turned(region, taxonomy.region_ids("background")[0]),
        complete=sample.labelled_nuclei is None,
        drawn=drawn,
    )


def _turn_points(points: npt.NDArray[np.float64], flips: int, turns: int, side: int) -> npt.NDArray[np.float64]:
    """Move points as ``np.rot90(array[:, ::-1], turns)`` moves pixels."""
    x, y = points.T
    if flips:
        x = side - x
    for _ in range(turns):
        x, y = y, side - x
    return np.stack([x, y], axis=1)


def to_tensors(
    crop: Crop, rng: np.random.Generator, *, rules: CropRules, taxonomy: Taxonomy
) -> tuple[torch.Tensor, ...]:
    """Augment a crop's colours, hide some of it behind artefacts, and encode what is known of it."""
    shape = encode(crop.centres_xy, crop.instances if crop.drawn else None, shape=(rules.side, rules.side))
    foreground = shape.foreground if crop.coverage is None else crop.coverage
    owner = shape.nucleus if crop.instances is None else crop.instances
    image, painted = _recolored(crop.image, rng, rules=rules, taxonomy=taxonomy)
    hidden = painted > 0
    known = np.ones_like(hidden) if crop.complete else (shape.nucleus > 0) | hidden
    channels = _region_channels(taxonomy)
    region = channels[np.where(hidden, painted, crop.region)]
    nucleus = np.where(hidden, 0, np.concatenate([[0], crop.class_channel])[owner])
    pixels = (image.astype(np.float32) / 255 - np.array(rules.mean, np.float32)) / np.array(rules.std, np.float32)
    arrays = (
        pixels.transpose(2, 0, 1),
        region,
        nucleus,
        np.where(hidden, np.float32(0), shape.centre),
        np.where(hidden, np.float32(0), foreground),
        (shape.foreground_known | hidden) & known,
        shape.offset,
        shape.offset_known & ~hidden,
        known,
    )
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)


def _recolored(
    image: npt.NDArray[np.uint8], rng: np.random.Generator, *, rules: CropRules, taxonomy: Taxonomy
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Change the colours; sometimes show bare glass or an artefact instead, and say where: region id, 0 as before."""
    painted = np.zeros(image.shape[:2], dtype=np.uint8)
    luck, on_glass = rng.random(), rng.random() < 0.25
    artefact = luck >= rules.glass_share and luck < rules.glass_share + rules.artefact_share
    if luck < rules.glass_share or (artefact and on_glass):
        image = bare_glass(rules.side, rng)
        painted[:] = taxonomy.region_ids("background")[0]
    else:
        image = jitter_stain(image, rng, strength=rules.stain_strength, density=rules.density, hue=rules.stain_hue)
        image = jitter_light(image, rng)
    if artefact:
        image, covered = paint_artefact(image, rng)
        painted[covered] = taxonomy.region_ids("other")[0]
    return jitter_focus(image, rng), painted


def _region_channels(taxonomy: Taxonomy) -> npt.NDArray[np.int64]:
    lookup = np.zeros(256, np.int64)
    for channel, kind in enumerate(taxonomy.regions, start=1):
        lookup[kind.id] = channel
    return lookup
