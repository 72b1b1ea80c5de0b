"""The jobs that need neither slide nor network: score, export, and the tables of the cohort."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pathopan.batch import Failure
from pathopan.cohort import write_cohort_tables
from pathopan.errors import ResultError
from pathopan.jobs.plan import Plan
from pathopan.jobs.state import JobState, Stage, find_stitched, find_unfinished, run_stage
from pathopan.manifest import MANIFEST_ID
from pathopan.outputs import Place, export_to_files
from pathopan.record import SlideRecord
from pathopan.scoring import score_to_files


def score_job(plan: Plan, slide_id: str) -> JobState:
    """Find a stitched slide's objects and score them."""

    def work(record: SlideRecord) -> dict[str, Any]:
        score_to_files(_place(plan, slide_id, record), record)
        return {}

    return run_stage(plan, slide_id, Stage("score", after="stitch"), work)


def export_job(plan: Plan, slide_id: str) -> JobState:
    """Write a scored slide's files for QuPath, and its page."""

    def work(record: SlideRecord) -> dict[str, Any]:
        export_to_files(_place(plan, slide_id, record), record, run=plan.run)
        return {}

    return run_stage(plan, slide_id, Stage("export", after="score"), work)


def tables_job(plan: Plan) -> tuple[list[Failure], list[str]]:
    """Write the cohort's tables and page from what is there; gives what is not finished, and what is odd."""
    unfinished = find_unfinished(plan)
    told = [asdict(failure) | {MANIFEST_ID: plan.entry(failure.slide_id).manifest_id} for failure in unfinished]
    return unfinished, write_cohort_tables(plan.out, taxonomy=plan.taxonomy, unfinished=told)


def _place(plan: Plan, slide_id: str, record: SlideRecord) -> Place:
    place = find_stitched(plan, slide_id, record)
    if place is None:
        msg = f"{slide_id}: record.json does not know how the slide was stitched; `pathopan stitch` comes first"
        raise ResultError(msg)
    return place
