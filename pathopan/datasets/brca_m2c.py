"""BRCA-M2C: breast H&E patches with one labelled point per nucleus (Abousamra et al., ICCV 2021)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.files import list_files
from pathopan.datasets.labels import resolve
from pathopan.datasets.sample import Sample, Source, read_rgb, require_folder
from pathopan.errors import DatasetError, UnknownLabel

SOURCE = Source(
    name="BRCA-M2C",
    licence="BSD-3-Clause",
    citation="Abousamra et al., Multi-Class Cell Detection Using Spatial Context Representation, ICCV 2021",
    organ="breast",
)
MPP = 0.5
CLASSES = {1: "til", 2: "tumor", 3: "stromal"}
_PATIENT = re.compile(r"(TCGA-\w\w-\w{4})-")


def read(root: Path, *, subset: str | None = None, taxonomy: Taxonomy = BREAST) -> Iterator[Sample]:
    """Yield the patches with their points; outlines and regions are unlabelled.

    Parameters
    ----------
    root : Path
        Folder with ``images/NAME.png`` and ``labels/NAME_gt_class_coords.txt`` (rows ``y x class``).
    subset : str, optional
        ``train`` or ``val``: only what ``train.txt`` or ``val.txt`` lists. Two patients stand in both: for honest
        figures split by ``group``, see :mod:`pathopan.datasets.splits`.
    taxonomy : Taxonomy
        Classes are found by name, then by role.

    Raises
    ------
    DatasetError
        If a folder, a list or a label file is missing or malformed.
    UnknownLabel
        If a point has a class other than 1, 2 or 3.
    """
    require_folder(root, "images", "labels")
    for image_path in _images(root, subset):
        match = _PATIENT.match(image_path.name)
        yield Sample(
            sample_id=image_path.stem,
            image=read_rgb(image_path),
            mpp=MPP,
            group=match[1] if match else image_path.stem,
            source=SOURCE,
            nuclei=_read_points(root / "labels" / f"{image_path.stem}_gt_class_coords.txt", taxonomy),
        )


def _images(root: Path, subset: str | None) -> list[Path]:
    if subset is None:
        return list_files(root / "images", "*.png")
    listed = root / f"{subset}.txt"
    require_folder(root, listed.name)
    names = listed.read_text(encoding="utf-8").split()
    return [root / "images" / name for name in sorted(names)]


def _read_points(path: Path, taxonomy: Taxonomy) -> pd.DataFrame:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        rows = np.loadtxt(lines, dtype=np.int64, ndmin=2) if lines else np.empty((0, 3), np.int64)
    except (OSError, ValueError) as error:
        msg = f"{path}: expected rows of 'y x class': {error}"
        raise DatasetError(msg) from error
    if rows.shape[1] != 3:
        msg = f"{path}: expected rows of 'y x class', found rows of {rows.shape[1]} numbers"
        raise DatasetError(msg)
    unknown = sorted(set(rows[:, 2].tolist()) - set(CLASSES))
    if unknown:
        msg = f"{path}: unknown classes {unknown}; BRCA-M2C has {CLASSES}"
        raise UnknownLabel(msg)
    ids = {label: resolve((name,), taxonomy.nuclei) for label, name in CLASSES.items()}
    return pd.DataFrame(
        {
            "x_px": rows[:, 1] + 0.5,
            "y_px": rows[:, 0] + 0.5,
            "class_id": np.array([ids[label] for label in rows[:, 2].tolist()], dtype=np.int64),
            "instance_id": np.zeros(len(rows), dtype=np.int64),
        }
    )
