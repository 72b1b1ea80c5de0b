"""Stained-tissue images of the Data Science Bowl 2018, stage 1 (Caicedo et al., Nature Methods 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pathopan.datasets.sample import Sample, Source, nuclei_of, read_labels, read_rgb, require_folder

SOURCE = Source(
    name="DSB2018",
    licence="CC0-1.0",
    citation="Caicedo et al., Nucleus segmentation across imaging experiments, Nature Methods 16, 2019",
    organ="mixed",
)
TYPICAL_NUCLEUS_UM2 = 40.0
"""Median nuclear area that each image is assumed to have, since the set does not state its mpp."""


def read(root: Path) -> Iterator[Sample]:
    """Yield the images with outlines; classes and regions are unlabelled, and the mpp is estimated.

    The set mixes unknown magnifications, so ``mpp`` is set such that the image's median nucleus has
    ``TYPICAL_NUCLEUS_UM2``; ``notes`` says so.

    Parameters
    ----------
    root : Path
        Folder with ``images/`` and ``inst/`` (instance maps), equal names.

    Raises
    ------
    DatasetError
        If a folder or a map is missing.
    """
    require_folder(root, "images", "inst")
    for path in sorted((root / "images").glob("*.png")):
        instances = read_labels(root / "inst" / path.name)
        areas = np.bincount(instances.ravel())[1:]
        median = float(np.median(areas[areas > 0])) if (areas > 0).any() else TYPICAL_NUCLEUS_UM2 * 4
        yield Sample(
            sample_id=path.stem,
            image=read_rgb(path),
            mpp=float(np.clip(np.sqrt(TYPICAL_NUCLEUS_UM2 / median), 0.2, 1.0)),
            group=path.stem,
            source=SOURCE,
            nuclei=nuclei_of(instances),
            instances=instances,
            notes={"mpp": "estimated from the median nuclear area"},
        )
