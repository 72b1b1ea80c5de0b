"""Anyone's predictions, in memory and from a folder of plain files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile
from scipy import ndimage

from pathopan.classes import Taxonomy
from pathopan.errors import ResultError, SchemaError, ShapeMismatch, UnknownLabel

IntArray = npt.NDArray[np.integer]
SUFFIXES = (".npy", ".png", ".tif", ".tiff")


class Labels(Protocol):
    """What a data set annotated in one image."""

    @property
    def nuclei(self) -> pd.DataFrame:
        """Columns ``x_px, y_px, class_id, instance_id``; class 0 is unknown."""

    @property
    def instances(self) -> npt.NDArray[np.int32] | None:
        """(Y, X) instance map, or nothing where there are only points."""

    @property
    def region(self) -> npt.NDArray[np.uint8] | None:
        """(Y, X) region class ids, 0 unlabelled, or nothing."""

    @property
    def region_derived(self) -> bool:
        """Whether the region map was computed rather than drawn."""

    @property
    def labelled_nuclei(self) -> tuple[int, ...] | None:
        """Nucleus class ids annotated exhaustively; nothing means all of them."""


class Truth(Labels, Protocol):
    """What evaluation needs of a sample; :class:`pathopan.datasets.sample.Sample` has it."""

    @property
    def sample_id(self) -> str:
        """Name, unique in its set."""

    @property
    def group(self) -> str:
        """Patient."""

    @property
    def mpp(self) -> float:
        """Micrometres per pixel."""

    @property
    def notes(self) -> Mapping[str, str]:
        """What else is known; ``tissue`` is the organ by which PanNuke averages."""


@dataclass(frozen=True)
class Prediction:
    """What is judged: nuclei as rows and, where there are outlines, as an instance map; regions as a map.

    Parameters
    ----------
    nuclei : DataFrame
        ``x_px, y_px`` (corners at integers), ``class_id``, ``instance_id`` (0 without outline).
    instances : (Y, X) int, optional
        Instance map on the truth's pixels; every id has a row.
    region : (Y, X) int, optional
        Region class ids on the truth's pixels; 0 is not analysed.

    Raises
    ------
    SchemaError
        If a column is missing, or an instance has no row.
    """

    nuclei: pd.DataFrame
    instances: IntArray | None = None
    region: IntArray | None = None

    def __post_init__(self) -> None:
        """Check that table and map belong together."""
        missing = [c for c in ("x_px", "y_px", "class_id", "instance_id") if c not in self.nuclei.columns]
        if missing:
            msg = f"predicted nuclei lack the columns {missing}; they have {list(self.nuclei.columns)}"
            raise SchemaError(msg)
        if self.instances is not None:
            orphans = np.setdiff1d(np.unique(self.instances[self.instances > 0]), self.nuclei["instance_id"])
            if len(orphans):
                msg = f"{len(orphans)} predicted instances have no class, such as {orphans[:5].tolist()}"
                raise SchemaError(msg)


def read_prediction(folder: Path, sample_id: str, *, taxonomy: Taxonomy) -> Prediction:
    """Read what a folder holds for one sample.

    Parameters
    ----------
    folder : Path
        Any of ``instances/ID.*`` (instance map), ``types/ID.*`` (class id of each pixel) or ``classes/ID.csv``
        (``instance_id, class``), ``points/ID.csv`` (``x_px, y_px, class``), ``regions/ID.*`` (region map). Maps are
        NPY, PNG or TIFF on the sample's pixels. With points and instances, the points decide where nuclei are and the
        outlines are judged on their own.
    sample_id : str
        The ID.
    taxonomy : Taxonomy
        Classes may be given by name or id.

    Raises
    ------
    ResultError
        If there is nothing for the sample, or a file cannot be read.
    SchemaError
        If a table lacks a column, or an instance has no class.
    UnknownLabel
        If a class is not of the taxonomy.
    """
    instances = _optional_map(folder / "instances", sample_id)
    region = _optional_map(folder / "regions", sample_id)
    points = folder / "points" / f"{sample_id}.csv"
    if instances is None and region is None and not points.exists():
        msg = f"{folder}: holds no instances, regions or points for {sample_id}"
        raise ResultError(msg)
    nuclei = _no_nuclei()
    if instances is not None:
        nuclei = _nuclei_of(instances, _classes(folder, sample_id, instances, taxonomy))
    if points.exists():
        table = _read_table(points, ("x_px", "y_px", "class"))
        dotted = (
            table[["x_px", "y_px"]]
            .astype(np.float64)
            .assign(class_id=_class_ids(table["class"], taxonomy, points), instance_id=0)
        )
        outlined = nuclei.assign(x_px=np.nan, y_px=np.nan)
        nuclei = pd.concat([dotted, outlined], ignore_index=True) if len(outlined) else dotted
    if region is not None:
        _require_known(np.unique(region), {0, *(c.id for c in taxonomy.regions)}, folder / "regions" / sample_id)
    return Prediction(nuclei, instances, region)


def read_map(path: Path) -> IntArray:
    """Read a label map of one channel from NPY, PNG or TIFF without changing its values.

    Raises
    ------
    ResultError
        If it cannot be read or is not one channel of integers.
    """
    stored: npt.NDArray[np.generic] | None
    try:
        if path.suffix == ".npy":
            stored = np.load(path, allow_pickle=False)
        elif path.suffix == ".png":
            stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        else:
            stored = tifffile.imread(path)
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as a label map: {error}"
        raise ResultError(msg) from error
    if stored is None or stored.ndim != 2 or stored.dtype.kind not in "iu":
        found = "nothing" if stored is None else f"{stored.dtype} of shape {stored.shape}"
        msg = f"{path}: expected one channel of integer labels, found {found}"
        raise ResultError(msg)
    return stored.astype(np.int64)


def _optional_map(folder: Path, sample_id: str) -> IntArray | None:
    for suffix in SUFFIXES:
        path = folder / f"{sample_id}{suffix}"
        if path.exists():
            return read_map(path)
    return None


def _classes(folder: Path, sample_id: str, instances: IntArray, taxonomy: Taxonomy) -> dict[int, int]:
    """Give the class of each instance, from the table or by majority over the type map."""
    path = folder / "classes" / f"{sample_id}.csv"
    if path.exists():
        table = _read_table(path, ("instance_id", "class"))
        return dict(zip(table["instance_id"].astype(int), _class_ids(table["class"], taxonomy, path), strict=True))
    types = _optional_map(folder / "types", sample_id)
    if types is None:
        return dict.fromkeys(np.unique(instances[instances > 0]).tolist(), 0)
    if types.shape != instances.shape:
        msg = f"{folder}: the type map of {sample_id} is {types.shape}, its instance map {instances.shape}"
        raise ShapeMismatch(msg)
    _require_known(np.unique(types), {0, *(c.id for c in taxonomy.nuclei)}, folder / "types" / sample_id)
    inside = instances > 0
    votes = pd.crosstab(instances[inside], types[inside])
    named = votes.drop(columns=0, errors="ignore")
    if named.empty:
        return dict.fromkeys(votes.index.tolist(), 0)
    return dict(zip(votes.index.tolist(), named.idxmax(axis=1).where(named.sum(axis=1) > 0, 0).tolist(), strict=True))


def _class_ids(classes: pd.Series, taxonomy: Taxonomy, path: Path) -> list[int]:
    known: Mapping[str, int] = {key: c.id for c in taxonomy.nuclei for key in (c.name, str(c.id))} | {"0": 0}
    unknown = sorted(set(classes.astype(str)) - set(known))
    if unknown:
        msg = f"{path}: unknown classes {unknown}; known: {', '.join(known)}"
        raise UnknownLabel(msg)
    return [known[name] for name in classes.astype(str)]


def _require_known(found: IntArray, known: set[int], path: Path) -> None:
    unknown = sorted(set(found.tolist()) - known)
    if unknown:
        msg = f"{path}: unknown class ids {unknown}; known: {sorted(known)}"
        raise UnknownLabel(msg)


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as a table: {error}"
        raise ResultError(msg) from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        msg = f"{path}: lacks the columns {missing}; it has {list(table.columns)}"
        raise SchemaError(msg)
    return table


def _nuclei_of(instances: IntArray, classes: Mapping[int, int]) -> pd.DataFrame:
    ids = np.unique(instances[instances > 0]).astype(np.int64)
    ids = ids[np.isin(ids, list(classes))]
    if len(ids) == 0:
        return _no_nuclei()
    centres = np.array(ndimage.center_of_mass(np.ones(instances.shape), instances, ids)) + 0.5
    class_id = np.array([classes[i] for i in ids.tolist()], dtype=np.int64)
    return pd.DataFrame({"x_px": centres[:, 1], "y_px": centres[:, 0], "class_id": class_id, "instance_id": ids})


def _no_nuclei() -> pd.DataFrame:
    nothing = np.empty(0, dtype=np.int64)
    return pd.DataFrame({"x_px": np.empty(0), "y_px": np.empty(0), "class_id": nothing, "instance_id": nothing})
