"""CoNSeP: colon H&E tiles with outlined, classified nuclei (Graham et al., HoVer-Net, MedIA 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.sample import Sample, Source, nuclei_of, read_labels, read_rgb, require_folder
from pathopan.errors import UnknownLabel

SOURCE = Source(
    name="CoNSeP",
    licence="Apache-2.0",
    citation="Graham et al., HoVer-Net, Medical Image Analysis 58, 2019",
    organ="colon",
)
MPP = 0.25
CLASSES = {1: "other", 2: "til", 3: "tumor", 4: "stromal"}


def read(root: Path, *, taxonomy: Taxonomy = BREAST) -> Iterator[Sample]:
    """Yield the tiles with outlines and classes; regions are unlabelled.

    The data set's epithelial nuclei, healthy and malignant alike, become ``tumor``; its patients are not published, so
    each tile is its own group.

    Parameters
    ----------
    root : Path
        Folder with ``images/``, ``inst/`` (uint16 instance maps) and ``type/`` (uint8 class of each pixel).
    taxonomy : Taxonomy
        Needs nucleus classes named other, til, tumor and stromal.

    Raises
    ------
    DatasetError
        If a folder or a map is missing.
    UnknownLabel
        If a pixel has a class above 4.
    """
    require_folder(root, "images", "inst", "type")
    lookup = np.zeros(max(CLASSES) + 1, dtype=np.int64)
    for label, name in CLASSES.items():
        lookup[label] = taxonomy.nucleus(name).id
    for path in sorted((root / "images").glob("*.png")):
        instances, kinds = read_labels(root / "inst" / path.name), read_labels(root / "type" / path.name)
        if kinds.max(initial=0) > max(CLASSES):
            msg = f"{root / 'type' / path.name}: unknown class {kinds.max()}; CoNSeP has {CLASSES}"
            raise UnknownLabel(msg)
        yield Sample(
            sample_id=path.stem,
            image=read_rgb(path),
            mpp=MPP,
            group=path.stem,
            source=SOURCE,
            nuclei=nuclei_of(instances, lookup[kinds]),
            instances=instances,
        )
