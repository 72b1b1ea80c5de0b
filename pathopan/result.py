"""A finished run, opened: tables, scores, label maps and pictures, each read when it is asked for.

>>> slide = open_result("results").slide("CMU-1-Small-Region")       # doctest: +SKIP
>>> slide.nuclei, slide.regions, slide.overlay()                     # doctest: +SKIP
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from pathopan.classes import Taxonomy
from pathopan.errors import IncompatibleBundle, ResultError, UnreadableSlide
from pathopan.export.annotations import EDITED_REGIONS, paint_scored
from pathopan.export.geoparquet import Bounds, read_geoparquet, read_table
from pathopan.export.overlay import Rgb, blend_regions, draw_outlines
from pathopan.files import read_file
from pathopan.geometry import Window, centres_within, nearest_pixels, resize_labels
from pathopan.slide import open_slide
from pathopan.stitcher.ngff import PanopticArrays, open_panoptic
from pathopan.tables import nuclei_schema

Layer = Literal["regions", "nuclei"]

_FAILURE_COLUMNS = ["slide_id", "path", "stage", "error", "message", "remedy"]


class Thumbnail(NamedTuple):
    """A picture of the whole slide."""

    image: Rgb  # (Y, X, 3) uint8
    mpp: float  # um per pixel


@dataclass(frozen=True)
class Panoptic:
    """The two label maps of a slide, on disk: one value per pixel in each."""

    region: zarr.Array  # (Y, X) uint8, class ids as the network gave them; 0 was not analysed
    nucleus: zarr.Array  # (Y, X) uint32, nucleus_id; 0 is none
    mpp: float  # um per pixel
    arrays: PanopticArrays  # all levels, and the picture


def open_result(path: str | Path) -> Result:
    """Open the folder that a run wrote.

    Parameters
    ----------
    path : str or Path
        The folder given to ``pathopan run --out``.

    Raises
    ------
    ResultError
        If there is no such folder, or it holds no run.
    """
    folder = Path(path)
    if not folder.is_dir():
        msg = f"{folder} is no folder; give the one that a run wrote its results to"
        raise ResultError(msg)
    return Result(folder, _read_json(folder / "run.json"))


@dataclass(frozen=True)
class Result:
    """A run: its slides in order, its tables, and how it was made."""

    path: Path
    run: dict[str, Any] = field(repr=False)  # run.json: versions, command, settings, bundle

    @property
    def taxonomy(self) -> Taxonomy:
        """Classes of the bundle that the run used.

        Raises
        ------
        ResultError
            If the record does not hold them.
        """
        try:
            return Taxonomy.from_dict(self.run["taxonomy"])
        except (KeyError, IncompatibleBundle) as error:
            msg = f"{self.path / 'run.json'} holds no usable taxonomy; it was written by another version ({error!r})"
            raise ResultError(msg) from error

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per slide; a failed slide has its row too, with empty scores."""
        return read_table(self.path / "scores.parquet", needs=("slide_id",))

    @cached_property
    def regions(self) -> gpd.GeoDataFrame:
        """All slides' regions, with their TIL scores; geometry in each slide's level-0 pixels."""
        return read_geoparquet(self.path / "regions.parquet")

    @property
    def nuclei(self) -> NucleiBySlide:
        """Nuclei of each slide, read when asked for: ``result.nuclei["S-1"]``, or ``result.nuclei.load()`` for all."""
        return NucleiBySlide(self)

    @cached_property
    def failures(self) -> pd.DataFrame:
        """Slides that failed: their file, at which stage, why, and what to do; without rows if none did."""
        path = self.path / "failures.csv"
        empty = not path.exists() or not path.stat().st_size
        return pd.DataFrame(columns=_FAILURE_COLUMNS) if empty else read_table(path, needs=("slide_id",))

    @property
    def slide_ids(self) -> list[str]:
        """Slides that are complete, in the order of the score table."""
        failed = set(self.scores["slide_id"][self.scores["status"] == "failed"]) if "status" in self.scores else set()
        return [slide.slide_id for slide in self.stored() if slide.slide_id not in failed]

    def slide(self, slide_id: str) -> SlideResult:
        """Open one slide's results.

        Raises
        ------
        ResultError
            If the run has no such slide, or it did not finish.
        """
        if slide_id in self.slide_ids:
            return SlideResult(slide_id, self.path / "slides" / slide_id, self.taxonomy)
        failed = self.failures[self.failures["slide_id"].astype(str) == slide_id]
        if len(failed):
            msg = f"slide {slide_id!r} failed: {failed.iloc[0]['message']}; {failed.iloc[0]['remedy']}"
        elif slide_id in {str(name) for name in self.scores["slide_id"]}:
            msg = f"slide {slide_id!r} is not complete in {self.path}; run it again"
        else:
            msg = f"{self.path} has no slide {slide_id!r}; it has {', '.join(self.slide_ids) or 'none'}"
        raise ResultError(msg)

    def stored(self) -> Iterator[SlideResult]:
        """Yield every slide with a score on disk: also one that failed later, whose files are of an earlier run."""
        for name in map(str, self.scores["slide_id"]):
            folder = self.path / "slides" / name
            if Path(name).name == name and (folder / "score.json").is_file():  # no way out of here
                yield SlideResult(name, folder, self.taxonomy)

    def __iter__(self) -> Iterator[SlideResult]:
        """Yield the complete slides."""
        return (self.slide(name) for name in self.slide_ids)

    def __len__(self) -> int:
        """Count the complete slides."""
        return len(self.slide_ids)


@dataclass(frozen=True)
class NucleiBySlide(Mapping[str, gpd.GeoDataFrame]):
    """The nuclei of a run, slide by slide: a mapping that reads a slide's table when it is asked for."""

    result: Result

    def __getitem__(self, slide_id: str) -> gpd.GeoDataFrame:
        """Read one slide's nuclei; see :attr:`SlideResult.nuclei`."""
        if slide_id not in self.result.slide_ids:
            raise KeyError(slide_id)
        return self.result.slide(slide_id).nuclei

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the complete slides."""
        return iter(self.result.slide_ids)

    def __len__(self) -> int:
        """Count the complete slides."""
        return len(self.result)

    def load(self) -> gpd.GeoDataFrame:
        """Read all slides' nuclei into one table with a column ``slide_id``: about 1 kB a nucleus in memory."""
        tables = [table.assign(slide_id=name) for name, table in self.items()]
        return gpd.GeoDataFrame(pd.concat([table for table in tables if len(table)] or tables, ignore_index=True))


@dataclass(frozen=True)
class SlideResult:
    """One slide's results, each read when it is first asked for."""

    slide_id: str
    path: Path
    taxonomy: Taxonomy = field(repr=False)

    @cached_property
    def nuclei(self) -> gpd.GeoDataFrame:
        """One row per nucleus; geometry in level-0 pixels."""
        return self.nuclei_in(None)

    @cached_property
    def regions(self) -> gpd.GeoDataFrame:
        """One row per connected region, with its TIL scores; geometry in level-0 pixels."""
        return read_geoparquet(self.path / "regions.parquet")

    @cached_property
    def score(self) -> dict[str, Any]:
        """The slide's scores, with numerators, denominators and reasons."""
        return _read_json(self.path / "score.json")

    @cached_property
    def record(self) -> dict[str, Any]:
        """What each stage did, with which inputs and for how long."""
        return _read_json(self.path / "record.json")

    @cached_property
    def panoptic(self) -> Panoptic:
        """The label maps."""
        arrays = open_panoptic(self.path / "panoptic.ome.zarr")
        return Panoptic(arrays.regions[0], arrays.nuclei[0], arrays.label_mpp, arrays)

    @property
    def mpp_l0(self) -> tuple[float, float]:
        """Micrometres per level-0 pixel along x and y.

        Raises
        ------
        ResultError
            If the record does not say.
        """
        try:
            x, y = map(float, self.record["slide"]["mpp_l0"])
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{self.path / 'record.json'} does not say slide.mpp_l0; run this slide again"
            raise ResultError(msg) from error
        return x, y

    def nuclei_in(self, bounds_um: Bounds | None) -> gpd.GeoDataFrame:
        """Read the nuclei whose bounding box meets a rectangle; others are not read at all.

        Parameters
        ----------
        bounds_um : (float, float, float, float), optional
            ``x0, y0, x1, y1`` in micrometres from the slide's corner; without it, all.
        """
        bounds = None if bounds_um is None else self._l0_from_um(bounds_um)
        return read_geoparquet(self.path / "nuclei.parquet", schema=nuclei_schema(self.taxonomy), bounds_l0=bounds)

    def thumbnail(self) -> Thumbnail:
        """Read the picture of the whole slide."""
        arrays = self.panoptic.arrays
        return Thumbnail(np.ascontiguousarray(np.moveaxis(arrays.image[0][:], 0, 2)), arrays.image_mpp)

    def picture(self, bounds_um: Bounds, mpp: float) -> Rgb:
        """Read a rectangle of the slide: from the slide itself where it still lies, else from the stored picture.

        Parameters
        ----------
        bounds_um : (float, float, float, float)
            ``x0, y0, x1, y1`` in micrometres from the slide's corner.
        mpp : float
            Micrometres per pixel of the result.

        Returns
        -------
        (Y, X, 3) uint8
        """
        window = _window(bounds_um, mpp)
        slide, (mpp_x, mpp_y) = self.record.get("slide", {}), self.mpp_l0
        given = mpp_x if mpp_x == mpp_y else None  # only a file can say two different numbers
        try:
            with open_slide(Path(slide["path"]), slide_id=self.slide_id, slide_mpp=given) as source:
                return source.read(window, mpp)
        except (KeyError, UnreadableSlide):
            arrays = self.panoptic.arrays
            stored = np.moveaxis(np.asarray(arrays.image[0][:]), 0, 2)
            rows, columns = nearest_pixels(window, mpp, arrays.image_mpp, stored.shape[:2])
            return np.ascontiguousarray(stored[np.ix_(rows, columns)])

    def region_map(self, bounds_um: Bounds, mpp: float) -> npt.NDArray[np.uint8]:
        """Read a rectangle of the region map; pixels outside the slide are 0. Where a person edited it, that shows.

        Parameters
        ----------
        bounds_um : (float, float, float, float)
            ``x0, y0, x1, y1`` in micrometres from the slide's corner.
        mpp : float
            Micrometres per pixel of the result; each takes the nearest stored value.

        Returns
        -------
        (Y, X) uint8
        """
        arrays = self.panoptic.arrays
        finest = int(np.clip(np.floor(np.log2(max(mpp / arrays.label_mpp, 1.0))), 0, len(arrays.regions) - 1))
        level, level_mpp = arrays.regions[finest], arrays.label_mpp * 2**finest
        window = _window(bounds_um, mpp)
        rows, columns = nearest_pixels(window, mpp, level_mpp, level.shape)
        block = np.asarray(level[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        found = block[np.ix_(rows - rows[0], columns - columns[0])]
        inside_y = centres_within(window.y, window.height, level.shape[0] * level_mpp / mpp)
        inside_x = centres_within(window.x, window.width, level.shape[1] * level_mpp / mpp)
        shown = np.where(inside_y[:, None] & inside_x, found, 0).astype(np.uint8)
        return self.with_edit(shown, window, mpp)

    def with_edit(self, shown: npt.NDArray[np.uint8], window: Window, mpp: float) -> npt.NDArray[np.uint8]:
        """Put the regions that a person edited, if one did, over a window of the network's region map."""
        if not (self.path / EDITED_REGIONS).is_file():
            return shown
        x, y = self.mpp_l0
        origin, scale = (window.x, window.y), (x / mpp, y / mpp)
        return paint_scored(shown, self.regions, taxonomy=self.taxonomy, origin_px=origin, px_per_l0=scale)

    def overlay(
        self,
        bounds_um: Bounds | None = None,
        *,
        mpp: float | None = None,
        layers: Sequence[Layer] = ("regions", "nuclei"),
        opacity: float = 0.35,
    ) -> Rgb:
        """Draw region colors and nucleus outlines on the slide.

        Parameters
        ----------
        bounds_um : (float, float, float, float), optional
            ``x0, y0, x1, y1`` in micrometres from the slide's corner; without it, the whole slide.
        mpp : float, optional
            Micrometres per pixel of the result; without it, those of the thumbnail.
        layers : sequence of {"regions", "nuclei"}
            What to draw.
        opacity : float
            Of the region colors, 0 to 1.

        Returns
        -------
        (Y, X, 3) uint8
        """
        picture, bounds, scale = self._canvas(bounds_um, mpp)
        if "regions" in layers:
            colors = {c.id: c.color for c in self.taxonomy.regions if c.role != "background"}
            regions = resize_labels(self.region_map(bounds, scale), (picture.shape[1], picture.shape[0]))
            picture = blend_regions(picture, regions, colors=colors, opacity=opacity)
        if "nuclei" in layers:
            left, top, *_ = self._l0_from_um(bounds)
            picture = draw_outlines(
                picture,
                self.nuclei_in(bounds),
                colors={c.id: c.color for c in self.taxonomy.nuclei},
                origin_l0=(left, top),
                scale_l0=(scale / self.mpp_l0[0], scale / self.mpp_l0[1]),
                thickness=1 if scale > 0.3 else 2,
            )
        return picture

    def _canvas(self, bounds_um: Bounds | None, mpp: float | None) -> tuple[Rgb, Bounds, float]:
        if bounds_um is not None or mpp is not None:
            scale = mpp or self.panoptic.arrays.image_mpp
            bounds = bounds_um or self._whole_um()
            window = _window(bounds, scale)
            exact = (window.x * scale, window.y * scale, window.x1 * scale, window.y1 * scale)
            return self.picture(bounds, scale), exact, scale
        image, scale = self.thumbnail()
        return image, (0.0, 0.0, image.shape[1] * scale, image.shape[0] * scale), scale

    def _whole_um(self) -> Bounds:
        height, width = self.panoptic.region.shape
        return 0.0, 0.0, width * self.panoptic.mpp, height * self.panoptic.mpp

    def _l0_from_um(self, bounds_um: Bounds) -> Bounds:
        x, y = self.mpp_l0
        return bounds_um[0] / x, bounds_um[1] / y, bounds_um[2] / x, bounds_um[3] / y


def _window(bounds_um: Bounds, mpp: float) -> Window:
    """Round a rectangle to whole pixels; it has at least one."""
    x, y = round(bounds_um[0] / mpp), round(bounds_um[1] / mpp)
    return Window(x, y, max(1, round(bounds_um[2] / mpp) - x), max(1, round(bounds_um[3] / mpp) - y))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(read_file(path))
    except (OSError, ValueError, RecursionError) as error:
        state = "is damaged" if path.exists() else "is missing"
        msg = f"{path} {state}; run again, finished slides are kept ({type(error).__name__})"
        raise ResultError(msg) from error
    if not isinstance(stored, dict):
        msg = f"{path} is damaged: it holds no JSON object; run again"
        raise ResultError(msg)
    return stored
