"""A slide's label maps and picture as another version of OME-NGFF: 0.4 on Zarr 2, or 0.5 on Zarr 3."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import zarr

from pathopan.classes import Taxonomy
from pathopan.files import atomic_path
from pathopan.stitcher.ngff import Version, create_panoptic, open_panoptic


def copy_panoptic(source: Path, target: Path, *, taxonomy: Taxonomy, version: Version) -> None:
    """Copy ``panoptic.ome.zarr``, all levels, to a version of OME-NGFF.

    Parameters
    ----------
    source : Path
        What a run wrote, of either version.
    target : Path
        Folder to write; replaced as a whole, or not at all.
    taxonomy : Taxonomy
        Names and colors of the region classes.
    version : {"0.4", "0.5"}
        Of the copy.

    Raises
    ------
    ResultError
        If the source is missing or damaged.

    Notes
    -----
    Memory: the picture and one chunk. Chunks that are wholly 0 are not written.
    """
    stored = open_panoptic(source)
    height, width = stored.regions[0].shape
    with atomic_path(target) as temporary:
        copy = create_panoptic(
            temporary,
            label_shape=(height, width),
            label_mpp=stored.label_mpp,
            image=np.ascontiguousarray(np.moveaxis(np.asarray(stored.image[0][:]), 0, 2)),
            image_mpp=stored.image_mpp,
            taxonomy=taxonomy,
            version=version,
        )
        for mine, theirs in ((stored.regions, copy.regions), (stored.nuclei, copy.nuclei)):
            for level, other in zip(mine, theirs, strict=True):
                _copy(level, other)


def _copy(source: zarr.Array, target: zarr.Array) -> None:
    """Copy an array chunk by chunk."""
    steps = [range(0, size, step) for size, step in zip(target.shape, target.chunks, strict=True)]
    for row, column in product(*steps):
        place = slice(row, row + target.chunks[0]), slice(column, column + target.chunks[1])
        block = np.asarray(source[place])
        if block.any():
            target[place] = block
