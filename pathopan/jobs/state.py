"""Do one job of one slide, and say how it ended: done, refused, or failed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pathopan.batch import Failure, describe_failure
from pathopan.errors import ResultError, SlideError
from pathopan.files import remove
from pathopan.jobs.plan import Plan
from pathopan.locks import hold_folder
from pathopan.outputs import Place, find_place, is_complete
from pathopan.privacy import forget_paths, hide_failure, without_path
from pathopan.record import SlideRecord, now, read_json, write_json

FIRST, LAST = "tile", "export"
"""The stage that opens a slide anew, and the one after which nothing needs its path."""

Work = Callable[[SlideRecord], dict[str, Any]]
"""Does a stage; gives what its state shall tell."""


@dataclass(frozen=True)
class JobState:
    """How a job ended."""

    slide_id: str
    stage: str
    state: Literal["done", "refused", "failed"]  # refused: the slide is at fault; failed: anything else is
    failure: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it in one line."""
        if self.state == "done":
            told = ", ".join(f"{key} {value}" for key, value in self.notes.items() if key != "fingerprint")
            return f"{self.slide_id}: {self.stage} done" + (f" ({told})" if told else "")
        remedy = self.failure.get("remedy", "")
        return f"{self.slide_id}: {self.stage} {self.state}: {self.failure['message']} -> {remedy}"


@dataclass(frozen=True)
class Stage:
    """Which job is done, and which jobs must have been done before."""

    name: str
    after: str = ""  # pattern of the jobs' names
    job: str = ""  # the job's own name, where a stage has several
    records: bool = True  # whether this job alone writes into the slide's record now


def run_stage(plan: Plan, slide_id: str, stage: Stage, work: Work) -> JobState:
    """Do a stage of a slide; what goes wrong with the slide becomes an answer, and anything else is told and noted.

    Parameters
    ----------
    plan : Plan
        The run.
    slide_id : str
        One of its slides.
    stage : Stage
        Which.
    work : callable
        Does it.

    Returns
    -------
    JobState
        Also written into the run's folder. One that failed lies beside the others as ``<job>.failed.json``.

    Raises
    ------
    ManifestError
        If the slide is not planned.
    ResultError
        If an earlier stage has not been done.
    """
    record, job = plan.open_record(slide_id), stage.job or stage.name
    earlier = plan.states(slide_id, stage.after) if stage.after else []
    if stage.after and not earlier:
        msg = f"{slide_id}: `pathopan {stage.after.partition('.')[0]} {plan.out} --slide {slide_id}` comes first"
        raise ResultError(msg)
    refused = next((state for state in earlier if state.get("state") == "refused"), None)
    if refused:
        return _end(plan, job, record, stage, JobState(slide_id, stage.name, "refused", refused["failure"]))
    started = time.monotonic()
    try:
        with hold_folder(plan.out, shared=True):
            notes = work(record)
    except SlideError as error:
        failure = _describe(plan, slide_id, stage, error)
        return _end(plan, job, record, stage, JobState(slide_id, stage.name, "refused", failure))
    except Exception as error:  # noqa: BLE001 (the job ends with it, and says why)
        return _fail(plan, job, _describe(plan, slide_id, stage, error))
    notes = {**notes, "seconds": round(time.monotonic() - started, 3)}
    if stage.name == FIRST:  # what later jobs said of the slide as it was holds no more, in however many parts
        for path in plan.state_path(slide_id, job).parent.glob("*.json"):
            if (read_json(path) or {}).get("state") == "refused":
                remove(path)
    return _end(plan, job, record, stage, JobState(slide_id, stage.name, "done", notes=notes))


def _describe(plan: Plan, slide_id: str, stage: Stage, error: Exception) -> dict[str, Any]:
    """Say what went wrong; of an anonymous run, without the slide's path."""
    entry = plan.entry(slide_id)
    failure = asdict(describe_failure(entry, _reached(stage), error))
    if plan.anonymous:
        hide_failure(failure, entry.path, slide_id)
    return failure


def _reached(stage: Stage) -> str:
    """Name the stage as a run of all stages does, which opens a slide before it tells of progress."""
    return "open" if stage.name == FIRST else stage.name


def _end(plan: Plan, job: str, record: SlideRecord, stage: Stage, state: JobState) -> JobState:
    """Write how a job ended; the record, which the tables follow, first."""
    if stage.records and state.failure:
        record.entries["failure"] = {**state.failure, "time": now()}
        record.write()
    elif stage.records and record.entries.pop("failure", None):
        record.write()
    if stage.records and plan.anonymous and (state.failure or stage.name == LAST):
        forget_paths(record, plan.entry(state.slide_id).path)
    told = {"slide_id": state.slide_id, "stage": state.stage, "state": state.state, "finished": now(), **state.notes}
    write_json(plan.state_path(state.slide_id, job), told | ({"failure": state.failure} if state.failure else {}))
    remove(plan.state_path(state.slide_id, f"{job}.failed"))
    return state


def _fail(plan: Plan, job: str, failure: dict[str, Any]) -> JobState:
    state, trace = JobState(failure["slide_id"], failure["stage"], "failed", failure), traceback.format_exc()
    if plan.anonymous:
        trace = without_path(trace, plan.entry(state.slide_id).path, state.slide_id)
    told = {"state": "failed", "failure": failure, "time": now(), "traceback": trace}
    write_json(plan.state_path(state.slide_id, f"{job}.failed"), told)
    return state


def find_unfinished(plan: Plan) -> list[Failure]:
    """Say of every planned slide that has neither a result nor a refusal how far it came."""
    return [failure for slide_id in plan.entries if (failure := _unfinished(plan, slide_id))]


def find_stitched(plan: Plan, slide_id: str, record: SlideRecord) -> Place | None:
    """Gather what the later stages of a stitched slide depend on; ``None`` if the slide has not been stitched."""
    stitched = record.notes("stitch").get("fingerprint")
    if stitched is None:
        return None
    folder, taxonomy, config = plan.folder(slide_id), plan.taxonomy, plan.config
    return find_place(slide_id, folder, record, taxonomy=taxonomy, config=config, stitch_print=stitched)


def _is_finished(plan: Plan, slide_id: str, record: SlideRecord) -> bool:
    """Say whether a slide was taken through all stages as the run is planned now."""
    bundle, place = plan.run["bundle"]["sha256"], find_stitched(plan, slide_id, record)
    same = record.notes("stitch").get("bundle", {}).get("sha256", bundle) == bundle
    return same and place is not None and is_complete(place, record)


def _unfinished(plan: Plan, slide_id: str) -> Failure | None:
    record = plan.open_record(slide_id)
    if "failure" in record.entries or _is_finished(plan, slide_id, record):
        return None
    failed = plan.states(slide_id, "*.failed")
    if failed:
        return Failure(**failed[0]["failure"])
    known = [state["stage"] for state in sorted(plan.states(slide_id, "*"), key=lambda state: state["finished"])]
    last = f"not complete: {known[-1]} was its last stage" if known else "not complete: nothing was done yet"
    remedy = "wait for the jobs, or start the workflow again: it goes on from there"
    return Failure(slide_id, plan.told_path(slide_id), known[-1] if known else "", "Unfinished", last, remedy)
