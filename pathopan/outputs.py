"""One slide's results on disk: what they depend on, and what is written for others."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pathopan.calibration import StoredCalibration, applied_calibration
from pathopan.classes import Taxonomy
from pathopan.collecting import collecting_rarely
from pathopan.config import Config
from pathopan.definitions import definitions
from pathopan.edits import edit_print, load_edit
from pathopan.export.geojson import Ground, PieceOf, Written, piece_path, write_nuclei_geojson, write_regions_geojson
from pathopan.export.geoparquet import count_rows, iter_geoparquet
from pathopan.export.pieces import MAX_PIECES, find_pieces
from pathopan.export.report import SlidePage, write_slide_report
from pathopan.inference.ordered import in_turn
from pathopan.pages import slide_page
from pathopan.record import SlideRecord, fingerprint, read_json
from pathopan.result import SlideResult
from pathopan.tables import nuclei_schema

ORIGINAL = "score.original.json"
"""In a slide's folder while a person's regions are in force: the score of the network's regions, same settings."""

DEFINITIONS = 2
"""Raised when the same slide and settings give other scores than before: a run that goes on scores all slides again."""

_OF_ONE_CALL = ("started", "command", "cpus", "workers", "overlap")
"""What ``run.json`` tells of one call, and no result depends on: a slide's page is the same without it."""


@dataclass(frozen=True)
class Place:
    """One slide's results on disk, and the settings that scores and exports follow."""

    slide_id: str
    folder: Path
    taxonomy: Taxonomy
    config: Config
    prints: dict[str, str]  # fingerprints of the stages score and export, and of the score of the network's regions
    edited: bool = False  # whether a person's regions stand for the network's
    calibration: StoredCalibration | None = None

    @property
    def result(self) -> SlideResult:
        """What is there, read anew: threads that work on it share nothing."""
        return SlideResult(self.slide_id, self.folder, self.taxonomy)

    @property
    def score_files(self) -> list[Path]:
        """What scoring leaves behind."""
        names = ("panoptic.ome.zarr", "nuclei.parquet", "regions.parquet", "score.json")
        return [self.folder / name for name in (*names, *([ORIGINAL] if self.edited else []))]

    @property
    def export_files(self) -> list[Path]:
        """What exporting leaves behind."""
        files = [self.folder / f"{self.slide_id}.regions.geojson", self.folder / "report.html"]
        nuclei = self.folder / f"{self.slide_id}.nuclei.geojson.gz"
        return files if self.config.export.nuclei == "none" else [*files, nuclei]


def find_place(
    slide_id: str, folder: Path, record: SlideRecord, *, taxonomy: Taxonomy, config: Config, stitch_print: str
) -> Place:
    """Gather what a slide's scores depend on: settings, a person's regions, and the run's calibration.

    Raises
    ------
    ResultError
        If the record tells of edited regions that are gone.
    ConfigError
        If the run's calibration is damaged.
    """
    edit, calibration = edit_print(folder, record), applied_calibration(folder.parents[1])
    given = () if calibration is None else (calibration.sha256,)
    prints = later_prints(stitch_print, config, *given, *([f"edited {edit}"] if edit else []))
    prints["original"] = later_prints(stitch_print, config, *given)["score"]
    return Place(slide_id, folder, taxonomy, config, prints, bool(edit), calibration)


def later_prints(stitch_print: str, config: Config, *given: str) -> dict[str, str]:
    """Sum up what the last stages depend on, beyond the stitched slide: definitions, settings, what a person gave."""
    score = fingerprint(DEFINITIONS, stitch_print, str(config.objects), str(config.scores), *given)
    return {"score": score, "export": fingerprint(score, str(config.export))}


def is_complete(place: Place, record: SlideRecord) -> bool:
    """Say whether everything that these settings lead to is there."""
    return record.is_current("score", place.prints["score"], place.score_files) and record.is_current(
        "export", place.prints["export"], place.export_files
    )


@collecting_rarely()
def export_to_files(place: Place, record: SlideRecord, *, run: dict[str, Any]) -> None:
    """Write GeoJSON for QuPath and the slide's page, two at a time."""
    if record.is_current("export", place.prints["export"], place.export_files):
        return
    started = time.monotonic()
    slide_id, config, taxonomy = place.slide_id, place.config.export, place.taxonomy
    nuclei_path = place.folder / f"{slide_id}.nuclei.geojson.gz"
    pieces = [piece_path(nuclei_path, number) for number in range(1, MAX_PIECES + 1)]
    record.claim(*place.export_files, nuclei_path, *pieces)

    told: dict[str, Written] = {}

    def regions() -> None:
        path = place.folder / f"{slide_id}.regions.geojson"
        told["regions"] = write_regions_geojson(path, place.result.regions, taxonomy=taxonomy, slide_id=slide_id)

    def nuclei() -> None:
        told["nuclei"] = write_nuclei_geojson(
            nuclei_path,
            iter_geoparquet(place.folder / "nuclei.parquet", schema=nuclei_schema(taxonomy)),
            taxonomy=taxonomy,
            slide_id=slide_id,
            form=config.nuclei,  # type: ignore[arg-type]
            max_vertices=config.max_vertices,
            ground=Ground(_piece_of(place, record), place.result.regions),
        )

    def page() -> None:
        write_slide_report(place.folder / "report.html", _page(place, record, run))

    in_turn(lambda write: write(), (nuclei, page, regions), workers=2)
    notes = {
        "geojson": {
            name: {"objects": told[name].objects, "repaired": told[name].repaired, "dropped": told[name].dropped}
            for name in ("regions", "nuclei")
        }
    }
    record.finish("export", place.prints["export"], seconds=time.monotonic() - started, notes=notes)


def _page(place: Place, record: SlideRecord, run: dict[str, Any]) -> SlidePage:
    """Gather what a slide's page shows."""
    edit = load_edit(place.folder, record, taxonomy=place.taxonomy)
    result = place.result
    return slide_page(
        result,
        run={name: value for name, value in run.items() if name not in _OF_ONE_CALL} | _bundle_of(record),
        definitions=definitions(place.taxonomy),
        field_densities=_field_densities(result.score),
        annotations=edit.annotations if edit else (),
    )


def _bundle_of(record: SlideRecord) -> dict[str, Any]:
    """Name the bundle that a slide's pixels are of: the run may have gone on with another since."""
    known = record.notes("stitch").get("bundle")
    return {"bundle": known} if known else {}


def _piece_of(place: Place, record: SlideRecord) -> PieceOf | None:
    """Give what tells a nucleus's piece of tissue, if the slide has so many nuclei, and more than one piece."""
    mask, mpp = place.folder / "tissue.png", record.notes("tile").get("tissue_mpp")
    few = count_rows(place.folder / "nuclei.parquet") <= place.config.export.piece_nuclei
    if few or mpp is None or not mask.is_file():
        return None
    tissue = np.asarray(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)) > 0
    pieces = find_pieces(tissue, mpp=float(mpp))
    if len(pieces.areas_mm2) < 2:
        return None
    return lambda nuclei: pieces.find(nuclei["x_um"], nuclei["y_um"])


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
