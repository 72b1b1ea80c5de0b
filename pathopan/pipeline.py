"""A run: the stages of a slide in order, and a cohort of slides of which a bad one stops no other."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

from pathopan.batch import Failure, Listener, Outcome, RunSettings, describe_failure
from pathopan.cohort import write_cohort_tables
from pathopan.errors import PathopanError
from pathopan.manifest import SlideEntry
from pathopan.outputs import export_to_files, find_place, is_complete
from pathopan.record import SlideRecord, command_line, now, versions, write_json
from pathopan.scoring import score_to_files
from pathopan.stages import Engine, Job, Progress, is_stitched, predict_slide, stitch_slide, tile_slide

SLIDE_FAULTS = (PathopanError, OSError, MemoryError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError)
"""What may go wrong with one slide without stopping the others: everything but an interrupt."""


def run_slide(job: Job, record: SlideRecord, progress: Progress, *, run: dict[str, Any]) -> bool:
    """Take one slide through all stages that its record does not show as done.

    Returns
    -------
    bool
        False if there was nothing to do.

    Raises
    ------
    SlideError
        If the slide cannot be read, has no mpp, or is too coarse.
    """
    place = find_place(
        job.entry.slide_id,
        job.folder,
        record,
        taxonomy=job.taxonomy,
        config=job.config,
        stitch_print=job.prints["stitch"],
    )
    if is_complete(place, record):
        return False
    if not is_stitched(job, record):
        tiling = tile_slide(job, record)
        plan = predict_slide(job, tiling, record, progress)
        progress("stitch", len(tiling.tiles), len(tiling.tiles))
        stitch_slide(job, tiling, plan, record)
    progress("score", 0, 1)
    score_to_files(place, record)
    progress("export", 0, 1)
    export_to_files(place, record, run=run)
    return True


def run_cohort(entries: Sequence[SlideEntry], settings: RunSettings, listener: Listener) -> Outcome:
    """Run slides one after the other; whatever one of them does, the rest are done.

    Parameters
    ----------
    entries : sequence of SlideEntry
        With distinct names.
    settings : RunSettings
        How, and where to.
    listener : Listener
        Is told what happens.

    Returns
    -------
    Outcome
        With a failure for each slide that has no score.

    Raises
    ------
    BundleError
        If the bundle cannot be used: then no slide can be run.
    """
    engine = Engine(settings.bundle, settings.config, device=settings.device)
    run = write_run_files(settings, engine)
    done, skipped, failures = 0, 0, []
    for number, entry in enumerate(entries, start=1):
        listener.slide(entry.slide_id, number, len(entries))
        failure, ran = _attempt(entry, settings, engine, listener, run)
        if failure:
            failures.append(failure)
            listener.finished(entry.slide_id, f"failed at {failure.stage}: {failure.message}")
            continue
        done, skipped = done + ran, skipped + (not ran)
        listener.finished(entry.slide_id, "done" if ran else "complete already")
    write_cohort_tables(settings.out, taxonomy=engine.bundle.taxonomy)
    return Outcome(done, skipped, tuple(failures))


def _attempt(
    entry: SlideEntry, settings: RunSettings, engine: Engine, listener: Listener, run: dict[str, Any]
) -> tuple[Failure | None, bool]:
    """Run one slide; turn what goes wrong into a failure and note it in the slide's record."""
    folder = settings.out / "slides" / entry.slide_id
    folder.mkdir(parents=True, exist_ok=True)
    record = SlideRecord.open(folder / "record.json")
    if settings.overwrite:
        record.entries.pop("stages", None)
    record.entries |= {"slide_id": entry.slide_id, "path": str(entry.path)}
    reached = "open"

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal reached
        reached = stage
        listener.progress(stage, done, total)

    job = Job(entry, settings.config, engine, folder, workers=settings.workers, tissue=settings.tissue)
    try:
        ran = run_slide(job, record, progress, run=run)
    except SLIDE_FAULTS as error:
        failure = describe_failure(entry, reached, error)
        record.entries["failure"] = {**asdict(failure), "time": now(), "traceback": traceback.format_exc()}
        record.write()
        return failure, False
    if record.entries.pop("failure", None):
        record.write()
    return None, ran


def write_run_files(settings: RunSettings, engine: Engine) -> dict[str, Any]:
    """Write ``run.json`` and ``config.yaml``: what is run, with what. Gives what ``run.json`` holds."""
    bundle = engine.bundle
    run: dict[str, Any] = {
        "started": now(),
        "command": command_line(),
        "versions": versions(),
        "cpus": os.cpu_count(),
        "bundle": {
            "name": bundle.name,
            "path": str(engine.name),
            "sha256": bundle.sha256,
            "licence": bundle.licence,
            "mpp": bundle.mpp,
        },
        "taxonomy": bundle.taxonomy.to_dict(),
        "device": settings.device,
        "workers": settings.workers,
        "tissue": str(settings.tissue) if settings.tissue else None,
        "settings": settings.config.to_dict(),
    }
    write_json(settings.out / "run.json", run)
    text = yaml.safe_dump(settings.config.to_dict(), sort_keys=False)
    (settings.out / "config.yaml").write_text(text, encoding="utf-8")
    return run
