"""What a finished run is written as for others' programs: one function per format, each slide by slide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pandas as pd

from pathopan.config import Config, Format
from pathopan.export.geoparquet import copy_geoparquet, iter_geoparquet, write_csv
from pathopan.export.histomicsui import write_nuclei_annotation, write_regions_annotation
from pathopan.export.ome_zarr import copy_panoptic
from pathopan.export.qupath_project import PROJECT_SCRIPT_NAME, ProjectSlide, write_project_script
from pathopan.export.sections import find_value
from pathopan.export.spatialdata import SpatialSlide, write_spatialdata
from pathopan.result import Result, SlideResult
from pathopan.tables import nuclei_schema

EXPORTS = "exports"
"""Folder in a run's folder where formats go if no other is given; each has its own folder in it."""

_SHOWN_IN_PROJECT = {
    "stil_percent": "sTIL %",
    "stil_density_per_mm2": "sTIL per mm^2",
    "itil_per_mm2": "iTIL per mm^2",
    "phenotype": "TIL phenotype",
}


@dataclass(frozen=True)
class Order:
    """What to write, and where."""

    result: Result
    slides: Sequence[SlideResult]
    config: Config
    folder: Path  # each format has its own folder in it


def write_formats(order: Order, formats: Sequence[Format]) -> Iterator[Path]:
    """Write a run as other formats; yields each file or folder once it is written.

    Parameters
    ----------
    order : Order
        Slides, settings, and where to.
    formats : sequence of Format
        Any but ``geojson``, which lies in the slides' own folders.

    Raises
    ------
    MissingExtra
        If a format needs a library that is not installed.
    ResultError
        If a slide's files are incomplete.
    """
    for name in dict.fromkeys(formats):
        yield from _WRITERS[name](order, order.folder / name)


def _csv(order: Order, folder: Path) -> Iterator[Path]:
    for slide in order.slides:
        nuclei = iter_geoparquet(slide.path / "nuclei.parquet", schema=nuclei_schema(slide.taxonomy))
        first = pd.DataFrame(columns=nuclei_schema(slide.taxonomy).names)  # the header, also without nuclei
        tables = {"nuclei": chain([first], nuclei), "regions": iter([slide.regions])}
        for name, parts in tables.items():
            target = folder / f"{slide.slide_id}.{name}.csv"
            write_csv(target, (part.drop(columns="geometry") for part in parts))
            yield target


def _geoparquet(order: Order, folder: Path) -> Iterator[Path]:
    for slide in order.slides:
        for name in ("nuclei", "regions"):
            target = folder / name / f"{slide.slide_id}.parquet"
            copy_geoparquet(slide.path / f"{name}.parquet", target, slide_id=slide.slide_id)
            yield target


def _ome_zarr(order: Order, folder: Path) -> Iterator[Path]:
    for slide in order.slides:
        target = folder / f"{slide.slide_id}.ome.zarr"
        version = "0.4" if order.config.export.ngff == "0.4" else "0.5"
        copy_panoptic(slide.path / "panoptic.ome.zarr", target, taxonomy=slide.taxonomy, version=version)  # type: ignore[arg-type]
        yield target


def _spatialdata(order: Order, folder: Path) -> Iterator[Path]:
    for slide in order.slides:
        target = folder / f"{slide.slide_id}.spatialdata.zarr"
        write_spatialdata(target, SpatialSlide(slide.slide_id, slide.nuclei, slide.regions, slide.mpp_l0, slide.score))
        yield target


def _histomicsui(order: Order, folder: Path) -> Iterator[Path]:
    for slide in order.slides:
        x, y, *_ = slide.record["slide"].get("bounds_l0", (0, 0))
        regions, nuclei = (folder / f"{slide.slide_id}.{name}.json" for name in ("regions", "nuclei"))
        write_regions_annotation(regions, slide.regions, taxonomy=slide.taxonomy, origin_l0=(x, y))
        yield regions
        write_nuclei_annotation(
            nuclei,
            iter_geoparquet(slide.path / "nuclei.parquet", schema=nuclei_schema(slide.taxonomy)),
            taxonomy=slide.taxonomy,
            origin_l0=(x, y),
            max_vertices=order.config.export.max_vertices,
        )
        yield nuclei


def _qupath_project(order: Order, folder: Path) -> Iterator[Path]:
    told = not order.config.export.anonymous  # without paths QuPath adds no slides, but knows those it has by their ids
    slides = {
        slide.slide_id: ProjectSlide(
            str(slide.record["slide"].get("path", slide.slide_id)) if told else slide.slide_id, dict(_shown(slide))
        )
        for slide in order.slides
    }
    target = folder / PROJECT_SCRIPT_NAME
    yield write_project_script(target, order.result.path, taxonomy=order.result.taxonomy, slides=slides)


def _shown(slide: SlideResult) -> Iterator[tuple[str, str]]:
    for name, title in _SHOWN_IN_PROJECT.items():
        value, _ = find_value(slide.score, name)
        if value is not None:
            yield title, f"{value:.4g}" if isinstance(value, float) else str(value)


_WRITERS: Mapping[Format, Callable[[Order, Path], Iterator[Path]]] = {
    Format.csv: _csv,
    Format.geoparquet: _geoparquet,
    Format.ome_zarr: _ome_zarr,
    Format.spatialdata: _spatialdata,
    Format.histomicsui: _histomicsui,
    Format.qupath_project: _qupath_project,
}
