"""The last stages of one slide: objects and scores, then what is written for others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import geopandas as gpd
import numpy as np

from pathopan.classes import Taxonomy
from pathopan.config import Config
from pathopan.definitions import definitions
from pathopan.errors import ResultError
from pathopan.export.geojson import write_nuclei_geojson, write_regions_geojson
from pathopan.export.geoparquet import iter_geoparquet, read_geoparquet, write_geoparquet
from pathopan.export.report import write_slide_report
from pathopan.files import remove
from pathopan.objects import CompartmentRules, SlideObjects, find_objects
from pathopan.pages import slide_page
from pathopan.record import SlideRecord, read_json, write_json
from pathopan.result import SlideResult
from pathopan.scores import ScoreRules, score_regions, score_slide
from pathopan.stages import Job
from pathopan.stitcher.ngff import open_panoptic
from pathopan.stitcher.store import region_map
from pathopan.tables import nuclei_schema, regions_schema

RulesT = TypeVar("RulesT", CompartmentRules, ScoreRules)


def score_files(folder: Path) -> list[Path]:
    """Name what scoring leaves in a slide's folder."""
    return [folder / name for name in ("panoptic.ome.zarr", "nuclei.parquet", "regions.parquet", "score.json")]


def export_files(folder: Path, slide_id: str, *, nuclei: str) -> list[Path]:
    """Name what exporting leaves in a slide's folder."""
    files = [folder / f"{slide_id}.regions.geojson", folder / "report.html"]
    return files if nuclei == "none" else [*files, folder / f"{slide_id}.nuclei.geojson.gz"]


def is_complete(job: Job, record: SlideRecord) -> bool:
    """Say whether everything that these settings lead to is there."""
    exported = export_files(job.folder, job.entry.slide_id, nuclei=job.config.export.nuclei)
    return record.is_current("score", job.prints["score"], score_files(job.folder)) and record.is_current(
        "export", job.prints["export"], exported
    )


def score_files_of_slide(job: Job, record: SlideRecord) -> None:
    """Find objects and score them; writes ``nuclei.parquet``, ``regions.parquet`` and ``score.json``."""
    if record.is_current("score", job.prints["score"], score_files(job.folder)):
        return
    started = time.monotonic()
    write_scores(job.folder, record, config=job.config, taxonomy=job.taxonomy)
    record.finish("score", job.prints["score"], seconds=time.monotonic() - started)


def write_scores(folder: Path, record: SlideRecord, *, config: Config, taxonomy: Taxonomy) -> None:
    """Score what a slide's folder holds; needs neither the slide nor the network."""
    objects = objects_of(folder, record, config=config, taxonomy=taxonomy)
    rules = rules_from(ScoreRules, config)
    score = score_slide(objects, slide_id=record.entries["slide_id"], rules=rules)
    write_geoparquet(folder / "regions.parquet", score_regions(objects, rules=rules), schema=regions_schema(taxonomy))
    write_geoparquet(folder / "nuclei.parquet", objects.nuclei, schema=nuclei_schema(taxonomy))
    write_json(folder / "score.json", score.to_dict())
    remove(folder / "detections.parquet")


def objects_of(folder: Path, record: SlideRecord, *, config: Config, taxonomy: Taxonomy) -> SlideObjects:
    """Read a slide's region map and nuclei, and find its objects."""
    arrays = open_panoptic(folder / "panoptic.ome.zarr")
    regions, mpp = region_map(arrays, config.objects.region_mpp)
    mpp_l0 = record.entries["slide"]["mpp_l0"]
    return find_objects(
        regions,
        read_detections(folder),
        taxonomy=taxonomy,
        mpp=mpp,
        scale_l0=(mpp / mpp_l0[0], mpp / mpp_l0[1]),
        rules=rules_from(CompartmentRules, config),
    )


def read_detections(folder: Path) -> gpd.GeoDataFrame:
    """Read a slide's nuclei: fresh from the stitcher, or from a table that was scored before.

    Raises
    ------
    ResultError
        If neither is there.
    """
    for name in ("detections.parquet", "nuclei.parquet"):
        if (folder / name).is_file():
            return read_geoparquet(folder / name)
    msg = f"{folder}: neither detections.parquet nor nuclei.parquet; run this slide again"
    raise ResultError(msg)


def rules_from(kind: Callable[..., RulesT], config: Config) -> RulesT:
    """Fill a room's rules from the settings of the same names."""
    values: dict[str, Any] = {**config.to_dict()["objects"], **config.to_dict()["scores"]}
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in names})


def export_slide(job: Job, record: SlideRecord, *, run: dict[str, Any]) -> None:
    """Write GeoJSON for QuPath and the slide's page."""
    slide_id, config = job.entry.slide_id, job.config.export
    if record.is_current("export", job.prints["export"], export_files(job.folder, slide_id, nuclei=config.nuclei)):
        return
    started = time.monotonic()
    taxonomy = job.taxonomy
    result = SlideResult(slide_id, job.folder, taxonomy)
    regions = write_regions_geojson(
        job.folder / f"{slide_id}.regions.geojson", result.regions, taxonomy=taxonomy, slide_id=slide_id
    )
    nuclei = write_nuclei_geojson(
        job.folder / f"{slide_id}.nuclei.geojson.gz",
        iter_geoparquet(job.folder / "nuclei.parquet", schema=nuclei_schema(taxonomy)),
        taxonomy=taxonomy,
        slide_id=slide_id,
        form=config.nuclei,  # type: ignore[arg-type]
        max_vertices=config.max_vertices,
    )
    page = slide_page(
        result, run=run, definitions=definitions(taxonomy), field_densities=_field_densities(result.score)
    )
    write_slide_report(job.folder / "report.html", page)
    notes = {
        "geojson": {
            "regions": {"objects": regions.objects, "repaired": regions.repaired, "dropped": regions.dropped},
            "nuclei": {"objects": nuclei.objects, "repaired": nuclei.repaired, "dropped": nuclei.dropped},
        }
    }
    record.finish("export", job.prints["export"], seconds=time.monotonic() - started, notes=notes)


def _field_densities(score: dict[str, Any]) -> list[float]:
    """TIL densities of the fields that hold stroma of the bed, or any stroma where there is no bed."""
    for name in ("stroma_in_bed_til_per_mm2", "stroma_til_per_mm2"):
        found = [row[name] for row in score.get("fields", []) if row.get(name) is not None]
        if found:
            return [float(value) for value in found if np.isfinite(value)]
    return []


def read_slide_json(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Read a slide's score (``None`` if it has none) and its record."""
    return read_json(folder / "score.json"), read_json(folder / "record.json") or {}
