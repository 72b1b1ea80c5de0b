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
from pathopan.inference.runtime import check_device, resolve_device
from pathopan.inference.shards import ShardPlan, remove_shards
from pathopan.manifest import SlideEntry
from pathopan.network.quantised import find_quantised
from pathopan.outputs import Place, export_to_files, find_place, is_complete
from pathopan.privacy import forget_paths, without_path
from pathopan.record import SlideRecord
from pathopan.scoring import score_to_files
from pathopan.spread import Spread, gpu_places
from pathopan.stages import (
    Engine,
    Job,
    Predict,
    Progress,
    Tiling,
    describe_bundle,
    is_stitched,
    is_tiled,
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
        asked = settings.config.inference
        for place in gpu_places(settings.device, settings.gpus) or [settings.device]:
            check_device(place, asked.runtime, asked.precision)
        self._settings = settings
        self._engine = Engine(settings.bundle, settings.config, device=settings.device)
        if asked.precision == "int8":
            find_quantised(settings.bundle)
        self.described = {**describe_engine(self._engine), "overlap": overlaps(settings)}
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

    def __call__(
        self,
        entry: SlideEntry,
        run: dict[str, Any],
        progress: Progress,
        *,
        finish: bool = True,
        overwrite: bool = False,
    ) -> tuple[Failure | None, bool]:
        """Run one slide; turn what goes wrong into a failure and note it in the slide's record.

        Parameters
        ----------
        entry : SlideEntry
            The slide.
        run : dict
            What ``run.json`` holds, for the slide's page.
        progress : callable
            Told (stage, done, total).
        finish : bool
            If not, only the tiles are looked at; another call does the rest, in whichever process.
        overwrite : bool
            Do everything again.

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
            job = self._begin(entry, record, overwrite=overwrite)
            looked = not finish and look_at_slide(job, record, told, predict=self._predict)
            return None, looked or self._finish(job, record, run, told)  # a slide that was complete is finished here
        except Exception as error:  # noqa: BLE001 (whatever one slide does, the others are done)
            failure = describe_failure(entry, reached, error)
            if record is not None:
                with contextlib.suppress(OSError):  # where the disk is full, the run says so at its end
                    note_failure(record, failure, traceback.format_exc())
                    self._forget(entry, record)
            return failure, False

    def _begin(self, entry: SlideEntry, record: SlideRecord, *, overwrite: bool) -> Job:
        settings, folder = self._settings, record.path.parent
        remove_leftovers(folder)
        if overwrite and "stages" in record.entries:
            record.entries["stages"] = {}
            record.write()
        if overwrite:
            remove_shards(folder / "shards")
        return Job(entry, settings.config, self._engine, folder, workers=settings.workers, tissue=settings.tissue)

    def _finish(self, job: Job, record: SlideRecord, run: dict[str, Any], progress: Progress) -> bool:
        ran = run_slide(job, record, progress, run=run, predict=self._predict)
        if record.entries.pop("failure", None):
            record.write()
        self._forget(job.entry, record)
        return ran

    def _forget(self, entry: SlideEntry, record: SlideRecord) -> None:
        if self._settings.config.export.anonymous:
            forget_paths(record, entry.path)


def overlaps(settings: RunSettings) -> bool:
    """Say whether slides are finished beside the network: on a GPU, which would wait, and not within 3 GiB on a CPU."""
    asked = settings.config.inference
    if asked.overlap == "auto":
        return resolve_device(settings.device, asked.runtime).startswith("cuda")
    return asked.overlap == "always"


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


def keep_warnings(job: Job, record: SlideRecord, told: list[str]) -> None:
    """Enter warnings into a slide's record, each once."""
    if told:
        notes = record.notes("tile")
        known = [*notes.get("reader_warnings", []), *nameless(job, told)]
        notes["reader_warnings"] = list(dict.fromkeys(known))[:MAX_WARNINGS]
        record.write()


def nameless(job: Job, told: list[str]) -> list[str]:
    """Give what a slide's reader told, each once and without the slide's path, which not everybody may read."""
    return list(dict.fromkeys(without_path(text, job.entry.path, job.entry.slide_id) for text in told))


def describe_engine(engine: Engine) -> dict[str, Any]:
    """Give what ``run.json`` holds of a bundle."""
    return {"bundle": describe_bundle(engine), "taxonomy": engine.bundle.taxonomy.to_dict()}


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
    place = _place(job, record)
    if is_complete(place, record) and is_tiled(job, record):
        return False
    if not is_stitched(job, record):
        with heard_warnings() as told:
            tiling, plan = _look(job, record, progress, predict)
            progress("stitch", len(tiling.tiles), len(tiling.tiles))
            stitch_slide(job, tiling, plan, record, progress=progress)
        keep_warnings(job, record, told)
    elif not is_tiled(job, record):
        tile_slide(job, record)
    progress("score", 0, 1)
    score_to_files(place, record)
    progress("export", 0, 1)
    export_to_files(place, record, run=run)
    return True


def look_at_slide(job: Job, record: SlideRecord, progress: Progress, *, predict: Predict = predict_shards) -> bool:
    """Take one slide through the stages that need the network; :func:`run_slide` then finds its tiles looked at.

    Returns
    -------
    bool
        False if the slide is complete.

    Raises
    ------
    SlideError
        If the slide cannot be read, has no mpp, or is too coarse.
    """
    if is_complete(_place(job, record), record) and is_tiled(job, record):
        return False
    if not is_stitched(job, record):
        with heard_warnings() as told:
            _look(job, record, progress, predict)
        keep_warnings(job, record, told)
    return True


def _look(job: Job, record: SlideRecord, progress: Progress, predict: Predict) -> tuple[Tiling, ShardPlan]:
    tiling = tile_slide(job, record)
    return tiling, predict_slide(job, tiling, record, progress, predict=predict)


def _place(job: Job, record: SlideRecord) -> Place:
    return find_place(
        job.entry.slide_id,
        job.folder,
        record,
        taxonomy=job.taxonomy,
        config=job.config,
        stitch_print=job.prints["stitch"],
    )
