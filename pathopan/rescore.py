"""Score and export a finished run again, from its files: no slide, no network, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pathopan.calibration import drop_calibration, keep_calibration, read_calibration
from pathopan.cohort import write_cohort_tables
from pathopan.config import Config, Format, load_config, save_config
from pathopan.edits import find_edited_slide, keep_edit, set_edit_aside
from pathopan.errors import ConfigError
from pathopan.export.geojson import find_piece_paths
from pathopan.formats import EXPORTS, Order, write_formats
from pathopan.locks import hold_folder
from pathopan.outputs import Place, export_to_files, find_place, read_slide_json
from pathopan.privacy import forget_paths, hide_plan
from pathopan.record import SlideRecord, replacing, write_json
from pathopan.result import Result, SlideResult, open_result
from pathopan.scores.summary import CALIBRATED
from pathopan.scoring import score_to_files

HEADLINES = ("stil_percent", "stil_density_per_mm2", "stil_area_fraction", "itil_per_mm2")


@dataclass(frozen=True)
class Given:
    """What a person gives for scoring again, besides settings.

    Raises
    ------
    ConfigError
        If two of them exclude each other.
    """

    regions: Path | None = None  # GeoJSON that QuPath exported: regions in place of the network's
    slide: str | None = None  # the slide that `regions` or `original` is about
    original: bool = False  # return to the network's regions
    calibration: Path | None = None  # from `pathopan calibrate`
    no_calibration: bool = False  # apply none any more
    stability: bool = False  # score under other choices too

    def __post_init__(self) -> None:
        """Check that they fit together."""
        if self.regions and self.original:
            msg = "--regions and --original exclude each other: give edited regions, or return to the network's"
            raise ConfigError(msg)
        if self.calibration and self.no_calibration:
            msg = "--calibration and --no-calibration exclude each other"
            raise ConfigError(msg)
        if self.slide and not (self.regions or self.original):
            msg = "--slide names the slide of --regions or --original, and neither was given"
            raise ConfigError(msg)


def settings_of(out: Path, config: Path | None, overrides: Sequence[str]) -> Config:
    """Read the settings that a run was last scored with, or others, for another scoring or export.

    Raises
    ------
    ResultError
        If the folder holds no run.
    ConfigError
        If a setting is unknown or malformed.
    """
    open_result(out)
    return load_config(config or out / "config.yaml", overrides=overrides)


def rescore_run(out: Path, config: Config, given: Given | None = None) -> list[str]:
    """Score every slide of a run again where settings, edited regions or the calibration changed.

    Parameters
    ----------
    out : Path
        Folder of a run.
    config : Config
        Only ``objects``, ``scores`` and ``export`` matter here.
    given : Given, optional
        Edited regions, a calibration, and what else to compute.

    Returns
    -------
    list of str
        For a slide whose regions were given or returned: every headline score, before and after. For others: a line
        for each headline score that changed. With stability, the range of each.

    Raises
    ------
    ResultError
        If the folder holds no run, or a slide's files are incomplete.
    ConfigError
        If the regions or the calibration cannot be used.
    """
    result = open_result(out)
    with hold_folder(out):
        return _rescore(result, config, given or Given())


def _rescore(result: Result, config: Config, given: Given) -> list[str]:
    out = result.path
    if given.calibration:
        read_calibration(given.calibration)  # before anything is changed
    touched = _change_edit(result, given)
    if given.calibration:
        keep_calibration(given.calibration, out)
    if given.no_calibration:
        drop_calibration(out)
    lines: list[str] = []
    for place, record in _places(result, config, asked=touched):
        before, _ = read_slide_json(place.folder)
        score_to_files(place, record, stability=given.stability)
        export_to_files(place, record, run=result.run)
        if record.entries.pop("failure", None):
            record.write()
        after, _ = read_slide_json(place.folder)
        told = _all_changes if place.slide_id == touched else _changes
        lines += told(place.slide_id, before or {}, after or {})
        lines += _ranges(place.slide_id, after or {}) if given.stability else []
        lines += [f"{place.slide_id}\tnote\t{text}" for text in record.notes("score").get("score_warnings", [])]
    with replacing(out, "config.yaml"):
        save_config(config, out / "config.yaml")
    lines += _left_out(result)
    return lines + [f"all\tnote\t{text}" for text in write_cohort_tables(out, taxonomy=result.taxonomy)]


def export_run(
    out: Path,
    config: Config,
    *,
    formats: Sequence[Format] = (),
    to: Path | None = None,
    slides: Sequence[str] = (),
) -> Iterator[Path]:
    """Write a finished run again for others; yields each file or folder once it is written.

    Parameters
    ----------
    out : Path
        Folder of a run.
    config : Config
        Only ``export`` matters here.
    formats : sequence of Format, optional
        What to write; without it, the files for QuPath and the page in each slide's folder.
    to : Path, optional
        Folder for other formats, each in its own; without it, ``exports`` in the run's folder.
    slides : sequence of str, optional
        Slides to write; without it, all.

    Raises
    ------
    ResultError
        If the folder holds no run, a slide is not in it, or its files are incomplete.
    MissingExtra
        If a format needs a library that is not installed.
    """
    result = open_result(out)
    with hold_folder(out):
        run = _anonymous(result, config) if config.export.anonymous else result.run
        chosen = [result.slide(name) for name in slides or result.slide_ids]
        if not formats or Format.geojson in formats:
            names = {slide.slide_id for slide in chosen}
            for place, record in _places(result, config):
                if place.slide_id in names:
                    export_to_files(place, record, run=run)
                    yield from [*place.export_files, *find_piece_paths(place.export_files[-1])]
        order = Order(result, chosen, config, to or out / EXPORTS)
        yield from write_formats(order, [name for name in formats if name != Format.geojson])
        if config.export.anonymous:
            yield from _project_again(result, config, given=formats)
            _forget_all(result)


def _project_again(result: Result, config: Config, *, given: Sequence[Format]) -> Iterator[Path]:
    """Write the script of a QuPath project without paths, where an earlier export has left one with them."""
    left = Format.qupath_project
    if left not in given and (result.path / EXPORTS / left).is_dir():
        yield from write_formats(Order(result, list(result), config, result.path / EXPORTS), [left])


def _forget_all(result: Result) -> None:
    """Strike paths out of every slide's record, also of those that failed, and out of the run's tables."""
    for path in (result.path / "slides").glob("*/record.json"):
        record = SlideRecord.open(path)
        forget_paths(record, Path(str(record.entries.get("path", ""))))
    write_cohort_tables(result.path, taxonomy=result.taxonomy)


def _anonymous(result: Result, config: Config) -> dict[str, Any]:
    """Strike paths out of ``run.json`` and of a plan, for good; gives what ``run.json`` holds then."""
    tissue = result.run.get("tissue")
    hide_plan(result.path, tissue=Path(tissue) if tissue else None)
    stored = load_config(result.path / "config.yaml")
    kept = replace(stored, export=replace(stored.export, anonymous=True))
    with replacing(result.path, "config.yaml"):
        save_config(kept, result.path / "config.yaml")
    run = {**result.run, "command": "pathopan run", "tissue": None, "settings": config.to_dict()}
    with replacing(result.path, "run.json"):
        write_json(result.path / "run.json", run)
    return run


def _change_edit(result: Result, given: Given) -> str | None:
    """Take edited regions into a slide's folder, or set them aside; gives the slide's name."""
    if given.regions:
        slide = result.slide(given.slide or find_edited_slide(given.regions, result))
        record = SlideRecord.open(slide.path / "record.json")
        keep_edit(given.regions, slide.path, record, taxonomy=slide.taxonomy)
        return slide.slide_id
    if given.original:
        slide = _stored(result, given.slide or _only_edited(result))
        set_edit_aside(slide.path, SlideRecord.open(slide.path / "record.json"))
        return slide.slide_id
    return None


def _stored(result: Result, slide_id: str) -> SlideResult:
    """Open a slide's results also where a later run of it failed, as for want of the edit."""
    return next((slide for slide in result.stored() if slide.slide_id == slide_id), None) or result.slide(slide_id)


def _only_edited(result: Result) -> str:
    edited = [s.slide_id for s in result.stored() if s.record.get("regions_edited")]
    if len(edited) == 1:
        return edited[0]
    found = f"edited are {', '.join(edited)}; name one with --slide" if edited else "no slide has edited regions"
    msg = f"--original: {found}"
    raise ConfigError(msg)


def _is_past(record: SlideRecord) -> bool:
    """Say whether a slide's files are of an earlier run, since the last one failed before it could score it."""
    return record.entries.get("failure", {}).get("stage", "score") not in ("score", "export")


def _left_out(result: Result) -> Iterator[str]:
    """Tell which slides have files that are not to be scored."""
    for slide in result.stored():
        record = SlideRecord.open(slide.path / "record.json")
        if _is_past(record) or "fingerprint" not in record.notes("stitch"):
            yield f"{slide.slide_id}\tnote\tleft as it was: its last run was stopped or failed; run it again"


def _places(result: Result, config: Config, *, asked: str | None = None) -> Iterator[tuple[Place, SlideRecord]]:
    for slide in result.stored():
        record = SlideRecord.open(slide.path / "record.json")
        stitched = record.notes("stitch").get("fingerprint")
        if stitched is None or (_is_past(record) and slide.slide_id != asked):
            continue
        place = find_place(
            slide.slide_id, slide.path, record, taxonomy=slide.taxonomy, config=config, stitch_print=stitched
        )
        yield place, record


def _changes(slide_id: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Tell which headline scores changed."""
    for name, old, new in _pairs(before, after):
        if old != new and name in (*HEADLINES, CALIBRATED[0]):
            yield f"{slide_id}\t{name}\t{_text(old)} -> {_text(new)}"


def _all_changes(slide_id: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Tell every headline score, before and after; on edited regions, before is always the network's."""
    changes = after.get("edit", {}).get("headline")
    pairs = [(name, row["original"], row["edited"]) for name, row in changes.items()] if changes else None
    yield f"{slide_id}\tscore\t{'network -> edited' if changes else 'edited -> network'}\tdifference"
    for name, old, new in pairs or _pairs(before, after):
        numbers = isinstance(old, int | float) and isinstance(new, int | float)
        yield f"{slide_id}\t{name}\t{_text(old)} -> {_text(new)}\t{f'{new - old:+.4g}' if numbers else ''}"
    if "edit" in after:
        left = after["edit"]["tissue_in_no_region_mm2"]
        yield f"{slide_id}\ttissue in no region of the file, so not scored\t{left:.4g} mm2"


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Pair the headline values of two scores."""
    old, new = (
        {**s.get("headline", {}), **s.get("calibration", {}), **s.get("phenotype", {})} for s in (before, after)
    )
    names = dict.fromkeys([*after.get("headline", {}), CALIBRATED[0], "phenotype"])
    for name in names:
        if name != "reasons" and "_ci_" not in name and (name in old or name in new):
            yield name, old.get(name), new.get(name)


def _ranges(slide_id: str, score: Mapping[str, Any]) -> Iterator[str]:
    """Tell the range of each headline score under other choices."""
    for name, row in score.get("stability", {}).get("ranges", {}).items():
        over = "over fields shifted by half" if "_ci_" in name else "over TIL probability x 0.9 to 1.1"
        known = f" ({_text(row['low'])} to {_text(row['high'])} {over})" if row["low"] is not None else ""
        yield f"{slide_id}\t{name}\t{_text(row['value'])}{known}"


def _text(value: float | str | None) -> str:
    if value is None or value == "":
        return "empty"
    return value if isinstance(value, str) else f"{value:.4g}"
