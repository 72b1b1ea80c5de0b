"""The last stages of one slide: objects and scores, then what is written for others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
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
from pathopan.record import SlideRecord, fingerprint, read_json, write_json
from pathopan.result import SlideResult
from pathopan.scores import ScoreRules, score_regions, score_slide
from pathopan.stitcher.ngff import open_panoptic
from pathopan.stitcher.store import region_map
from pathopan.tables import nuclei_schema, regions_schema

RulesT = TypeVar("RulesT", CompartmentRules, ScoreRules)


@dataclass(frozen=True)
class Place:
    """One slide's results on disk, and the settings that scores and exports follow."""

    slide_id: str
    folder: Path
    taxonomy: Taxonomy
    config: Config
    prints: dict[str, str]  # fingerprints of the stages score and export

    @property
    def score_files(self) -> list[Path]:
        """What scoring leaves behind."""
        names = ("panoptic.ome.zarr", "nuclei.parquet", "regions.parquet", "score.json")
        return [self.folder / name for name in names]

    @property
    def export_files(self) -> list[Path]:
        """What exporting leaves behind."""
        files = [self.folder / f"{self.slide_id}.regions.geojson", self.folder / "report.html"]
        nuclei = self.folder / f"{self.slide_id}.nuclei.geojson.gz"
        return files if self.config.export.nuclei == "none" else [*files, nuclei]


def later_prints(stitch_print: str, config: Config) -> dict[str, str]:
    """Sum up what the last stages depend on, beyond the stitched slide: their settings."""
    score = fingerprint(stitch_print, str(config.objects), str(config.scores))
    return {"score": score, "export": fingerprint(score, str(config.export))}


def is_complete(place: Place, record: SlideRecord) -> bool:
    """Say whether everything that these settings lead to is there."""
    return record.is_current("score", place.prints["score"], place.score_files) and record.is_current(
        "export", place.prints["export"], place.export_files
    )


def score_to_files(place: Place, record: SlideRecord) -> None:
    """Find objects and score them; writes ``nuclei.parquet``, ``regions.parquet`` and ``score.json``."""
    if record.is_current("score", place.prints["score"], place.score_files):
        return
    started = time.monotonic()
    write_scores(place.folder, record, config=place.config, taxonomy=place.taxonomy)
    record.finish("score", place.prints["score"], seconds=time.monotonic() - started)


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


def export_to_files(place: Place, record: SlideRecord, *, run: dict[str, Any]) -> None:
    """Write GeoJSON for QuPath and the slide's page."""
    if record.is_current("export", place.prints["export"], place.export_files):
        return
    started = time.monotonic()
    slide_id, config, taxonomy = place.slide_id, place.config.export, place.taxonomy
    result = SlideResult(slide_id, place.folder, taxonomy)
    regions = write_regions_geojson(
        place.folder / f"{slide_id}.regions.geojson", result.regions, taxonomy=taxonomy, slide_id=slide_id
    )
    nuclei = write_nuclei_geojson(
        place.folder / f"{slide_id}.nuclei.geojson.gz",
        iter_geoparquet(place.folder / "nuclei.parquet", schema=nuclei_schema(taxonomy)),
        taxonomy=taxonomy,
        slide_id=slide_id,
        form=config.nuclei,  # type: ignore[arg-type]
        max_vertices=config.max_vertices,
    )
    page = slide_page(
        result, run=run, definitions=definitions(taxonomy), field_densities=_field_densities(result.score)
    )
    write_slide_report(place.folder / "report.html", page)
    notes = {
        "geojson": {
            "regions": {"objects": regions.objects, "repaired": regions.repaired, "dropped": regions.dropped},
            "nuclei": {"objects": nuclei.objects, "repaired": nuclei.repaired, "dropped": nuclei.dropped},
        }
    }
    record.finish("export", place.prints["export"], seconds=time.monotonic() - started, notes=notes)


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
