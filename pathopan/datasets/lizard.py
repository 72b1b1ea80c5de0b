"""Lizard and CoNIC: nuclei of the colon at x20 (Graham et al., ICCV Workshops 2021; Medical Image Analysis 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.files import first_existing, list_files, load_array, read_mat, read_table, require_size
from pathopan.datasets.labels import resolve
from pathopan.datasets.sample import Sample, Source, nuclei_of, read_rgb, require_folder
from pathopan.errors import DatasetError, UnknownLabel

LIZARD = Source(
    name="Lizard",
    licence="CC-BY-NC-SA-4.0",
    citation="Graham et al., Lizard: A Large-Scale Dataset for Colonic Nuclear Instance Segmentation and "
    "Classification, ICCV Workshops 2021",
    organ="colon",
)
CONIC = Source(
    name="CoNIC",
    licence="CC-BY-NC-SA-4.0",
    citation="Graham et al., CoNIC Challenge, Medical Image Analysis 92, 2024",
    organ="colon",
)
MPP = 0.5
CLASSES: dict[int, tuple[str, ...]] = {
    0: (),
    1: ("granulocyte", "other"),  # neutrophil
    2: ("tumor",),  # epithelial, healthy and malignant alike, as in CoNSeP
    3: ("lymphocyte", "til"),
    4: ("plasma_cell", "til"),
    5: ("granulocyte", "other"),  # eosinophil
    6: ("stromal",),  # connective
}


def read(root: Path, *, taxonomy: Taxonomy = BREAST) -> Iterator[Sample]:
    """Yield Lizard's regions of interest with outlines and classes; regions are unlabelled.

    Patients are not published, so each image is its own group.

    Parameters
    ----------
    root : Path
        Folder that holds, at any depth, ``NAME.mat`` (``inst_map``, ``id``, ``class``) and ``NAME.png``, as the
        archives ``lizard_images1``, ``lizard_images2`` and ``lizard_labels`` unpack.
    taxonomy : Taxonomy
        Classes are found by name, then by role.

    Raises
    ------
    DatasetError
        If there are no labels, one cannot be read, or one has no image or of another size.
    UnknownLabel
        If a nucleus has a class above 6.
    """
    require_folder(root)
    images = {path.stem: path for path in sorted(root.rglob("*.png"))}
    for path in list_files(root, "**/*.mat"):
        if path.stem not in images:
            msg = f"{path}: has no image {path.stem}.png below {root}"
            raise DatasetError(msg)
        image, (instances, class_of) = read_rgb(images[path.stem]), _read_mat(path)
        require_size(instances, image, path=path)
        yield Sample(
            sample_id=path.stem,
            image=image,
            mpp=MPP,
            group=path.stem,
            source=LIZARD,
            nuclei=nuclei_of(instances, _class_ids(class_of, path, taxonomy)[instances]),
            instances=instances,
        )


def _read_mat(path: Path) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Read the instance map and, indexed by instance id, the class of each nucleus."""
    inst_map, ids, classes = read_mat(path, "inst_map", "id", "class")
    instances, ids, classes = inst_map.astype(np.int32), ids.ravel(), classes.ravel()
    if len(ids) != len(classes):
        msg = f"{path}: {len(ids)} ids and {len(classes)} classes"
        raise DatasetError(msg)
    class_of = np.zeros(int(max(instances.max(initial=0), ids.max(initial=0))) + 1, dtype=np.int64)
    class_of[ids] = classes
    return instances, class_of


def read_conic(root: Path, *, taxonomy: Taxonomy = BREAST) -> Iterator[Sample]:
    """Yield CoNIC's patches with outlines and classes; regions are unlabelled.

    Parameters
    ----------
    root : Path
        Folder with ``images.npy`` (N, 256, 256, 3), ``labels.npy`` (N, 256, 256, 2: instance, class) and, if there is
        one, ``patch_info.csv``, whose names tell which image a patch is from: its group.
    taxonomy : Taxonomy
        Classes are found by name, then by role.

    Raises
    ------
    DatasetError
        If an array is missing, or they differ in length or in the size of their images.
    UnknownLabel
        If a pixel has a class above 6.
    """
    require_folder(root)
    images_path = first_existing((root / "images.npy",), what="CoNIC's images")
    labels_path = first_existing((root / "labels.npy",), what="CoNIC's labels")
    images, labels = load_array(images_path, ndim=4), load_array(labels_path, ndim=4)
    names = _sample_names(root / "patch_info.csv", len(images))
    if not len(images) == len(labels) == len(names):
        msg = f"{root}: {len(images)} images, {len(labels)} labels and {len(names)} patch names"
        raise DatasetError(msg)
    if labels.shape != (*images.shape[:3], 2):
        msg = f"{labels_path}: is {labels.shape}, its images {images.shape}; expected {(*images.shape[:3], 2)}"
        raise DatasetError(msg)
    for index, name in enumerate(names):
        instances = np.asarray(labels[index, ..., 0]).astype(np.int32)
        classes = np.asarray(labels[index, ..., 1]).astype(np.int64)
        yield Sample(
            sample_id=name,
            image=np.asarray(images[index]).astype(np.uint8),
            mpp=MPP,
            group=name.rsplit("-", 1)[0],
            source=CONIC,
            nuclei=nuclei_of(instances, _class_ids(classes, labels_path, taxonomy)),
            instances=instances,
        )


def _sample_names(path: Path, count: int) -> list[str]:
    if not path.exists():
        return [f"patch{index:05d}" for index in range(count)]
    table = read_table(path, columns=("patch_info",))
    return [str(name) for name in table["patch_info"]]


def _class_ids(classes: npt.NDArray[np.int64], path: Path, taxonomy: Taxonomy) -> npt.NDArray[np.int64]:
    unknown = sorted(set(np.unique(classes).tolist()) - set(CLASSES))
    if unknown:
        msg = f"{path}: unknown classes {unknown}; known: {sorted(CLASSES)}"
        raise UnknownLabel(msg)
    return np.array([resolve(wish, taxonomy.nuclei) for wish in CLASSES.values()], dtype=np.int64)[classes]
