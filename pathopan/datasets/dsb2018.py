"""Stained-tissue images of the Data Science Bowl 2018, stage 1 (Caicedo et al., Nature Methods 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pathopan.datasets.files import list_files
from pathopan.datasets.sample import Sample, Source, nuclei_of, read_labels, read_rgb, require_folder
from pathopan.errors import DatasetError

SOURCE = Source(
    name="DSB2018",
    licence="CC0-1.0",
    citation="Caicedo et al., Nucleus segmentation across imaging experiments, Nature Methods 16, 2019",
    organ="mixed",
)
TYPICAL_NUCLEUS_UM2 = 40.0
"""Median nuclear area that each image is assumed to have, since the set does not state its mpp."""


def read(root: Path) -> Iterator[Sample]:
    """Yield the images of stained tissue with outlines; classes and regions are unlabelled, and the mpp is estimated.

    The set mixes unknown magnifications, so ``mpp`` is set such that the image's median nucleus has
    ``TYPICAL_NUCLEUS_UM2``; ``notes`` says so.

    Parameters
    ----------
    root : Path
        As published, ``ID/images/ID.png`` with one mask a nucleus in ``ID/masks/``, of which gray images (fluorescence)
        are left out; or ``images/`` and ``inst/`` (instance maps), equal names.

    Raises
    ------
    DatasetError
        If a folder, an image or a map is missing, or there is no image of stained tissue.
    """
    require_folder(root)
    published = sorted(root.glob("*/images/*.png"))
    count = 0
    for path in published:
        image = read_rgb(path)
        if (image == image[..., :1]).all():
            continue
        count += 1
        yield _sample(path, image, _join_masks(path.parents[1] / "masks", image.shape[:2]))
    if published:
        if count == 0:
            msg = f"{root}: all {len(published)} images are gray; stained tissue is in color"
            raise DatasetError(msg)
        return
    require_folder(root, "images", "inst")
    for path in list_files(root / "images", "*.png"):
        yield _sample(path, read_rgb(path), read_labels(root / "inst" / path.name))


def _join_masks(folder: Path, shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Make one instance map of masks that do not overlap, numbered in the order of their names."""
    instances = np.zeros(shape, dtype=np.int32)
    for number, path in enumerate(list_files(folder, "*.png"), start=1):
        mask = read_labels(path)
        if mask.shape != shape:
            msg = f"{path}: is {mask.shape}, its image {shape}"
            raise DatasetError(msg)
        instances[mask > 0] = number
    return instances


def _sample(path: Path, image: npt.NDArray[np.uint8], instances: npt.NDArray[np.int32]) -> Sample:
    areas = np.bincount(instances.ravel())[1:]
    median = float(np.median(areas[areas > 0])) if (areas > 0).any() else TYPICAL_NUCLEUS_UM2 * 4
    return Sample(
        sample_id=path.stem,
        image=image,
        mpp=float(np.clip(np.sqrt(TYPICAL_NUCLEUS_UM2 / median), 0.2, 1.0)),
        group=path.stem,
        source=SOURCE,
        nuclei=nuclei_of(instances),
        instances=instances,
        notes={"mpp": "estimated from the median nuclear area"},
    )
