"""Fill the report pages from a finished run: which picture, which regions are worth a look, what the record says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from pathopan.export.bands import Bands, find_bands
from pathopan.export.geoparquet import Bounds, read_columns
from pathopan.export.overlay import Rgb
from pathopan.export.report import CohortPage, Crop, SlidePage
from pathopan.objects import Annotation, CompartmentRules, burn_annotations
from pathopan.result import Result, SlideResult
from pathopan.scores.summary import CALIBRATED

_PICTURE_SIDE = 2048  # pixels of the longer side of a page's picture
_CROP_UM = 300.0
_CROP_MPP = 0.5
_CROP_MIN_MM2 = 0.01  # smaller regions have densities that a single nucleus moves
_CROPS_EACH_END = 3
_NEIGHBOR_UM = 50.0
_SHEET_SIDE = 320  # pixels; the page shrinks further where there are many slides

_QC_NOTES = {
    "tile": ("tiles", "tissue_mm2", "tissue_mpp", "reason"),
    "predict": ("runtime", "device", "precision"),
    "stitch": ("nuclei", "duplicates", "seam_audit"),
}


def slide_page(
    slide: SlideResult,
    *,
    run: Mapping[str, Any],
    definitions: Mapping[str, str],
    field_densities: Sequence[float] = (),
    annotations: Sequence[Annotation] = (),
) -> SlidePage:
    """Gather what a slide's page shows.

    Parameters
    ----------
    slide : SlideResult
        A complete slide.
    run : mapping
        ``run.json``.
    definitions : mapping of str to str
        Column or score to its meaning.
    field_densities : sequence of float
        TILs per mm2, one per field.
    annotations : sequence of Annotation
        What a person drew, in level-0 pixels.
    """
    panoptic = slide.panoptic
    height, width = panoptic.region.shape
    whole = (0.0, 0.0, width * panoptic.mpp, height * panoptic.mpp)
    mpp = max(panoptic.mpp, max(whole) / _PICTURE_SIDE)
    stages = slide.record.get("stages", {})
    region_map = slide.region_map(whole, mpp)
    return SlidePage(
        slide_id=slide.slide_id,
        taxonomy=slide.taxonomy,
        picture=slide.picture(whole, mpp),
        mpp=mpp,
        region_map=region_map,
        bands=_bands(slide, region_map, mpp, annotations),
        nuclei=_nucleus_places(slide),
        regions=slide.regions,
        score=slide.score,
        l0_mpp=slide.mpp_l0,
        definitions=definitions,
        field_densities=field_densities,
        crops=list(extreme_regions(slide)),
        qc={stage: _chosen(stages.get(stage, {}), names) for stage, names in _QC_NOTES.items() if stage in stages},
        warnings=[
            *(text for stage in stages.values() for name in _warnings(stage) for text in stage[name]),
            *slide.record.get("set_aside", []),
        ],
        provenance={**_without(run, "taxonomy"), "slide": _described(slide, run)},
    )


def _bands(slide: SlideResult, classes: npt.NDArray[np.uint8], mpp: float, annotations: Sequence[Annotation]) -> Bands:
    """Draw distance bands by the settings that the slide was scored with."""
    rules = CompartmentRules(**slide.score.get("settings", {}).get("objects", {}))
    scale_l0 = (mpp / slide.mpp_l0[0], mpp / slide.mpp_l0[1])
    if annotations:  # what a person drew stays as drawn, however small
        rules = replace(rules, min_region_um2=0.0)
    burned = burn_annotations(classes, annotations, taxonomy=slide.taxonomy, scale_l0=scale_l0)
    return find_bands(burned.classes, taxonomy=slide.taxonomy, mpp=mpp, rules=rules, drawn=burned.drawn)


def _described(slide: SlideResult, run: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is told of a slide's file; of an anonymous run, not its path."""
    told: dict[str, Any] = slide.record.get("slide", {})
    return _without(told, "path") if run.get("settings", {}).get("export", {}).get("anonymous") else told


def cohort_page(result: Result, *, title: str, definitions: Mapping[str, str]) -> CohortPage:
    """Gather what a cohort's page shows.

    Parameters
    ----------
    result : Result
        A run, all of whose tables are written.
    title : str
        Of the page.
    definitions : mapping of str to str
        Column to its meaning.
    """
    return CohortPage(
        title=title,
        scores=_without_uncalibrated(result.scores),
        thumbnails={slide.slide_id: _small(slide) for slide in result},
        failures=result.failures,
        definitions=definitions,
        provenance=_without(result.run, "taxonomy"),
    )


def extreme_regions(slide: SlideResult) -> Iterator[Crop]:
    """Show the regions with the most and the fewest TILs per area, each where its own TILs stand closest."""
    regions = slide.regions
    fit = regions[(regions["area_mm2"] >= _CROP_MIN_MM2) & regions["til_density_per_mm2"].notna()]
    fit = fit.sort_values(["til_density_per_mm2", "region_id"], ascending=[False, True])
    dense = fit.head(min(_CROPS_EACH_END, (len(fit) + 1) // 2)).assign(end="Dense")
    sparse = fit.tail(max(0, min(_CROPS_EACH_END, len(fit) - len(dense)))).assign(end="Sparse")
    for chosen in (dense, sparse):
        for _, region in chosen.iterrows():
            image = slide.overlay(_square(_focus(slide, region)), mpp=_CROP_MPP, layers=("nuclei",))
            density, area = region["til_density_per_mm2"], region["area_mm2"]
            title = f"{region['end']}: {region['class']} region {region['region_id']}"
            yield Crop(image, title, f"{density:,.0f} TILs per mm² on {area:.2f} mm²; {_CROP_UM:.0f} µm across")


def _nucleus_places(slide: SlideResult) -> pd.DataFrame:
    """Read where nuclei are and what they are; outlines, which are most of the table, are not read."""
    return read_columns(slide.path / "nuclei.parquet", ["x_um", "y_um", "class_id", "region_id"])


def _focus(slide: SlideResult, region: Any) -> npt.NDArray[np.float64]:
    """Find the TIL of a region with the most TILs around it, in micrometres; without TILs, a point inside."""
    nuclei = _nucleus_places(slide)
    inside = nuclei["region_id"].eq(region["region_id"])
    tils = nuclei[inside & nuclei["class_id"].isin(slide.taxonomy.nucleus_ids("til"))]
    points = tils[["x_um", "y_um"]].to_numpy(np.float64)
    if len(points) == 0:
        place = region["geometry"].representative_point()
        return np.array([place.x, place.y]) * slide.mpp_l0
    around = cKDTree(points).query_ball_point(points, _NEIGHBOR_UM, return_length=True)
    return np.asarray(points[int(np.argmax(around))])


def _square(middle: npt.NDArray[np.float64]) -> Bounds:
    x, y = float(middle[0]) - _CROP_UM / 2, float(middle[1]) - _CROP_UM / 2
    return x, y, x + _CROP_UM, y + _CROP_UM


def _without_uncalibrated(scores: pd.DataFrame) -> pd.DataFrame:
    """Leave the calibrated scores out where no calibration was given."""
    found = [name for name in scores.columns if name in CALIBRATED and scores[name].isna().all()]
    return scores.drop(columns=found)


def _small(slide: SlideResult) -> Rgb:
    """Read the coarsest stored picture that still fills a frame of the contact sheet."""
    levels = slide.panoptic.arrays.image
    level = next((a for a in reversed(levels) if max(a.shape) >= _SHEET_SIDE), levels[0])
    return np.ascontiguousarray(np.moveaxis(np.asarray(level[:]), 0, 2))


def _chosen(notes: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: notes[name] for name in names if notes.get(name) not in (None, "")}


def _warnings(stage: Mapping[str, Any]) -> list[str]:
    return [name for name in stage if name.endswith("warnings")]


def _without(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}
