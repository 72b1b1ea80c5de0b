"""What a run says of all its slides: one table of scores, one of regions, one of failures, one page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from pathopan.batch import FAILURE_COLUMNS
from pathopan.classes import Taxonomy
from pathopan.definitions import definitions
from pathopan.export.geoparquet import read_geoparquet, write_geoparquet, write_table
from pathopan.export.qupath_project import SCRIPT_NAME, write_import_script
from pathopan.export.report import write_cohort_report
from pathopan.manifest import MANIFEST_ID
from pathopan.outputs import read_slide_json
from pathopan.pages import cohort_page
from pathopan.record import replacing
from pathopan.result import open_result
from pathopan.scores import SlideScore, failed_score, scores_table
from pathopan.tables import Column, Schema, regions_schema

SlideFiles = tuple[str, Mapping[str, Any] | None, Mapping[str, Any]]
"""A slide's name, its score if it has one, and its record."""

_COMPARED = ("objects", "scores", "taxonomy")
"""Settings of a score that slides of one table share; the mpp of the map follows the slide."""


def write_cohort_tables(out: Path, *, taxonomy: Taxonomy, unfinished: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Sum up every slide in a run's folder, also those of earlier commands.

    Writes ``scores.csv``, ``scores.parquet``, ``regions.parquet``, ``failures.csv``, ``report.html`` and the script
    that imports everything into a QuPath project.

    Parameters
    ----------
    out : Path
        Folder of the run.
    taxonomy : Taxonomy
        Classes of its bundle.
    unfinished : sequence of mapping
        Failures of slides whose own record does not tell, as those that no job has reached yet.

    Returns
    -------
    list of str
        What is odd about the slides taken together: see :func:`unlike_settings` and :func:`same_files`.
    """
    slides = list(_slides(out, {str(failure["slide_id"]): dict(failure) for failure in unfinished}))
    table = scores_table((score_of(*slide) for slide in slides), taxonomy)
    failures = [record["failure"] for _, _, record in slides if "failure" in record]
    done = [name for name, score, record in slides if score is not None and "failure" not in record]
    files = {name: Path(str(record.get("path") or name)).name for name, _, record in slides}
    with replacing(out, "scores.csv", "scores.parquet", "failures.csv", "regions.parquet", SCRIPT_NAME, "report.html"):
        write_table(out / "scores.csv", table)
        write_table(out / "scores.parquet", table)
        write_table(out / "failures.csv", pd.DataFrame(failures).reindex(columns=[*FAILURE_COLUMNS]).astype("str"))
        _write_regions(out, done, taxonomy)
        write_import_script(out, taxonomy=taxonomy, slide_files=files)
        page = cohort_page(open_result(out), title=out.resolve().name, definitions=definitions(taxonomy))
        write_cohort_report(out / "report.html", page)
    return [*unlike_settings(slides), *unlike_bundles(slides), *same_files(slides)]


def unlike_settings(slides: Sequence[SlideFiles]) -> Iterator[str]:
    """Tell which slides were scored by other settings than most, which no table should hold side by side.

    Parameters
    ----------
    slides : sequence of (str, mapping or None, mapping)
        Each slide's name, score and record.
    """
    groups: dict[str, list[str]] = {}
    for name, score, record in slides:
        if score is not None and "failure" not in record:
            settings = score.get("settings")
            told = {key: settings[key] for key in _COMPARED if key in settings} if isinstance(settings, Mapping) else {}
            groups.setdefault(json.dumps(told, sort_keys=True), []).append(name)
    for names in sorted(groups.values(), key=len)[:-1]:
        yield (
            f"{_few(names)} {'was' if len(names) == 1 else 'were'} scored by other settings than most slides: "
            "`pathopan score` on the folder brings all to the same"
        )


def unlike_bundles(slides: Sequence[SlideFiles]) -> Iterator[str]:
    """Tell which slides were segmented by another bundle than most; records of older versions do not know theirs."""
    groups: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for name, score, record in slides:
        bundle = record.get("stages", {}).get("stitch", {}).get("bundle") or {}
        if score is not None and "failure" not in record and bundle.get("sha256"):
            groups.setdefault(bundle["sha256"], []).append(name)
            names[bundle["sha256"]] = bundle.get("name", "")
    ordered = sorted(groups, key=lambda sha256: len(groups[sha256]))
    for sha256 in ordered[:-1]:
        few = groups[sha256]
        yield (
            f"{_few(few)} {'was' if len(few) == 1 else 'were'} segmented by {names[sha256]}, and most slides by "
            f"{names[ordered[-1]]}: run all by the same to compare them"
        )


def same_files(slides: Sequence[SlideFiles]) -> Iterator[str]:
    """Tell which slides of a table are one file, as when it was named alone first and beside a namesake later."""
    groups: dict[str, list[str]] = {}
    for name, score, record in slides:
        if score is not None and record.get("path"):
            groups.setdefault(str(record["path"]), []).append(name)
    for path, names in groups.items():
        if len(names) > 1:
            yield f"{_few(names)} are the same file, {Path(path).name}, and all are in the tables"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _slides(
    out: Path, unfinished: Mapping[str, dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any] | None, dict[str, Any]]]:
    """Yield each slide's name, its score if it has one, and its record."""
    for name in sorted({folder.name for folder in (out / "slides").glob("*")} | set(unfinished)):
        score, record = read_slide_json(out / "slides" / name)
        if name in unfinished:
            record = {**record, "path": unfinished[name]["path"], "failure": unfinished[name]}
            record.setdefault(MANIFEST_ID, unfinished[name].get(MANIFEST_ID))
        if record:
            yield name, score, record


def score_of(name: str, score: Mapping[str, Any] | None, record: Mapping[str, Any]) -> SlideScore:
    """Rebuild a slide's score from its files; a slide that failed has one without values."""
    return replace(_stored_score(name, score, record), manifest_id=record.get(MANIFEST_ID) or name)


def _stored_score(name: str, score: Mapping[str, Any] | None, record: Mapping[str, Any]) -> SlideScore:
    if score is None or "failure" in record:
        return failed_score(name, record.get("failure", {}).get("message", "not complete; run it again"))
    try:
        return SlideScore(**{key: value for key, value in score.items() if key not in ("reasons", "fields")})
    except (TypeError, AttributeError):
        return failed_score(name, "score.json is damaged; run the slide again")


def _write_regions(out: Path, names: list[str], taxonomy: Taxonomy) -> None:
    schema = regions_schema(taxonomy)
    wide = Schema("regions", (Column("slide_id", "str", "", "slide"), *schema.columns))
    tables = []
    for name in names:
        regions = read_geoparquet(out / "slides" / name / "regions.parquet", schema=schema)
        regions.insert(0, "slide_id", name)
        tables.append(regions)
    kept = [table for table in tables if len(table)]
    found = gpd.GeoDataFrame(pd.concat(kept, ignore_index=True), crs=None) if kept else wide.empty()
    write_geoparquet(out / "regions.parquet", found, schema=wide)
