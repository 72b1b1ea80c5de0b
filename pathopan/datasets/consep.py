"""CoNSeP: colon H&E tiles with outlined, classified nuclei (Graham et al., HoVer-Net, MedIA 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.files import list_files, partner, read_mat
from pathopan.datasets.labels import resolve
from pathopan.datasets.sample import Sample, Source, nuclei_of, read_labels, read_rgb, require_folder
from pathopan.errors import DatasetError, UnknownLabel

SOURCE = Source(
    name="CoNSeP",
    licence="Apache-2.0",
    citation="Graham et al., HoVer-Net, Medical Image Analysis 58, 2019",
    organ="colon",
)
MPP = 0.25
CLASSES = {1: "other", 2: "til", 3: "tumor", 4: "stromal"}
"""Of the merged types, as HoVer-Net's authors evaluate them."""
PUBLISHED_CLASSES = {
    1: "other",
    2: "til",  # inflammatory
    3: "tumor",  # healthy epithelium: HoVer-Net's authors merge it with the malignant, and so do the merged types
    4: "tumor",  # dysplastic and malignant epithelium
    5: "stromal",  # fibroblast
    6: "stromal",  # muscle
    7: "stromal",  # endothelium
}
"""Of ``type_map`` in the published MAT files."""


def read(root: Path, *, taxonomy: Taxonomy = BREAST) -> Iterator[Sample]:
    """Yield the tiles with outlines and classes; regions are unlabelled.

    The data set's epithelial nuclei, healthy and malignant alike, become ``tumor``; its patients are not published, so
    each tile is its own group.

    Parameters
    ----------
    root : Path
        As published, ``Train/Images/NAME.png`` with ``Train/Labels/NAME.mat`` (``inst_map``, ``type_map`` of seven
        types) and ``Test`` likewise, one of both being enough; or ``images/`` with ``inst/`` (uint16 instance maps) and
        ``type/`` (uint8, four merged types).
    taxonomy : Taxonomy
        Classes are found by name, then by role.

    Raises
    ------
    DatasetError
        If a folder, an image or a map is missing, or a map is of another size than its image.
    UnknownLabel
        If a pixel has a type that the set does not have.
    """
    published = [root / part for part in ("Train", "Test") if (root / part).is_dir()]
    for part in published:
        require_folder(part, "Images", "Labels")
        for path in list_files(part / "Images", "*.png"):
            labels = partner(path, folder=part / "Labels", suffix=".mat")
            inst_map, kinds = read_mat(labels, "inst_map", "type_map")
            yield _sample(path, inst_map, _class_map(kinds, PUBLISHED_CLASSES, labels, taxonomy), where=labels)
    if published:
        return
    require_folder(root, "images", "inst", "type")
    for path in list_files(root / "images", "*.png"):
        instances, merged = read_labels(root / "inst" / path.name), read_labels(root / "type" / path.name)
        classes = _class_map(merged, CLASSES, root / "type" / path.name, taxonomy)
        yield _sample(path, instances, classes, where=root / "inst" / path.name)


def _class_map(
    kinds: npt.NDArray[np.integer], names: Mapping[int, str], path: Path, taxonomy: Taxonomy
) -> npt.NDArray[np.int64]:
    if kinds.max(initial=0) > max(names) or kinds.min(initial=0) < 0:
        msg = f"{path}: unknown class {max(kinds.max(), -kinds.min())}; CoNSeP has {names}"
        raise UnknownLabel(msg)
    lookup = np.zeros(max(names) + 1, dtype=np.int64)
    for label, name in names.items():
        lookup[label] = resolve((name,), taxonomy.nuclei)
    return lookup[kinds]


def _sample(path: Path, inst_map: npt.NDArray[np.integer], classes: npt.NDArray[np.int64], *, where: Path) -> Sample:
    image, instances = read_rgb(path), inst_map.astype(np.int32)
    if not image.shape[:2] == instances.shape == classes.shape:
        msg = f"{where}: instances are {instances.shape} and classes {classes.shape}, the image {image.shape[:2]}"
        raise DatasetError(msg)
    return Sample(
        sample_id=path.stem,
        image=image,
        mpp=MPP,
        group=path.stem,
        source=SOURCE,
        nuclei=nuclei_of(instances, classes),
        instances=instances,
    )
