"""The jobs that need the slide and the network: plan, tile, predict, stitch."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pathopan.attempt import MAX_WARNINGS, describe_engine, heard_warnings, keep_warnings, nameless
from pathopan.batch import RunSettings, check_tissue
from pathopan.errors import ConfigError, IncompatibleBundle, ResultError
from pathopan.jobs.plan import Plan
from pathopan.jobs.state import JobState, Stage, run_stage
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import list_bundles
from pathopan.pipeline import write_run_files
from pathopan.privacy import PRIVATE, write_slides
from pathopan.record import SlideRecord
from pathopan.spread import Spread
from pathopan.stages import (
    Engine,
    Job,
    Predict,
    Progress,
    is_stitched,
    is_tiled,
    predict_shards,
    shard_plan,
    stitch_slide,
)
from pathopan.stages import tile_slide as tile

_PATIENCE_S = 1_800.0  # a device without any progress for so long is given up


class Part(NamedTuple):
    """One of several jobs that share a slide's tiles."""

    number: int  # from 1
    total: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``i/n``.

        Raises
        ------
        ConfigError
            If it is not of that form, or i does not lie in 1..n.

        Examples
        --------
        >>> Part.parse("2/3")
        Part(number=2, total=3)
        """
        number, slash, total = text.partition("/")
        if slash and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total):
            return cls(int(number), int(total))
        msg = f"--shard {text!r} must read i/n with i from 1 to n, such as 1/2 for the first of two jobs"
        raise ConfigError(msg)


def plan_run(entries: list[SlideEntry], settings: RunSettings) -> None:
    """Write down what a run shall do: ``run.json``, ``config.yaml`` and ``slides.csv``; paths see ``privacy``.

    Raises
    ------
    ConfigError
        If the tissue mask cannot be used.
    BundleError
        If the bundle cannot be used.
    ResultError
        If the folder is no run's and holds files of the same names.
    """
    check_tissue(entries, settings.tissue)
    shipped = str(settings.bundle) in list_bundles()
    bundle = settings.bundle if shipped else Path(settings.bundle).absolute()
    tissue = settings.tissue.absolute() if settings.tissue else None
    placed = replace(settings, bundle=bundle, tissue=tissue)
    settings.out.mkdir(parents=True, exist_ok=True)
    entries = [replace(entry, mpp=entry.mpp_to_give(), mpp_if_missing=None) for entry in entries]
    write_slides(settings.out, entries, tissue=tissue, anonymous=settings.config.export.anonymous)
    engine = Engine(bundle, settings.config, device=settings.device)
    write_run_files(placed, describe_engine(engine), entries)


def tile_job(plan: Plan, slide_id: str) -> JobState:
    """Find a slide's tissue and choose its tiles."""

    def work(record: SlideRecord) -> dict[str, Any]:
        job = _job(plan, slide_id)
        with heard_warnings() as told:
            tiling = tile(job, record)
        keep_warnings(job, record, told)
        return {"tiles": len(tiling.tiles)}

    return run_stage(plan, slide_id, Stage("tile"), work)


def predict_job(
    plan: Plan,
    slide_id: str,
    part: Part,
    progress: Progress,
    *,
    workers: int | None = None,
    gpus: tuple[int, ...] = (),
) -> JobState:
    """Look at one part of a slide's tiles; parts may run at once, on different machines, and each goes on if repeated.

    Parameters
    ----------
    plan : Plan
        The run.
    slide_id : str
        One of its slides.
    part : Part
        Which part of its tiles.
    progress : callable
        Told (stage, done, total).
    workers : int, optional
        Threads; without it, those of the plan.
    gpus : tuple of int
        GPUs that share the part; without any, one device does it.
    """
    job, stage = _job(plan, slide_id, workers), f"predict.{part.number}-of-{part.total}"
    with ExitStack() as stack:
        predict: Predict = predict_shards
        if gpus:
            engine = job.engine
            spread = Spread(engine.name, plan.config, device=engine.device, gpus=gpus, patience_s=_PATIENCE_S)
            predict = stack.enter_context(closing(spread)).predict
        work = partial(_predict, job, part, predict, progress)
        return run_stage(plan, slide_id, Stage("predict", after="tile", job=stage, records=False), work)


def _predict(job: Job, part: Part, predict: Predict, progress: Progress, record: SlideRecord) -> dict[str, Any]:
    noted = {"fingerprint": job.prints["predict"]}
    if is_stitched(job, record):
        return noted | {"computed": 0}
    with heard_warnings() as told:
        tiling = _tiling(job, record)
        notes = predict(job, tiling, shard_plan(job, tiling).part(*part), progress)
    return noted | notes | {"reader_warnings": nameless(job, told)[:MAX_WARNINGS]}


def stitch_job(plan: Plan, slide_id: str) -> JobState:
    """Merge what all parts saw.

    Fails if a part is missing: ``pathopan predict`` has to be run for it first.
    """
    job = _job(plan, slide_id)

    def work(record: SlideRecord) -> dict[str, Any]:
        if not is_stitched(job, record):
            parts = plan.states(slide_id, "predict.*")
            with heard_warnings() as told:
                tiling = _tiling(job, record)
                _note_predictions(job, record, parts)
                stitch_slide(job, tiling, shard_plan(job, tiling), record)
            keep_warnings(job, record, [*(text for part in parts for text in part.get("reader_warnings", [])), *told])
        return {"nuclei": record.notes("stitch")["nuclei"]}

    return run_stage(plan, slide_id, Stage("stitch", after="predict.*"), work)


def _job(plan: Plan, slide_id: str, workers: int | None = None) -> Job:
    run = plan.run
    engine = Engine(run["bundle"]["path"], plan.config, device=run["device"])
    if engine.bundle.sha256 != run["bundle"]["sha256"]:
        msg = f"bundle {run['bundle']['path']} has changed since {plan.out} was planned; plan it again"
        raise IncompatibleBundle(msg)
    if plan.entry(slide_id).path == Path():
        msg = f"{plan.out / PRIVATE} is gone, so nobody knows where slide {slide_id!r} lies; plan the run again"
        raise ResultError(msg)
    threads = run["workers"] if workers is None else workers
    return Job(plan.entry(slide_id), plan.config, engine, plan.folder(slide_id), workers=threads, tissue=plan.tissue)


def _tiling(job: Job, record: SlideRecord) -> Any:
    """Read the tiles that the first stage chose; jobs that run at once must not choose them anew."""
    if not is_tiled(job, record):
        slide_id = job.entry.slide_id
        msg = f"{slide_id}: slide or settings changed since its tiles were chosen; `pathopan tile` comes first"
        raise ResultError(msg)
    return tile(job, record)


def _note_predictions(job: Job, record: SlideRecord, states: list[dict[str, Any]]) -> None:
    """Enter into the record what the parts told, as a run in one piece does."""
    print_ = job.prints["predict"]
    ran = [state for state in states if state.get("fingerprint") == print_ and "runtime" in state]
    if not ran:
        return
    shared = {name: ", ".join(sorted({state[name] for state in ran})) for name in ("runtime", "device", "precision")}
    tiles = sum(state["computed"] for state in ran)
    record.finish("predict", print_, seconds=sum(s["seconds"] for s in ran), notes={**shared, "tiles": tiles})
