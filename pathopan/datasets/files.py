"""Finding and reading the files of a data set, with errors that name them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from pathopan.datasets.sample import Rgb, read_rgb
from pathopan.errors import DatasetError

_TCGA_PATIENT = re.compile(r"(TCGA-\w\w-\w{4})")
_NAMED_MPP = re.compile(r"MPP-(\d+\.\d+)")


def list_files(folder: Path, pattern: str) -> list[Path]:
    """List the files of a folder by name.

    Raises
    ------
    DatasetError
        If there is none.
    """
    found = sorted(folder.glob(pattern))
    if not found:
        msg = f"{folder}: holds no {pattern}"
        raise DatasetError(msg)
    return found


def first_existing(candidates: Iterable[Path], *, what: str) -> Path:
    """Choose the first path that exists.

    Raises
    ------
    DatasetError
        If none does; all are named.
    """
    tried = list(candidates)
    for path in tried:
        if path.exists():
            return path
    msg = f"{what} not found; looked for {', '.join(str(path) for path in tried)}"
    raise DatasetError(msg)


def partner(path: Path, *, folder: Path, suffix: str) -> Path:
    """Find the file of the same stem in another folder.

    Raises
    ------
    DatasetError
        If it is missing.
    """
    found = folder / f"{path.stem}{suffix}"
    if not found.exists():
        msg = f"{path}: has no {found}"
        raise DatasetError(msg)
    return found


def read_channels(path: Path, *, channels: int) -> npt.NDArray[np.uint8]:
    """Read a label image of several channels, in the order red, green, blue.

    Raises
    ------
    DatasetError
        If it is missing, no image, or has fewer channels.
    """
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None:
        msg = f"{path}: cannot be read as a label image"
        raise DatasetError(msg)
    if stored.ndim != 3 or stored.shape[2] < channels:
        msg = f"{path}: expected {channels} channels of labels, found an array of shape {stored.shape}"
        raise DatasetError(msg)
    return np.ascontiguousarray(stored[..., 2::-1])


def read_picture(path: Path) -> Rgb:
    """Read an image; SVS and TIFF through tifffile, which knows more of their compressions.

    Raises
    ------
    DatasetError
        If it is missing or no RGB image.
    """
    if path.suffix.lower() not in (".svs", ".tif", ".tiff"):
        return read_rgb(path)
    try:
        stored = tifffile.imread(path, key=0)
    except (OSError, ValueError, IndexError) as error:
        msg = f"{path}: cannot be read as an image: {error}"
        raise DatasetError(msg) from error
    if stored.ndim != 3 or stored.shape[2] < 3 or stored.dtype != np.uint8:
        msg = f"{path}: expected an 8-bit RGB image, found {stored.dtype} of shape {stored.shape}"
        raise DatasetError(msg)
    return np.ascontiguousarray(stored[..., :3])


def require_size(labels: npt.NDArray[np.generic], image: npt.NDArray[np.generic], *, path: Path) -> None:
    """Check that a map (Y, X, ...) has as many rows and columns as its image (Y, X, ...).

    Raises
    ------
    DatasetError
        If not; ``path`` is the map's.
    """
    if labels.shape[:2] != image.shape[:2]:
        msg = f"{path}: is {labels.shape[:2]}, its image {image.shape[:2]}"
        raise DatasetError(msg)


def read_table(path: Path, *, columns: Iterable[str], separator: str = ",", as_written: bool = False) -> pd.DataFrame:
    """Read a text table and check that it has the columns.

    Parameters
    ----------
    path : Path
        The file.
    columns : iterable of str
        Those that it must have; it may have more.
    separator : str
        What stands between two cells.
    as_written : bool
        Leave every cell the text that it is, such as a name ``001`` or ``NA``; an empty one is "".

    Raises
    ------
    DatasetError
        If it is missing, malformed, or lacks a column.
    """
    try:
        table = (
            pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
            if as_written
            else pd.read_csv(path, sep=separator)
        )
    except pd.errors.EmptyDataError:
        return pd.DataFrame({name: pd.Series(dtype="object") for name in columns})
    except (OSError, UnicodeDecodeError, pd.errors.ParserError) as error:
        msg = f"{path}: cannot be read as a table: {error}"
        raise DatasetError(msg) from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        msg = f"{path}: lacks the columns {missing}; it has {list(table.columns)}"
        raise DatasetError(msg)
    return table


def read_mat(path: Path, *names: str) -> list[npt.NDArray[np.int64]]:
    """Read arrays of whole numbers out of a MATLAB file.

    Raises
    ------
    DatasetError
        If it is missing, damaged, no MATLAB file up to version 7, or lacks one of the names.
    """
    try:
        stored = loadmat(path)
        return [np.asarray(stored[name]).astype(np.int64) for name in names]
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError, zlib.error, MatReadError) as error:
        wanted = f"with {', '.join(names[:-1])} and {names[-1]}"
        msg = f"{path}: expected a MAT file {wanted} (version 7.3 is another format: save it with -v7): {error}"
        raise DatasetError(msg) from error


def load_array(path: Path, *, ndim: int) -> npt.NDArray[np.generic]:
    """Map an NPY file into memory; nothing is read before it is indexed.

    Raises
    ------
    DatasetError
        If it is missing, no NPY file, holds Python objects, or has other than ``ndim`` axes.
    """
    try:
        stored: npt.NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        msg = f"{path}: cannot be read as an NPY array: {error}"
        raise DatasetError(msg) from error
    if stored.ndim != ndim:
        msg = f"{path}: expected {ndim} axes, found shape {stored.shape}"
        raise DatasetError(msg)
    return stored


def tcga_patient(name: str) -> str | None:
    """Find a TCGA patient barcode in a file name.

    Examples
    --------
    >>> tcga_patient("TCGA-A2-A0YE-01Z-00-DX1.8A2E")
    'TCGA-A2-A0YE'
    """
    match = _TCGA_PATIENT.search(name)
    return match[1] if match else None


def named_mpp(name: str, *, otherwise: float) -> float:
    """Find micrometres per pixel in a file name such as ``..._MPP-0.2500_...``."""
    match = _NAMED_MPP.search(name)
    return float(match[1]) if match else otherwise
