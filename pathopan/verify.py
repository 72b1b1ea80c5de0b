"""Check a finished run against itself: label maps, tables, GeoJSON and scores must say the same."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from pathopan.errors import PathopanError
from pathopan.export.qupath import check_geojson
from pathopan.result import SlideResult, open_result
from pathopan.scores import find_violations

SEAM_RATIO = 0.03
"""The density of nuclei near seams may differ from that elsewhere by this much, or by chance."""

_BLOCK = 4096


def verify_run(out: Path) -> list[str]:
    """Check every complete slide of a run.

    Returns
    -------
    list of str
        A line for each violation, ``slide_id: what``; empty if everything agrees.

    Raises
    ------
    ResultError
        If the folder holds no run.
    """
    result = open_result(out)
    violations = []
    for slide in result:
        try:
            found = list(verify_slide(slide))
        except PathopanError as error:
            found = [str(error)]
        violations += [f"{slide.slide_id}: {text}" for text in found]
    listed = set(result.scores["slide_id"].astype(str))
    stray = {path.name for path in (out / "slides").iterdir() if (path / "score.json").is_file()} - listed
    return violations + [f"{name}: has a score.json and no row in scores.parquet" for name in sorted(stray)]


def verify_slide(slide: SlideResult) -> Iterator[str]:
    """Check one slide; yields what does not agree."""
    nuclei, regions = slide.nuclei, slide.regions
    yield from find_violations(slide.score, regions, nuclei, taxonomy=slide.taxonomy, mpp_l0=slide.mpp_l0)
    yield from _label_map(slide)
    regions_file = slide.path / f"{slide.slide_id}.regions.geojson"
    nuclei_file = slide.path / f"{slide.slide_id}.nuclei.geojson.gz"
    notes = slide.record.get("stages", {}).get("export", {}).get("geojson", {})
    for path, count, kind in ((regions_file, len(regions), "regions"), (nuclei_file, len(nuclei), "nuclei")):
        if path.is_file():
            yield from (f"{path.name}: {text}" for text in check_geojson(path))
            dropped = int(notes.get(kind, {}).get("dropped", 0))
            written = _count_features(path)
            if written + dropped != count:
                yield f"{path.name} holds {written} objects and {dropped} were dropped, but the table has {count}"
    yield from _seams(slide)


def _label_map(slide: SlideResult) -> Iterator[str]:
    """Each nucleus of the table has pixels in the label map, and no pixel belongs to another."""
    array = slide.panoptic.nucleus
    seen: set[int] = set()
    for row in range(0, array.shape[0], _BLOCK):
        for column in range(0, array.shape[1], _BLOCK):
            seen.update(np.unique(array[row : row + _BLOCK, column : column + _BLOCK]).tolist())
    seen.discard(0)
    known = set(slide.nuclei["nucleus_id"].tolist())
    if seen - known:
        yield f"{len(seen - known)} ids of labels/nuclei are not in nuclei.parquet, such as {min(seen - known)}"
    if known - seen:
        yield f"{len(known - seen)} nuclei have no pixel in labels/nuclei, such as nucleus {min(known - seen)}"


def _count_features(path: Path) -> int:
    stored = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return len(orjson.loads(stored)["features"])


def _seams(slide: SlideResult) -> Iterator[str]:
    """Say so if the grid shows: the two densities differ by more than the tolerance and three standard errors."""
    audit = slide.record.get("stages", {}).get("stitch", {}).get("seam_audit", {})
    ratio, n_seam, n_else = audit.get("ratio"), audit.get("n_seam", 0), audit.get("n_elsewhere", 0)
    if ratio is None or min(n_seam, n_else) == 0:
        return
    chance = 3 * float(np.sqrt(1 / n_seam + 1 / n_else)) * 2  # nuclei cluster, so twice the Poisson error
    if abs(ratio - 1) > SEAM_RATIO + chance:
        yield f"seam audit: nuclei are {ratio:.2f} times as dense near seams as elsewhere"
