"""One slide of a batch: through all its stages, or a record of why not."""

from __future__ import annotations

import atexit
import contextlib
import logging
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

from pathopan.batch import Failure, RunSettings, describe_failure, note_failure, open_record
from pathopan.files import remove_leftovers
from pathopan.inference.runtime import check_device
from pathopan.manifest import SlideEntry
from pathopan.outputs import export_to_files, find_place, is_complete
from pathopan.privacy import forget_paths, without_path
from pathopan.record import SlideRecord
from pathopan.scoring import score_to_files
from pathopan.spread import Spread
from pathopan.stages import (
    Engine,
    Job,
    Predict,
    Progress,
    is_stitched,
    predict_shards,
    predict_slide,
    stitch_slide,
    tile_slide,
)

MAX_WARNINGS = 20
"""Of a slide's libraries in its record; a damaged file can raise one for every tile."""


class Attempts:
    """Whoever runs slides one after the other, with one network for all of them.

    Parameters
    ----------
    settings : RunSettings
        How, and where to.

    Raises
    ------
    BundleError, RuntimeUnavailable
        If the bundle or the device cannot be used: then no slide can be run.
    """

    def __init__(self, settings: RunSettings) -> None:
        """Read the bundle; the network is loaded when a tile needs it."""
        check_device(settings.device, settings.config.inference.runtime)
        self._settings = settings
        self._engine = Engine(settings.bundle, settings.config, device=settings.device)
        self.described = describe_engine(self._engine)
        self._predict: Predict = predict_shards
        if settings.gpus:
            spread = Spread(
                settings.bundle,
                settings.config,
                device=settings.device,
                gpus=settings.gpus,
                patience_s=settings.patience_s,
            )
            atexit.register(spread.close)
            self._predict = spread.predict

    def __call__(self, entry: SlideEntry, run: dict[str, Any], progress: Progress) -> tuple[Failure | None, bool]:
        """Run one slide; turn what goes wrong into a failure and note it in the slide's record.

        Parameters
        ----------
        entry : SlideEntry
            The slide.
        run : dict
            What ``run.json`` holds, for the slide's page.
        progress : callable
            Told (stage, done, total).

        Returns
        -------
        failure : Failure or None
            Why it has no score.
        ran : bool
            False if there was nothing to do.
        """
        reached = "open"

        def told(stage: str, done: int, total: int) -> None:
            nonlocal reached
            reached = stage
            progress(stage, done, total)

        record = None
        try:
            record = open_record(self._settings, entry)
            return None, self._run(entry, record, run, told)
        except Exception as error:  # noqa: BLE001 (whatever one slide does, the others are done)
            failure = describe_failure(entry, reached, error)
            if record is not None:
                with contextlib.suppress(OSError):  # where the disk is full, the run says so at its end
                    note_failure(record, failure, traceback.format_exc())
                    self._forget(entry, record)
            return failure, False

    def _run(self, entry: SlideEntry, record: SlideRecord, run: dict[str, Any], progress: Progress) -> bool:
        settings, folder = self._settings, record.path.parent
        remove_leftovers(folder)
        if settings.overwrite and "stages" in record.entries:
            record.entries["stages"] = {}
        job = Job(entry, settings.config, self._engine, folder, workers=settings.workers, tissue=settings.tissue)
        ran = run_slide(job, record, progress, run=run, predict=self._predict)
        if record.entries.pop("failure", None):
            record.write()
        self._forget(entry, record)
        return ran

    def _forget(self, entry: SlideEntry, record: SlideRecord) -> None:
        if self._settings.config.export.anonymous:
            forget_paths(record, entry.path)


@contextlib.contextmanager
def heard_warnings() -> Iterator[list[str]]:
    """Gather what libraries warn of while they read a slide, so that it stands in its record and on its page.

    Examples
    --------
    >>> with heard_warnings() as told:
    ...     logging.getLogger("tifffile").warning("odd tag %d", 7)
    >>> told
    ['tifffile: odd tag 7']
    """
    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(f"{record.name}: {record.getMessage()}")  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield told
    finally:
        root.removeHandler(handler)
    told += [str(one.message) for one in caught]


def _keep_warnings(job: Job, record: SlideRecord, told: list[str]) -> None:
    """Enter warnings into a slide's record, each once; they name files, which not everybody may read."""
    if told:
        texts = [without_path(text, job.entry.path, job.entry.slide_id) for text in dict.fromkeys(told)]
        record.notes("stitch")["reader_warnings"] = texts[:MAX_WARNINGS]
        record.write()


def describe_engine(engine: Engine) -> dict[str, Any]:
    """Give what ``run.json`` holds of a bundle."""
    bundle = engine.bundle
    told = {
        "name": bundle.name,
        "path": str(engine.name),
        "sha256": bundle.sha256,
        "licence": bundle.licence,
        "mpp": bundle.mpp,
    }
    return {"bundle": told, "taxonomy": bundle.taxonomy.to_dict()}


def run_slide(
    job: Job, record: SlideRecord, progress: Progress, *, run: dict[str, Any], predict: Predict = predict_shards
) -> bool:
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
        with heard_warnings() as told:
            tiling = tile_slide(job, record)
            plan = predict_slide(job, tiling, record, progress, predict=predict)
            progress("stitch", len(tiling.tiles), len(tiling.tiles))
            stitch_slide(job, tiling, plan, record, progress=progress)
        _keep_warnings(job, record, told)
    progress("score", 0, 1)
    score_to_files(place, record)
    progress("export", 0, 1)
    export_to_files(place, record, run=run)
    return True
