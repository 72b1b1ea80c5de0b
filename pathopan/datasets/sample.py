"""One annotated image, whichever data set it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.errors import DatasetError, ShapeMismatch

Rgb = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """Where samples come from, under which licence, and how to cite it. Ends up in the bundle."""

    name: str
    licence: str
    citation: str
    organ: str


@dataclass(frozen=True)
class Sample:
    """One annotated image. What a data set did not annotate is ``None`` or 0, so that losses and metrics mask it.

    Parameters
    ----------
    sample_id : str
        Unique within its source.
    image : (Y, X, 3) uint8
        RGB.
    mpp : float
        Micrometres per pixel, the same along both axes.
    group : str
        Patient (or the nearest thing known); a split never parts a group.
    source : Source
        Licence and citation.
    nuclei : DataFrame
        One row a nucleus: ``x_px, y_px`` centre in image pixels (corners at integers), ``class_id`` (0 unknown),
        ``instance_id`` (0 where the nucleus has a point but no outline).
    instances : (Y, X) int32, optional
        Instance map; ``None`` where there are only points.
    region : (Y, X) uint8, optional
        Region class ids; 0 is unlabelled.
    region_derived : bool
        True where the region map was computed from nuclei rather than drawn by a person.
    labelled_nuclei : tuple of int, optional
        Nucleus class ids of which every nucleus was annotated; ``None`` is all classes, an empty tuple none at all, so
        that the absence of rows in ``nuclei`` says nothing.

    Raises
    ------
    ShapeMismatch
        If a map differs from the image in shape.
    """

    sample_id: str
    image: Rgb
    mpp: float
    group: str
    source: Source
    nuclei: pd.DataFrame
    instances: npt.NDArray[np.int32] | None = None
    region: npt.NDArray[np.uint8] | None = None
    region_derived: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)
    labelled_nuclei: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check that the maps belong to the image."""
        for name in ("instances", "region"):
            labels = getattr(self, name)
            if labels is not None and labels.shape != self.image.shape[:2]:
                msg = f"{self.source.name} {self.sample_id}: {name} is {labels.shape}, the image {self.image.shape[:2]}"
                raise ShapeMismatch(msg)


def read_rgb(path: Path) -> Rgb:
    """Read an image file as RGB.

    Raises
    ------
    DatasetError
        If it is missing or no image.
    """
    _require_file(path)
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if stored is None:
        msg = f"{path}: cannot be read as an image"
        raise DatasetError(msg)
    return np.ascontiguousarray(stored[..., ::-1])


def read_labels(path: Path) -> npt.NDArray[np.int32]:
    """Read a single-channel label image without changing its values.

    Raises
    ------
    DatasetError
        If it is missing, no image, or has several channels.
    """
    _require_file(path)
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None:
        msg = f"{path}: cannot be read as a label image"
        raise DatasetError(msg)
    if stored.ndim != 2:
        msg = f"{path}: expected one channel of labels, found an array of shape {stored.shape}"
        raise DatasetError(msg)
    return stored.astype(np.int32)


def _require_file(path: Path) -> None:
    """Tell a missing file from one that is no image."""
    if not path.exists():
        msg = f"{path}: not found, though the data set's other files call for it"
        raise DatasetError(msg)


def nuclei_of(instances: npt.NDArray[np.int32], class_map: npt.NDArray[np.integer] | None = None) -> pd.DataFrame:
    """List the nuclei of an instance map; each has the class that most of its pixels carry.

    Parameters
    ----------
    instances : (Y, X) int
        Instance map; 0 is background.
    class_map : (Y, X) int, optional
        Class id of each pixel; 0 is ignored unless a nucleus has nothing else.

    Returns
    -------
    DataFrame
        ``x_px, y_px, class_id, instance_id``, ordered by instance id.
    """
    rows, columns = np.nonzero(instances > 0)
    if len(rows) == 0:
        return empty_nuclei()
    ids, owner, areas = np.unique(instances[rows, columns], return_inverse=True, return_counts=True)
    x_px, y_px = (np.bincount(owner, weights=along) / areas + 0.5 for along in (columns, rows))
    classes = np.zeros(len(ids), dtype=np.int64)
    if class_map is not None:
        kinds, count = class_map[rows, columns], int(class_map.max()) + 1
        voting = kinds > 0
        votes = np.bincount(owner[voting] * count + kinds[voting], minlength=len(ids) * count)
        classes = votes.reshape(len(ids), count).argmax(axis=1)
    return pd.DataFrame({"x_px": x_px, "y_px": y_px, "class_id": classes, "instance_id": ids.astype(np.int64)})


def empty_nuclei() -> pd.DataFrame:
    """Build a nucleus list without rows."""
    return pd.DataFrame(
        {
            "x_px": np.empty(0),
            "y_px": np.empty(0),
            "class_id": np.empty(0, np.int64),
            "instance_id": np.empty(0, np.int64),
        }
    )


def require_folder(root: Path, *names: str) -> None:
    """Check that a data set's folder holds what its layout promises.

    Raises
    ------
    DatasetError
        Naming the first thing that is missing.
    """
    for path in (root, *(root / name for name in names)):
        if not path.exists():
            msg = f"{path}: not found; is {root} the data set's folder? It should hold {', '.join(names)}"
            raise DatasetError(msg)
