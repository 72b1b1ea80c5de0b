"""Slides that are being looked at: opened when asked for, a few kept, the one unused for longest closed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.export.geoparquet import read_columns
from pathopan.geometry import Window
from pathopan.result import Result, SlideResult
from pathopan.viewer.layers import (
    Density,
    density_tile,
    encode_classes,
    encode_jpeg,
    encode_rgba,
    find_density,
    nucleus_colors,
    read_labels,
    region_colors,
)
from pathopan.viewer.pictures import PictureReader, StoredPicture
from pathopan.viewer.plane import Plane

_KEPT = 4
_THUMBNAIL = 160


@dataclass(frozen=True)
class Exhibit:
    """One slide on show; what takes long to read is read once, when first asked for."""

    slide: SlideResult
    picture: PictureReader

    @cached_property
    def plane(self) -> Plane:
        """Where its tiles lie."""
        mpp = min(self.slide.mpp_l0)
        size_l0 = self.slide.record["slide"]["size_l0"]
        width, height = (round(n * m / mpp) for n, m in zip(size_l0, self.slide.mpp_l0, strict=True))
        return Plane(mpp, (width, height))

    @cached_property
    def kinds(self) -> pd.DataFrame:
        """Id, class id and place of each nucleus."""
        return read_columns(self.slide.path / "nuclei.parquet", ["nucleus_id", "class_id", "x_um", "y_um"])

    @cached_property
    def class_of(self) -> npt.NDArray[np.uint8]:
        """(N + 1,) uint8, the class of each nucleus id."""
        ids = self.kinds["nucleus_id"].to_numpy()
        table = np.zeros(int(ids.max(initial=0)) + 1, np.uint8)
        table[ids] = self.kinds["class_id"]
        return table

    @cached_property
    def density(self) -> Density:
        """How densely TILs stand."""
        tils = self.kinds[self.kinds["class_id"].isin(self.slide.taxonomy.nucleus_ids("til"))]
        return find_density(self.slide, tils[["x_um", "y_um"]].to_numpy(np.float64))

    def picture_tile(self, window: Window, mpp: float) -> bytes:
        """Give the slide itself, as JPEG."""
        return encode_jpeg(self.picture.read(window, mpp))

    def region_tile(self, window: Window, mpp: float, *, hidden: frozenset[int] = frozenset()) -> bytes:
        """Give region classes in their colors, as PNG."""
        arrays = self.slide.panoptic.arrays
        found = read_labels(arrays.regions, arrays.label_mpp, window=window, mpp=mpp)
        scored = self.slide.with_edit(found, window, mpp)
        return encode_classes(scored, region_colors(self.slide.taxonomy, hidden))

    def nucleus_tile(self, window: Window, mpp: float, *, hidden: frozenset[int] = frozenset()) -> bytes:
        """Give nuclei in the colors of their classes, as PNG."""
        arrays = self.slide.panoptic.arrays
        ids = read_labels(arrays.nuclei, arrays.label_mpp, window=window, mpp=mpp)
        known = np.where(ids < len(self.class_of), ids, 0)
        return encode_classes(self.class_of[known], nucleus_colors(self.slide.taxonomy, hidden))

    def density_tile(self, window: Window, mpp: float) -> bytes:
        """Give the density of TILs, as PNG."""
        return encode_rgba(density_tile(self.density, window, mpp))


class Gallery:
    """The slides of a run by number, in the order of its score table.

    Parameters
    ----------
    result : Result
        The run, as it was when the viewer started.
    """

    def __init__(self, result: Result) -> None:
        """Open no slide yet."""
        self.result = result
        self.slide_ids = tuple(result.slide_ids)
        self._open: OrderedDict[int, Exhibit] = OrderedDict()
        self._lock = Lock()

    def exhibit(self, number: int) -> Exhibit:
        """Give a slide, opened.

        Raises
        ------
        IndexError
            If there is no slide of that number.
        ResultError
            If its files are missing or damaged.
        """
        with self._lock:
            if number not in self._open:
                slide = self.slide(number)
                self._open[number] = Exhibit(slide, PictureReader(slide))
            self._open.move_to_end(number)
            closing = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - _KEPT)]
            found = self._open[number]
        for exhibit in closing:
            exhibit.picture.close()
        return found

    def slide(self, number: int) -> SlideResult:
        """Give a slide's results without opening its picture.

        Raises
        ------
        IndexError
            If there is no slide of that number.
        """
        if not 0 <= number < len(self.slide_ids):
            msg = f"slide {number} of {len(self.slide_ids)}"
            raise IndexError(msg)
        name = self.slide_ids[number]
        return SlideResult(name, Path(self.result.path) / "slides" / name, self.result.taxonomy)

    def thumbnail(self, number: int) -> bytes:
        """Give the stored picture of a whole slide, small, as JPEG."""
        arrays = self.slide(number).panoptic.arrays
        picture = StoredPicture(arrays.image, arrays.image_mpp).coarsest(_THUMBNAIL)
        step = max(1, max(picture.shape[:2]) // (2 * _THUMBNAIL))
        return encode_jpeg(np.ascontiguousarray(picture[::step, ::step]))

    def close(self) -> None:
        """Close all slides."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].picture.close()
