"""The stage that finds a slide's objects and scores them, from its files: no slide, no network, no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from pathopan.calibration import calibrated
from pathopan.collecting import collecting_rarely
from pathopan.config import Config
from pathopan.edits import Edit, edit_map, load_edit
from pathopan.errors import ResultError
from pathopan.export.annotations import EDITED_REGIONS
from pathopan.export.geoparquet import write_geoparquet
from pathopan.export.parquet_parts import read_without_shapes, with_columns
from pathopan.files import remove
from pathopan.objects import CompartmentRules, SlideObjects, find_objects
from pathopan.outputs import ORIGINAL, Place
from pathopan.record import SlideRecord, read_json, write_json
from pathopan.scores import ScoreRules, SlideScore, score_regions, score_slide, score_stability
from pathopan.scores.summary import CALIBRATED
from pathopan.stitcher.ngff import open_panoptic
from pathopan.stitcher.store import region_map
from pathopan.tables import nuclei_schema, regions_schema

_PLACED = ("region_id", "compartment", "distance_to_tumor_um")
"""What scoring adds to the table of nuclei; the rest is the stitcher's."""

FEWEST_PER_MM2 = 100
"""Even fat cells, 0.1 mm wide, lie so close: a slide with fewer was most likely read at a wrong mpp, or is blurred."""

_JUDGED_MM2 = 0.25
"""Less tissue may be without nuclei."""

SMALLEST_UM = 4.3
"""Slides and data sets at their true mpp have a median nucleus 5.1 to 6.0 um wide, and 3.2 to 4.1 um at half of it
(breast-he-10 and breast-he-11 on BRCA-M2C, CoNSeP and two slides; single tiles of crowded lymphocytes have 4.0 um)."""

LEAST_SURE = 0.77
"""At their true mpp the nuclei of the same have a mean ``prob`` of 0.84 to 0.87, and 0.67 to 0.78 at twice it."""

_JUDGED_NUCLEI = 500
"""Fewer may be small, or doubtful, by chance."""

RulesT = TypeVar("RulesT", CompartmentRules, ScoreRules)


@collecting_rarely()
def score_to_files(place: Place, record: SlideRecord, *, stability: bool = False) -> None:
    """Find objects and score them; writes ``nuclei.parquet``, ``regions.parquet`` and ``score.json``.

    On regions that a person edited, ``score.original.json`` holds the score of the network's, by the same settings.
    With ``stability``, the score also holds the ranges of its headline under other choices.
    """
    current = record.is_current("score", place.prints["score"], place.score_files)
    if current and (not stability or record.notes("score").get("stability")):
        return
    started = time.monotonic()
    notes = write_scores(place, record, stability=stability)
    record.finish("score", place.prints["score"], seconds=time.monotonic() - started, notes=notes)


def write_scores(place: Place, record: SlideRecord, *, stability: bool = False) -> dict[str, Any]:
    """Score what a slide's folder holds; needs neither the slide nor the network. Gives what the record shall note."""
    folder, rules = place.folder, rules_from(ScoreRules, place.config)
    edit = load_edit(folder, record, taxonomy=place.taxonomy)
    original = _original_score(place, record) if edit else None
    objects, unscored_mm2 = objects_of(place, record, edit)
    score = _scored(place, record, objects)
    if edit and original:
        score = replace(score, edit=_told(record, edit, unscored_mm2, compare_headlines(original, score.to_dict())))
    if stability:
        score = replace(score, stability=score_stability(objects, rules=rules).to_dict(score.headline))
    regions, taxonomy = score_regions(objects, rules=rules), place.taxonomy
    record.forget("score", "export")  # if this is stopped between two files, none of them passes for finished
    record.claim(*place.score_files[1:], folder / "detections.parquet", folder / ORIGINAL)
    write_geoparquet(folder / "regions.parquet", regions, schema=regions_schema(taxonomy))
    placed = {name: objects.nuclei[name].to_numpy() for name in _PLACED}
    with_columns(find_detections(folder), folder / "nuclei.parquet", placed, schema=nuclei_schema(taxonomy))
    write_json(folder / "score.json", score.to_dict())
    remove(folder / "detections.parquet")
    if not edit:
        remove(folder / ORIGINAL)
    calibrated_prob = record.notes("stitch").get("bundle", {}).get("prob_calibrated", False)
    warnings = [*_doubts(score, objects.nuclei, calibrated_prob=calibrated_prob), *_warnings(score)]
    notes: dict[str, Any] = {"stability": stability, "score_warnings": warnings}
    return notes | ({"original": place.prints["original"]} if edit else {})


def _scored(place: Place, record: SlideRecord, objects: SlideObjects) -> SlideScore:
    rules = rules_from(ScoreRules, place.config)
    score = score_slide(objects, slide_id=record.entries["slide_id"], rules=rules)
    if score.status == "empty":
        score = replace(score, error=record.notes("tile").get("reason") or "neither tumor nor stroma was found")
    if place.calibration is None:
        return score
    return replace(score, calibration=calibrated(score.headline, place.calibration, place.config))


def _original_score(place: Place, record: SlideRecord) -> dict[str, Any]:
    """Give the score of the network's regions by these settings, from ``score.original.json`` if it is that."""
    path, plain = place.folder / ORIGINAL, place.prints["original"]
    if record.notes("score").get("original") == plain and (kept := read_json(path)):
        return kept
    objects, _ = objects_of(place, record, None)  # anew: the two must differ by the edit alone, not by the version
    original = _scored(place, record, objects).to_dict()
    record.claim(path)
    write_json(path, original)
    return original


def _told(record: SlideRecord, edit: Edit, unscored_mm2: float, changes: dict[str, Any]) -> dict[str, Any]:
    """Give the section ``edit`` of a score: whose regions, from which file, and what that changed."""
    note = record.entries.get("regions_edited", {})
    return {
        "file": note.get("file", EDITED_REGIONS),
        "sha256": note.get("sha256", edit.sha256),
        "time": note.get("time", ""),
        "replaces_all_regions": edit.replaces,
        "tissue_in_no_region_mm2": unscored_mm2,
        **{f"n_{name.replace(' ', '_')}_annotations": count for name, count in edit.counts.items()},
        "headline": changes,
    }


def _doubts(score: SlideScore, nuclei: pd.DataFrame, *, calibrated_prob: bool) -> Iterator[str]:
    """Tell of nuclei that are hardly those of a slide at its true mpp: too few, too small, or too doubtful."""
    tissue = score.compartments["tissue"]
    area, count = tissue["area_mm2"], tissue["n_nuclei"]
    if area >= _JUDGED_MM2 and count < FEWEST_PER_MM2 * area:
        yield (
            f"{count / area:.3g} nuclei in a mm2 of tissue, and hardly any tissue has fewer than {FEWEST_PER_MM2}: "
            "check the slide's mpp, and whether it is in focus"
        )
    if len(nuclei) < _JUDGED_NUCLEI:
        return
    width, prob = 2 * np.sqrt(nuclei["area_um2"].median() / np.pi), nuclei["prob"].mean()
    if width < SMALLEST_UM:
        yield (
            f"the median nucleus is {width:.1f} um wide, and hardly any slide's is narrower than {SMALLEST_UM} um: "
            "check the slide's mpp, which may be larger in truth"
        )
    elif calibrated_prob and prob < LEAST_SURE:
        yield (
            f"the network finds its nuclei {prob:.2f} probable on average, and hardly any slide's less than "
            f"{LEAST_SURE}: check the slide's mpp, which may be smaller in truth, its focus and its stain"
        )


def _warnings(score: SlideScore) -> Iterator[str]:
    if score.edit:
        yield f"scored on regions that a person edited: {score.edit['file']} (sha256 {score.edit['sha256'][:12]})"
    if score.calibration.get("extrapolated"):
        yield "the calibrated score lies outside of the scores that the calibration was fitted on"
    if score.calibration.get("other_settings"):
        yield f"the calibration was fitted with other settings: {score.calibration['other_settings']}"


def compare_headlines(original: Mapping[str, Any], edited: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Set two scores' headlines side by side: by name, ``original, edited, difference`` (empty where one is)."""
    first, second = (
        {**score["headline"], "phenotype": score["phenotype"].get("phenotype")}
        | ({CALIBRATED[0]: score["calibration"][CALIBRATED[0]]} if score.get("calibration") else {})
        for score in (original, edited)
    )
    found = {}
    for name, new in second.items():
        old = first.get(name)
        if name == "reasons" or "_ci_" in name:
            continue
        numbers = isinstance(old, int | float) and isinstance(new, int | float)
        found[name] = {"original": old, "edited": new, "difference": new - old if numbers else None}
    return found


def objects_of(place: Place, record: SlideRecord, edit: Edit | None) -> tuple[SlideObjects, float]:
    """Read a slide's region map and nuclei, and find its objects.

    Returns
    -------
    objects : SlideObjects
        On a person's regions where an edit is given.
    unscored_mm2 : float
        Tissue that the edit's regions do not cover.
    """
    taxonomy, rules = place.taxonomy, rules_from(CompartmentRules, place.config)
    arrays = open_panoptic(place.folder / "panoptic.ome.zarr")
    regions, mpp = region_map(arrays, place.config.objects.region_mpp)
    mpp_l0 = record.entries["slide"]["mpp_l0"]
    scale_l0 = (mpp / mpp_l0[0], mpp / mpp_l0[1])
    followed, drawn, unscored_px = rules, None, 0
    if edit:
        least = rules.min_region_um2
        regions, drawn, unscored_px = edit_map(
            regions, edit, taxonomy=taxonomy, mpp=mpp, scale_l0=scale_l0, min_region_um2=least
        )
        followed = replace(rules, min_region_um2=0.0) if edit.replaces else rules
    found = find_objects(
        regions,
        read_without_shapes(find_detections(place.folder)),
        taxonomy=taxonomy,
        mpp=mpp,
        scale_l0=scale_l0,
        rules=followed,
        drawn=drawn,
    )
    return replace(found, rules=rules), unscored_px * (mpp / 1000) ** 2


def find_detections(folder: Path) -> Path:
    """Find the table of a slide's nuclei: fresh from the stitcher, or one that was scored before.

    Raises
    ------
    ResultError
        If neither is there.
    """
    for name in ("detections.parquet", "nuclei.parquet"):
        if (folder / name).is_file():
            return folder / name
    msg = f"{folder}: neither detections.parquet nor nuclei.parquet; run this slide again"
    raise ResultError(msg)


def rules_from(kind: Callable[..., RulesT], config: Config) -> RulesT:
    """Fill a room's rules from the settings of the same names."""
    values: dict[str, Any] = {**config.to_dict()["objects"], **config.to_dict()["scores"]}
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in names})
