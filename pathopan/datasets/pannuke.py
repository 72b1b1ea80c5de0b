"""PanNuke: nuclei of 19 tissues in three folds (Gamper et al., arXiv 2003.10778)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.files import first_existing, load_array, require_size
from pathopan.datasets.labels import resolve
from pathopan.datasets.sample import Sample, Source, nuclei_of, require_folder
from pathopan.errors import DatasetError, UnknownLabel

SOURCE = Source(
    name="PanNuke",
    licence="CC-BY-NC-SA-4.0",
    citation="Gamper et al., PanNuke Dataset Extension, Insights and Baselines, arXiv 2003.10778, 2020",
    organ="mixed",
)
MPP = 0.25
CLASSES: tuple[tuple[str, ...], ...] = (
    ("tumor",),  # neoplastic
    ("til",),  # inflammatory; granulocytes and macrophages are not told apart
    ("stromal",),  # connective
    ("dead", "other"),
    ("normal_epithelium", "other"),  # non-neoplastic epithelial
)
"""Wishes for the five channels of instances; a sixth channel is background."""


def read(root: Path, *, tissues: Collection[str] | None = None, taxonomy: Taxonomy = BREAST) -> Iterator[Sample]:
    """Yield the patches of every fold found; regions are unlabelled.

    Patients are not published, so the fold is the group: a split never parts a fold, which is how the set is used.

    Parameters
    ----------
    root : Path
        Folder that holds the unpacked folds: ``Fold 1/images/fold1/{images,types}.npy`` and
        ``Fold 1/masks/fold1/masks.npy``, or all three arrays in one folder per fold.
    tissues : collection of str, optional
        Only these, such as ``{"Breast"}``.
    taxonomy : Taxonomy
        Classes are found by name, then by role.

    Raises
    ------
    DatasetError
        If there is no fold, an array is missing, or arrays differ in length or in the size of their images.
    UnknownLabel
        If a tissue asked for does not occur in a fold's types.
    """
    require_folder(root)
    folds = sorted(root.resolve().rglob("images.npy"))
    if not folds:
        msg = f"{root}: holds no images.npy; unpack PanNuke's fold_1.zip, fold_2.zip and fold_3.zip there"
        raise DatasetError(msg)
    channel_ids = np.array([0, *(resolve(wish, taxonomy.nuclei) for wish in CLASSES)], dtype=np.int64)
    for path in folds:
        yield from _read_fold(path, tissues, channel_ids)


def _read_fold(path: Path, tissues: Collection[str] | None, channel_ids: npt.NDArray[np.int64]) -> Iterator[Sample]:
    fold = path.parent.name
    split = path.parent.parent.parent / "masks" / fold / "masks.npy"
    masks_path = first_existing((path.with_name("masks.npy"), split), what=f"masks.npy of {path}")
    types_path = first_existing(
        (path.with_name("types.npy"), split.with_name("types.npy")), what=f"types.npy of {path}"
    )
    images, masks, types = load_array(path, ndim=4), load_array(masks_path, ndim=4), load_array(types_path, ndim=1)
    if not len(images) == len(masks) == len(types):
        msg = f"{path}: {len(images)} images, {len(masks)} masks and {len(types)} types"
        raise DatasetError(msg)
    unknown = sorted(set(tissues or ()) - set(types.tolist()))
    if unknown:
        msg = f"{types_path}: no tissue {unknown}; it has {sorted(set(types.tolist()))}"
        raise UnknownLabel(msg)
    for index, tissue in enumerate(types.tolist()):
        if tissues is not None and tissue not in tissues:
            continue
        require_size(masks[index], images[index], path=masks_path)
        instances, channel = merge_channels(np.asarray(masks[index, ..., :5]).astype(np.int64))
        yield Sample(
            sample_id=f"{fold}-{index:05d}",
            image=np.asarray(images[index]).astype(np.uint8),
            mpp=MPP,
            group=fold,
            source=SOURCE,
            nuclei=nuclei_of(instances, channel_ids[channel]),
            instances=instances,
            notes={"tissue": str(tissue)},
        )


def merge_channels(masks: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Merge one instance map per class into one, renumbered; where classes overlap the later channel wins.

    Parameters
    ----------
    masks : (Y, X, C) int
        Instance ids, which may repeat from channel to channel.

    Returns
    -------
    instances : (Y, X) int32
        Ids from 1.
    channel : (Y, X) int
        Channel + 1 of each pixel; 0 is background.
    """
    channel = np.where(masks > 0, np.arange(1, masks.shape[2] + 1), 0).max(axis=2)
    own = np.take_along_axis(masks, np.maximum(channel - 1, 0)[..., None], axis=2)[..., 0]
    key = np.where(channel > 0, own * (masks.shape[2] + 1) + channel, 0)
    found, codes = np.unique(key, return_inverse=True)
    first = 0 if found[0] == 0 else 1
    return (codes.reshape(key.shape) + first).astype(np.int32), channel
