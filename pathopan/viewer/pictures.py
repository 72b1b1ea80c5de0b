"""Pixels of a slide for several threads at once, from its file or else from the picture in the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import numpy as np
import zarr

from pathopan.errors import SlideError, UnreadableSlide
from pathopan.geometry import Window
from pathopan.result import SlideResult
from pathopan.slide import RgbImage, Slide, open_slide
from pathopan.slide.resample import XY, read_window, white_canvas


class StoredPicture:
    """The picture of ``panoptic.ome.zarr``, read at any mpp.

    Parameters
    ----------
    levels : sequence of (3, Y, X) arrays
        Finest first, each half as wide as the one before.
    mpp : float
        Micrometres per pixel of the finest.
    """

    def __init__(self, levels: Sequence[zarr.Array], mpp: float) -> None:
        """Keep the levels; nothing is read yet."""
        self._levels = levels
        self._downsamples = [(2.0**level, 2.0**level) for level in range(len(levels))]
        self.mpp = mpp

    def read(self, window: Window, mpp: float) -> RgbImage:
        """Read pixels at an mpp; see :class:`pathopan.slide.base.Slide`."""
        return read_window(self._read_level, self._downsamples, window, (mpp / self.mpp, mpp / self.mpp))

    def coarsest(self, side: int) -> RgbImage:
        """Read the coarsest level that is at least ``side`` pixels wide or high, or else the finest."""
        level = next((a for a in reversed(self._levels) if max(a.shape[1:]) >= side), self._levels[0])
        return np.ascontiguousarray(np.moveaxis(np.asarray(level[:]), 0, 2))

    def _read_level(self, level: int, window: Window) -> tuple[RgbImage, XY]:
        array = self._levels[level]
        canvas, inside = white_canvas(window, Window(0, 0, array.shape[2], array.shape[1]))
        if inside.width and inside.height:
            pixels = np.asarray(array[(slice(None), *inside.slices)])
            canvas[inside.relative_to(window).slices] = np.moveaxis(pixels, 0, 2)
        return canvas, (float(window.x), float(window.y))


class PictureReader:
    """Reads a slide's pixels; each read has a handle to itself, and handles are kept for the next.

    Parameters
    ----------
    slide : SlideResult
        Whose record says where the file is. If it is not there, cannot be read or has another size, the stored
        picture takes its place.
    """

    def __init__(self, slide: SlideResult) -> None:
        """Open the first handle."""
        arrays = slide.panoptic.arrays
        self.stored = StoredPicture(arrays.image, arrays.image_mpp)
        self._slide = slide
        self._idle: deque[Slide] = deque()
        self._closed = Event()
        self.trouble = self._try_open()

    def read(self, window: Window, mpp: float) -> RgbImage:
        """Read pixels at an mpp; where the file is damaged, from the stored picture."""
        if self.trouble:
            return self.stored.read(window, mpp)
        handle = None
        try:
            handle = self._take()
            pixels = handle.read(window, mpp)
        except SlideError:  # OpenSlide refuses all later reads of a handle that met damage
            if handle is not None:
                handle.close()
            return self.stored.read(window, mpp)
        self._give_back(handle)
        return pixels

    def close(self) -> None:
        """Close all handles; those in use are closed when their read ends."""
        self._closed.set()
        while self._idle:
            self._idle.pop().close()

    def _try_open(self) -> str:
        """Open the file once; gives why it cannot be used, or nothing."""
        try:
            self._idle.append(self._open())
        except SlideError as error:
            return str(error)
        return ""

    def _open(self) -> Slide:
        kept = self._slide.record.get("slide", {})
        mpp_x, mpp_y = self._slide.mpp_l0
        path = Path(str(kept.get("path", "")))
        given = mpp_x if mpp_x == mpp_y else None  # only a file can say two different numbers
        handle = open_slide(path, slide_id=self._slide.slide_id, slide_mpp=given)
        if list(handle.info.size_l0) != list(kept.get("size_l0", handle.info.size_l0)):
            handle.close()
            msg = f"{path}: has another size than the slide that was scored; put that one back"
            raise UnreadableSlide(msg)
        return handle

    def _take(self) -> Slide:
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def _give_back(self, handle: Slide) -> None:
        self._idle.append(handle)
        if self._closed.is_set():
            self.close()
