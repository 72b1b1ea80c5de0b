"""Check a finished run against itself: label maps, tables, GeoJSON and scores must say the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.cohort import score_of, unlike_settings
from pathopan.edits import edit_map, load_edit
from pathopan.errors import PathopanError, ResultError
from pathopan.export.agree import Expected, Kind, compare_geojson
from pathopan.export.geojson import find_piece_paths
from pathopan.export.geoparquet import read_geoparquet, read_table
from pathopan.export.qupath import check_geojson
from pathopan.files import check_regular
from pathopan.geometry import Window
from pathopan.manifest import MANIFEST_ID
from pathopan.objects import find_regions
from pathopan.outputs import ORIGINAL, read_slide_json
from pathopan.record import SlideRecord, read_json
from pathopan.result import Result, SlideResult, open_result
from pathopan.scores import find_violations, lined_up, scores_schema
from pathopan.stitcher.store import blocks, region_map
from pathopan.tables import TILES, regions_schema

SEAM_RATIO = 0.03
"""The density of nuclei near seams may differ from that elsewhere by this much, or by chance."""

RELATIVE = 1e-6
"""Numbers that come from the same pixels and nuclei differ by rounding only."""

_BLOCK = 4096

_SECTIONS = ("headline", "phenotype", "compartments", "exclusions", "settings")


MOST_TOLD = 50
"""Lines for a GeoJSON file of someone's: a file with one fault has it in every object."""


def verify_path(path: Path) -> list[str]:
    """Check a run's folder, or a GeoJSON file by QuPath's import rules.

    Parameters
    ----------
    path : Path
        A folder that a run wrote, or a file of anyone's.

    Returns
    -------
    list of str
        A line for each violation; empty if everything agrees, or if QuPath imports the file as it stands.

    Raises
    ------
    ResultError
        If there is neither a file nor a run.
    """
    if not path.is_file():
        return verify_run(path)
    problems = [f"{path}: {text}" for text in check_geojson(path)]
    more = len(problems) - MOST_TOLD
    return [*problems[:MOST_TOLD], f"{path}: {more} more problems"] if more > 0 else problems


def verify_run(out: Path) -> list[str]:
    """Check every complete slide of a run, and the run's own tables.

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
    for slide in result.stored():
        try:
            found = list(verify_slide(slide))
        except PathopanError as error:
            found = [str(error)]
        except Exception as error:  # noqa: BLE001 (whatever damage does to a file, it is a violation)
            found = [f"its files are damaged: {type(error).__name__}: {error}"]
        violations += [f"{slide.slide_id}: {text}" for text in found]
    try:
        violations += list(_tables(result))
    except PathopanError as error:
        violations.append(str(error))
    except Exception as error:  # noqa: BLE001
        violations.append(f"the run's tables are damaged: {type(error).__name__}: {error}")
    violations += unlike_settings([(slide.slide_id, *read_slide_json(slide.path)) for slide in result])
    listed = set(result.scores["slide_id"].astype(str))
    stray = {path.name for path in (out / "slides").iterdir() if (path / "score.json").is_file()} - listed
    return violations + [f"{name}: has a score.json and no row in scores.parquet" for name in sorted(stray)]


def verify_slide(slide: SlideResult) -> Iterator[str]:
    """Check one slide; yields what does not agree."""
    missing = [name for name in _SECTIONS if not isinstance(slide.score.get(name), Mapping)]
    if missing:
        yield f"score.json lacks {', '.join(missing)}: it is damaged or of another version; score again"
        return
    nuclei, regions = slide.nuclei, regions_schema(slide.taxonomy).check(slide.regions)
    TILES.check(read_table(slide.path / "tiles.parquet"))
    yield from find_violations(slide.score, regions, nuclei, taxonomy=slide.taxonomy, mpp_l0=slide.mpp_l0)
    yield from _known_classes(nuclei, slide)
    yield from _label_maps(slide)
    yield from _region_areas(slide)
    yield from _edit(slide)
    yield from _geojson(slide, "region", regions)
    yield from _geojson(slide, "nucleus", nuclei)
    yield from _seams(slide)


def _known_classes(nuclei: pd.DataFrame, slide: SlideResult) -> Iterator[str]:
    """Check that class and id name the same known class, and ids are unique."""
    names = nuclei["class_id"].map({c.id: c.name for c in slide.taxonomy.nuclei})
    wrong = np.flatnonzero((names != nuclei["class"]).to_numpy())
    if len(wrong):
        row = nuclei.iloc[int(wrong[0])]
        yield (
            f"{len(wrong)} nuclei have no class that the taxonomy knows; nucleus {row['nucleus_id']} is "
            f"{row['class']!r} with id {row['class_id']}"
        )
    if nuclei["nucleus_id"].duplicated().any():
        twice = nuclei.loc[nuclei["nucleus_id"].duplicated(), "nucleus_id"].iloc[0]
        yield f"nucleus ids are not unique: {twice} stands twice in nuclei.parquet"


def _label_maps(slide: SlideResult) -> Iterator[str]:
    """Check that each nucleus has pixels, each nucleus pixel a nucleus, and each region pixel a known class."""
    regions, array = slide.panoptic.region, slide.panoptic.nucleus
    ids = slide.nuclei["nucleus_id"].to_numpy()
    seen = np.zeros(int(ids.max(initial=0)) + 1, bool)
    strange: set[int] = set()
    counts = np.zeros(256, np.int64)
    for block in blocks(Window(0, 0, array.shape[1], array.shape[0]), _BLOCK):
        found = np.asarray(array[block.slices])
        found = found[found > 0]
        strange.update(np.unique(found[found >= len(seen)]).tolist())
        seen[found[found < len(seen)]] = True
        counts += np.bincount(np.asarray(regions[block.slices]).ravel(), minlength=256)
    known = np.zeros(len(seen), bool)
    known[ids] = True
    strange.update(np.flatnonzero(seen & ~known).tolist())
    bare = np.flatnonzero(known & ~seen)
    if strange:
        yield f"{len(strange)} ids of labels/nuclei are not in nuclei.parquet, such as {min(strange)}"
    if len(bare):
        yield f"{len(bare)} nuclei have no pixel in labels/nuclei, such as nucleus {bare[0]}"
    unknown = set(np.flatnonzero(counts).tolist()) - {0, *(c.id for c in slide.taxonomy.regions)}
    if unknown:
        yield f"labels/regions holds the values {sorted(unknown)}, which the taxonomy does not know"


def _region_areas(slide: SlideResult) -> Iterator[str]:
    """Compare the label map, with a person's edit in it, with the table of regions and the score's compartments."""
    settings, parts = slide.score["settings"], slide.score["compartments"]
    classes, mpp = region_map(slide.panoptic.arrays, settings["mpp"])
    least = settings["objects"]["min_region_um2"]
    record = SlideRecord.open(slide.path / "record.json")
    edit = load_edit(slide.path, record, taxonomy=slide.taxonomy)
    if edit:
        scale_l0 = (mpp / slide.mpp_l0[0], mpp / slide.mpp_l0[1])
        classes = edit_map(
            classes, edit, taxonomy=slide.taxonomy, mpp=mpp, scale_l0=scale_l0, min_region_um2=least
        ).classes
    if not (edit and edit.replaces):
        classes = find_regions(classes, taxonomy=slide.taxonomy, mpp=mpp, min_region_um2=least).classes()
    area = np.zeros(256)
    for rows in range(0, len(classes), _BLOCK):
        area += np.bincount(classes[rows : rows + _BLOCK].ravel(), minlength=256) * (mpp / 1000) ** 2
    stated = slide.regions.groupby("class_id")["area_mm2"].sum()
    for kind in slide.taxonomy.regions:
        if kind.role != "background" and _differ(area[kind.id], float(stated.get(kind.id, 0.0))):
            yield f"{kind.name} covers {area[kind.id]} mm2 of the label map, {stated.get(kind.id, 0.0)} of the table"
    yield from _compartment_areas(area, parts, slide)


def _compartment_areas(area: npt.NDArray[np.float64], parts: Mapping[str, Any], slide: SlideResult) -> Iterator[str]:
    """Compare areas by class with compartments; only exclusions by hand and by buffer may take from these."""
    taken = sum(slide.score["exclusions"][name]["area_mm2"] for name in ("by_hand", "buffer"))
    expected = {
        "not_analysed": area[0],
        **{
            name: sum(area[number] for number in slide.taxonomy.region_ids(*roles))
            for name, roles in (
                ("background", ("background",)),
                ("tumor", ("tumor",)),
                ("stroma", ("stroma", "dense")),
                ("stroma_dense", ("dense",)),
                ("other", ("other",)),
            )
        },
    }
    for name, mapped in expected.items():
        counted = parts[name]["area_mm2"]
        fixed = name in ("not_analysed", "background") or taken == 0
        short = mapped - counted
        if _differ(mapped, counted) and (fixed or short < 0 or short > taken * (1 + RELATIVE)):
            yield f"{name} covers {mapped} mm2 of the label map, {counted} of the score"


def _edit(slide: SlideResult) -> Iterator[str]:
    """Check that an edit is told wherever it is in force, and the original score is kept."""
    note, told = slide.record.get("regions_edited"), slide.score.get("edit")
    if bool(note) != bool(told):
        yield f"record.json says that regions were{'' if note else ' not'} edited, score.json the opposite; score again"
    elif note and told and note["sha256"] != told["sha256"]:
        yield "score.json is of another edit than record.json; score again"
    original = read_json(slide.path / ORIGINAL)
    if told and not original:
        yield f"{ORIGINAL} is missing or damaged, and regions were edited; score again"
    elif told and original:
        for name, row in told["headline"].items():
            before = {**original["headline"], **original["phenotype"], **original.get("calibration", {})}.get(name)
            if row["original"] != before:
                yield f"score.json says that {name} was {row['original']} originally, {ORIGINAL} {before}"


def _geojson(slide: SlideResult, kind: Kind, table: pd.DataFrame) -> Iterator[str]:
    name = {"region": f"{slide.slide_id}.regions.geojson", "nucleus": f"{slide.slide_id}.nuclei.geojson.gz"}[kind]
    if not (slide.path / name).is_file():
        return
    x, y = slide.mpp_l0
    rows = table.drop(columns="geometry").set_index(f"{kind}_id", drop=False)
    notes = slide.record.get("stages", {}).get("export", {}).get("geojson", {})
    dropped = int(notes.get({"region": "regions", "nucleus": "nuclei"}[kind], {}).get("dropped", 0))
    expected = Expected(rows, kind, slide.taxonomy, slide.slide_id, x * y / 1e6)
    yield from (f"{name}: {text}" for text in compare_geojson([slide.path / name], expected, dropped=dropped))
    pieces = find_piece_paths(slide.path / name)
    if pieces:
        found = compare_geojson(pieces, expected, dropped=dropped)
        yield from (f"{pieces[0].name} to {pieces[-1].name}: {text}" for text in found)


def _tables(result: Result) -> Iterator[str]:
    """Compare the run's tables with the slides' own files."""
    schema, regions = scores_schema(result.taxonomy), result.regions
    stored = schema.check(result.scores)
    text = _read_texts(result.path / "scores.csv")
    if len(text) != len(stored):
        yield f"scores.csv has {len(text)} slides, scores.parquet {len(stored)}"
        return
    regions_schema(result.taxonomy).check(regions)
    for position, name in enumerate(stored["slide_id"].astype(str)):
        folder = result.path / "slides" / name
        score, record = read_json(folder / "score.json"), read_json(folder / "record.json") or {}
        row = lined_up([score_of(name, score, record).to_row()], result.taxonomy).iloc[0]
        told = [column for column in schema.names if column != MANIFEST_ID or column in record]
        for source, table in (("scores.parquet", stored), ("scores.csv", text)):
            wrong = [column for column in told if not _same(row[column], table.iloc[position].get(column))]
            if wrong:
                found = table.iloc[position].get(wrong[0])
                yield f"{name}: {wrong[0]} is {found} in {source}, {row[wrong[0]]} in score.json ({len(wrong)} differ)"
        if score and "failure" not in record:
            own = read_geoparquet(folder / "regions.parquet")
            listed = regions[regions["slide_id"].astype(str) == name]
            if len(own) != len(listed) or _differ(own["area_mm2"].sum(), listed["area_mm2"].sum()):
                yield f"{name}: regions.parquet of the run has {len(listed)} of its regions, its own {len(own)}"


def _read_texts(path: Path) -> pd.DataFrame:
    """Read a CSV without a guess: a slide may be called 007 or NA."""
    try:
        check_regular(path)
        return pd.read_csv(path, dtype="str", keep_default_na=False)
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read: {error}; score again"
        raise ResultError(msg) from error


def _same(first: Any, second: Any) -> bool:
    """Compare two cells; empty is empty in any form, and CSV keeps texts with a guard against formulas."""
    if _is_empty(first) or _is_empty(second):
        return _is_empty(first) and _is_empty(second)
    if isinstance(first, str):
        return first == str(second).removeprefix("'") or first == str(second)
    try:
        return not _differ(float(first), float(second))
    except (TypeError, ValueError):
        return False


def _is_empty(value: Any) -> bool:
    return value is None or value is pd.NA or value == "" or (isinstance(value, float) and math.isnan(value))


def _differ(first: float, second: float) -> bool:
    return not math.isclose(first, second, rel_tol=RELATIVE, abs_tol=1e-9)


def _seams(slide: SlideResult) -> Iterator[str]:
    """Say so if the grid shows: the two densities differ by more than the tolerance and three standard errors."""
    audit = slide.record.get("stages", {}).get("stitch", {}).get("seam_audit", {})
    ratio, n_seam, n_else = audit.get("ratio"), audit.get("n_seam", 0), audit.get("n_elsewhere", 0)
    if ratio is None or min(n_seam, n_else) == 0:
        return
    chance = 3 * float(np.sqrt(1 / n_seam + 1 / n_else)) * 2  # nuclei cluster, so twice the Poisson error
    if abs(ratio - 1) > SEAM_RATIO + chance:
        yield f"seam audit: nuclei are {ratio:.2f} times as dense near seams as elsewhere"
