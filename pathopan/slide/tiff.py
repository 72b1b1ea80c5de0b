"""Slides that tifffile reads: OME-TIFF, pyramids in sub-IFDs, and compressions that OpenSlide does not know."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from xml.etree import ElementTree as ET

import numpy as np
import tifffile
import zarr

from pathopan.errors import UnreadableSlide
from pathopan.geometry import Window
from pathopan.slide.base import RgbImage, SlideInfo, check_chunk, settle_mpp
from pathopan.slide.jpeg_tiles import TIFF_DAMAGE
from pathopan.slide.openslide import RESOLUTION_MPP
from pathopan.slide.resample import XY, level_downsample, read_window, white_canvas

_UM_PER_UNIT = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}  # TIFF 6.0: 2 inch, 3 centimeter
_ASSOCIATED = ("label", "macro", "thumbnail", "overview")  # pictures beside the scan, never analysed
_SAMPLES = (3, 4)  # RGB, and RGB with alpha


class TiffSlide:
    """A color TIFF read through tifffile, level by level and chunk by chunk.

    Parameters
    ----------
    path : Path
        The file.
    slide_id : str
        Name of the slide in every output.
    slide_mpp : float, optional
        Micrometres per level-0 pixel, in place of the file's.

    Raises
    ------
    UnreadableSlide
        If tifffile cannot open the file, or if it holds no 8-bit color image.
    MissingMpp
        If neither the file nor the caller knows the mpp.
    """

    def __init__(self, path: Path, *, slide_id: str, slide_mpp: float | None = None) -> None:
        """Open the file."""
        try:
            self._file = tifffile.TiffFile(path)
        except TIFF_DAMAGE as error:
            msg = f"{path}: not a readable TIFF: {error}. Copy the file again, or convert it to a pyramidal TIFF"
            raise UnreadableSlide(msg) from error
        try:
            description = describe_tiff(path, self._file)
            mpp, warnings = settle_mpp(path, description.mpp, slide_mpp)
            series = description.series
            self._axes = str(series.axes)
            self._levels = _open_levels(path, series)
            sizes = [_size(self._axes, level.shape) for level in series.levels]
            self._downsamples = [level_downsample(sizes[0], size) for size in sizes]
        except BaseException:
            self._file.close()
            raise
        self._sizes = sizes
        self._info = SlideInfo(
            slide_id=slide_id,
            path=path,
            size_l0=sizes[0],
            mpp_l0=mpp,
            downsamples=tuple(math.sqrt(x * y) for x, y in self._downsamples),
            bounds_l0=(0, 0, *sizes[0]),
            vendor="ome-tiff" if self._file.is_ome else "tiff",
            warnings=warnings,
        )

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide."""
        return self._info

    def read(self, window: Window, mpp: float) -> RgbImage:
        """Read pixels at an mpp; see :class:`pathopan.slide.base.Slide`.

        Raises
        ------
        UnreadableSlide
            If the file is damaged there.
        """
        return read_window(self._read_level, self._downsamples, window, self._info.scale_l0(mpp))

    def _read_level(self, level: int, window: Window) -> tuple[RgbImage, XY]:
        canvas, inside = white_canvas(window, Window(0, 0, *self._sizes[level]))
        if inside.width and inside.height:
            canvas[inside.relative_to(window).slices] = self._read_inside(level, inside)
        return canvas, (float(window.x), float(window.y))

    def _read_inside(self, level: int, window: Window) -> RgbImage:
        rows, columns = window.slices
        whole: dict[str, Any] = {"Y": rows, "X": columns, "S": slice(None), "C": slice(None)}
        key = tuple(whole.get(axis, 0) for axis in self._axes)
        try:
            pixels = np.asarray(self._levels[level][key])
        except TIFF_DAMAGE as error:
            msg = f"{self._info.path}: cannot be read at {window} of level {level}: {error}. Copy the file again"
            raise UnreadableSlide(msg) from error
        kept = [axis for axis in self._axes if axis in whole]
        channels = kept.index("S" if "S" in kept else "C")
        return _on_white(np.moveaxis(pixels, channels, -1))

    def close(self) -> None:
        """Release the file."""
        for level in self._levels:
            level.store.close()
        self._file.close()

    def __enter__(self) -> Self:
        """Close at the end of a ``with`` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()


def _open_levels(path: Path, series: Any) -> list[Any]:
    """Open the levels; refuse chunks that would take gigabytes for a single pixel."""
    try:
        levels = [zarr.open(series.aszarr(level=i), mode="r") for i in range(len(series.levels))]
        largest = max(math.prod(level.chunks) // _SAMPLES[0] for level in levels)
    except TIFF_DAMAGE as error:
        msg = f"{path}: damaged TIFF: {error}. Copy the file again"
        raise UnreadableSlide(msg) from error
    check_chunk(path, largest)
    return levels


def _on_white(pixels: RgbImage) -> RgbImage:
    """Drop alpha; what is transparent becomes white."""
    if pixels.shape[-1] == 3:
        return pixels
    alpha = pixels[..., 3:].astype(np.float32) / 255
    blended: RgbImage = np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return blended


def _size(axes: str, shape: Sequence[int]) -> tuple[int, int]:
    return int(shape[axes.index("X")]), int(shape[axes.index("Y")])


@dataclass(frozen=True)
class TiffDescription:
    """What tifffile knows: the scan, with its levels, and the mpp if the header has one."""

    series: Any
    mpp: XY | None


def describe_tiff(path: Path, file: tifffile.TiffFile) -> TiffDescription:
    """Find the scan in an open TIFF, and its mpp.

    Raises
    ------
    UnreadableSlide
        If the header is damaged or there is no 8-bit color image.
    """
    try:
        series = _color_series(path, file)
        return TiffDescription(series, _header_mpp(file, series))
    except UnreadableSlide:
        raise
    except TIFF_DAMAGE as error:
        msg = f"{path}: damaged TIFF: {error}. Copy the file again"
        raise UnreadableSlide(msg) from error


def _color_series(path: Path, file: tifffile.TiffFile) -> Any:
    """Find the scan: the largest 8-bit color image that is not a label or an overview picture."""
    scans = [s for s in file.series if _is_color(s) and not any(word in s.name.lower() for word in _ASSOCIATED)]
    if not scans:
        _check_whole(path, file)
        some = [f"{s.axes} {tuple(s.shape)} {s.dtype}" for s in file.series[:4] if s.shape]
        found = "; ".join(some) or "nothing readable"
        msg = f"{path}: no 8-bit color image inside ({found}); pathopan reads bright-field RGB slides"
        raise UnreadableSlide(msg)
    return max(scans, key=lambda series: math.prod(_size(series.axes, series.shape)))


def _check_whole(path: Path, file: tifffile.TiffFile) -> None:
    """Refuse a file that ends before its first directory, which scanners write last."""
    handle, place = file.filehandle, 8 if file.tiff.is_bigtiff else 4
    handle.seek(place)
    (directory,) = struct.unpack(file.tiff.offsetformat, handle.read(file.tiff.offsetsize))
    if directory >= handle.size:
        msg = (
            f"{path}: ends at byte {handle.size:,}, before its directory at byte {directory:,}: it was cut off, "
            "as by a copy that stopped. Copy the file again"
        )
        raise UnreadableSlide(msg)


def _is_color(series: Any) -> bool:
    axes = str(series.axes)
    if series.dtype != np.uint8 or "X" not in axes or "Y" not in axes:
        return False
    lengths = dict(zip(axes, series.shape, strict=True))
    channels = lengths.pop("S", 0) or lengths.pop("C", 0)
    others = [length for axis, length in lengths.items() if axis not in "XY"]
    return channels in _SAMPLES and all(length == 1 for length in others)


def _header_mpp(file: tifffile.TiffFile, series: Any) -> tuple[float, float] | None:
    """Take the mpp from OME-XML, from an Aperio description, or from a resolution that a microscope can have."""
    if file.is_ome and (found := _ome_mpp(file.ome_metadata or "", _size(series.axes, series.shape))):
        return found
    if file.is_svs:
        value = tifffile.tifffile.svs_description_metadata(file.pages[0].description).get("MPP")
        return (float(value), float(value)) if value else None
    return _resolution_mpp(series.keyframe)


def _ome_mpp(text: str, size: tuple[int, int]) -> tuple[float, float] | None:
    """Take PhysicalSizeX and PhysicalSizeY of the image of a size."""
    try:
        root = ET.fromstring(text)
    except ET.ParseError:
        return None
    for pixels in (element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"):
        if (pixels.get("SizeX"), pixels.get("SizeY")) != (str(size[0]), str(size[1])):
            continue
        try:
            x, y = (
                float(pixels.attrib[f"PhysicalSize{a}"]) * _UM_PER_UNIT[pixels.get(f"PhysicalSize{a}Unit", "µm")]
                for a in "XY"
            )
        except (KeyError, ValueError):
            return None
        return (x, y) if x > 0 and y > 0 else None
    return None


def _resolution_mpp(page: Any) -> tuple[float, float] | None:
    """Take the mpp from the resolution tags where it is one a microscope can have; 72 dpi is none."""
    unit = _UM_PER_RESOLUTION_UNIT.get(int(page.resolutionunit))
    x, y = page.resolution
    if unit is None or not (x > 0 and y > 0):
        return None
    low, high = RESOLUTION_MPP
    mpp = (unit / x, unit / y)
    return mpp if all(low <= value <= high for value in mpp) else None
