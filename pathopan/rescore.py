"""Score and export a finished run again, from its files: no slide, no network, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pathopan.cohort import write_cohort_tables
from pathopan.config import Config
from pathopan.errors import ResultError
from pathopan.export.geoparquet import write_table
from pathopan.outputs import Place, export_to_files, later_prints, read_slide_json, score_to_files
from pathopan.record import SlideRecord
from pathopan.result import Result, open_result

HEADLINES = ("stil_percent", "stil_density_per_mm2", "stil_area_fraction", "itil_per_mm2")


def rescore_run(out: Path, config: Config) -> list[str]:
    """Score every slide of a run with other settings.

    Parameters
    ----------
    out : Path
        Folder of a run.
    config : Config
        Only ``objects``, ``scores`` and ``export`` matter here.

    Returns
    -------
    list of str
        A line for each headline score that changed.

    Raises
    ------
    ResultError
        If the folder holds no run, or a slide's files are incomplete.
    """
    result = open_result(out)
    changes = []
    for place, record in _places(result, config):
        before, _ = read_slide_json(place.folder)
        score_to_files(place, record)
        export_to_files(place, record, run=result.run)
        after, _ = read_slide_json(place.folder)
        changes += list(_changes(place.slide_id, before or {}, after or {}))
    (out / "config.yaml").write_text(yaml.safe_dump(config.to_dict(), sort_keys=False), encoding="utf-8")
    write_cohort_tables(out, taxonomy=result.taxonomy)
    return changes


def export_run(out: Path, config: Config, *, csv: bool = False) -> list[Path]:
    """Write the exports of every slide again, and the tables as CSV if asked for.

    Returns
    -------
    list of Path
        The files.
    """
    result = open_result(out)
    written: list[Path] = []
    for place, record in _places(result, config):
        export_to_files(place, record, run=result.run)
        written += place.export_files
        if csv:
            slide = result.slide(place.slide_id)
            for name, table in (("nuclei", slide.nuclei), ("regions", slide.regions)):
                write_table(place.folder / f"{name}.csv", table.drop(columns="geometry"))
                written.append(place.folder / f"{name}.csv")
    return written


def _places(result: Result, config: Config) -> Iterator[tuple[Place, SlideRecord]]:
    for slide in result:
        record = SlideRecord.open(slide.path / "record.json")
        stitched = record.notes("stitch").get("fingerprint")
        if stitched is None:
            msg = f"{slide.path}: record.json does not know how the slide was stitched; run it again"
            raise ResultError(msg)
        yield Place(slide.slide_id, slide.path, slide.taxonomy, config, later_prints(stitched, config)), record


def _changes(slide_id: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for name in HEADLINES:
        old, new = (score.get("headline", {}).get(name) for score in (before, after))
        if old != new:
            yield f"{slide_id}\t{name}\t{_text(old)} -> {_text(new)}"


def _text(value: float | None) -> str:
    return "empty" if value is None else f"{value:.4g}"
