"""Find the reader that knows a file best."""

from __future__ import annotations

from pathlib import Path

import openslide
import tifffile

from pathopan.errors import UnreadableSlide
from pathopan.files import check_regular
from pathopan.slide.array import open_image
from pathopan.slide.base import Slide
from pathopan.slide.jpeg_tiles import TIFF_DAMAGE
from pathopan.slide.openslide import OpenSlideSlide, header_mpp
from pathopan.slide.tiff import TiffSlide, describe_tiff

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
"""Plain images: one level, no mpp."""

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF, both byte orders


def open_slide(path: Path | str, *, slide_id: str | None = None, slide_mpp: float | None = None) -> Slide:
    """Open a slide with the reader that knows most about it.

    Parameters
    ----------
    path : Path or str
        A slide file; of a DICOM series, any of its files or their folder.
    slide_id : str, optional
        Name of the slide in every output; the file's name without its ending if not given.
    slide_mpp : float, optional
        Micrometres per level-0 pixel, in place of what the file says.

    Returns
    -------
    Slide
        To be closed; a context manager.

    Raises
    ------
    UnreadableSlide
        If the file is missing, empty, damaged, of an unknown format, a folder, or not to be read by this user.
    MissingMpp
        If neither the file nor the caller knows the mpp.
    ConfigError
        If the mpp given is not a positive number.
    """
    file = _readable_file(Path(path))
    name = slide_id or slide_name(Path(path))
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return open_image(file, slide_id=name, slide_mpp=slide_mpp)
    try:
        reader = TiffSlide if _prefers_tifffile(file) else OpenSlideSlide
        return reader(file, slide_id=name, slide_mpp=slide_mpp)
    except ArithmeticError as error:
        msg = f"{file}: damaged: it has a level without pixels, or numbers that are none ({error}). Copy the file again"
        raise UnreadableSlide(msg) from error


def slide_name(path: Path) -> str:
    """Name a slide after its file, without ``.svs`` or ``.ome.tif``.

    Examples
    --------
    >>> slide_name(Path("a/TCGA-01.svs")), slide_name(Path("b.ome.tiff"))
    ('TCGA-01', 'b')
    """
    return path.stem.removesuffix(".ome") or path.name


def _readable_file(path: Path) -> Path:
    """Check that there is something to read, and take one file of a DICOM folder."""
    try:
        found = path.exists()
        check_regular(path)
    except (OSError, ValueError) as error:  # too long a name, a NUL in it, a pipe
        msg = f"{path}: cannot be opened: {getattr(error, 'strerror', '') or error}"
        raise UnreadableSlide(msg) from error
    if not found:
        msg = f"{path}: no such file; check the path"
        raise UnreadableSlide(msg)
    file = _dicom_file(path) if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        msg = f"{file}: cannot be opened: {error.strerror}; check its permissions"
        raise UnreadableSlide(msg) from error
    if empty:
        msg = f"{file}: the file is empty; copy it again"
        raise UnreadableSlide(msg)
    return file


def other_files(path: Path) -> list[Path]:
    """List the files that a slide is made of beside the one that is named: of a DICOM folder, and of MIRAX."""
    if path.is_dir():
        return sorted(path.glob("*.dcm"))
    if path.suffix.lower() == ".mrxs":
        return sorted(file for file in path.with_suffix("").glob("*") if file.is_file())
    return []


def _dicom_file(folder: Path) -> Path:
    """Take one file of the only DICOM slide in a folder."""
    series: dict[str, Path] = {}
    for file in sorted(folder.glob("*.dcm")):
        try:
            with openslide.OpenSlide(file) as handle:
                series.setdefault(handle.properties.get("dicom.SeriesInstanceUID", file.name), file)
        except openslide.OpenSlideError:
            continue
    if len(series) == 1:
        return next(iter(series.values()))
    found = f"holds {len(series)} DICOM slides; name one file of the one you mean" if series else "is a folder"
    msg = f"{folder}: {found}" if series else f"{folder}: is a folder without a DICOM slide; name a slide file"
    raise UnreadableSlide(msg)


def _prefers_tifffile(path: Path) -> bool:
    """Tell whether tifffile knows more of a TIFF than OpenSlide: more levels, the mpp, or how to open it at all."""
    with path.open("rb") as stream:
        if stream.read(4) not in _TIFF_STARTS:
            return False
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor != "generic-tiff":
        return vendor is None
    try:
        with openslide.OpenSlide(path) as handle:
            levels, mpp = handle.level_count, header_mpp(handle.properties)
    except openslide.OpenSlideError:
        return True
    try:
        with tifffile.TiffFile(path) as file:
            description = describe_tiff(path, file)
    except (UnreadableSlide, *TIFF_DAMAGE):
        return False
    return len(description.series.levels) > levels or (mpp is None and description.mpp is not None)
