"""The cohort workflow on a real Slurm of three nodes, through all that a weekend may bring."""

import faulthandler
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from slurm_cluster import why_not
from slurm_story import BLOCKED, GOOD, HUNGRY, LONG, REFUSED, tell

from pathopan.record import LEDGER

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

TIMED = {"run.json", "record.json", "report.html", "config.yaml", "slides.csv", "import_into_qupath.groovy", LEDGER}
"""Files that tell when, how or where a run was made; everything else must be the same to the byte."""


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    faulthandler.cancel_dump_traceback_later()  # this takes longer than any other test, and is no deadlock
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    return tell(tmp_path_factory.mktemp("slurm"), shared if shared.is_dir() else None)


def test_the_driver_was_killed_at_work(story):
    assert story.seen["driver ended"] is None
    assert story.seen["orphans"] >= 1
    assert story.codes["unlock"] == 0, story.outputs["unlock"]


def test_finished_tiles_were_not_computed_again(story):
    kept = len(story.seen["kept"])
    parts = {name: story.state(LONG, name) for name in ("predict.1-of-2", "predict.2-of-2")}
    tiles = sum(part["tiles"] for part in parts.values())
    computed = sum(part["computed"] for name, part in parts.items() if name not in story.seen["parts done"])
    assert kept >= 2
    assert tiles == story.state(LONG, "tile")["tiles"] > 2
    assert computed <= tiles - kept


def test_one_slide_failed_for_good_and_all_others_were_done(story):
    assert story.codes["second"] == 1, story.outputs["second"][-2000:]
    assert story.seen["done early"] == sorted(set(GOOD) - {BLOCKED})


def test_the_partial_table_names_it_and_why(story):
    assert story.codes["partial"] == 0, story.outputs["partial"][-2000:]
    assert f"\n{BLOCKED},failed," in story.seen["partial"]["scores.csv"]
    row = next(line for line in story.seen["partial"]["failures.csv"].splitlines() if line.startswith(BLOCKED))
    assert "FileExistsError" in row or "NotADirectoryError" in row


def test_mended_it_was_finished_and_nothing_else_was_touched(story):
    assert story.codes["third"] == 0, story.outputs["third"][-2000:]
    assert story.seen["touched"] == {BLOCKED}
    assert "Nothing to be done" in story.outputs["dry"], story.outputs["dry"]


def test_a_changed_setting_redoes_what_rests_on_it(story):
    counts = dict(re.findall(r"^(\w+) +(\d+)$", story.outputs["changed"], flags=re.MULTILINE))
    slides = str(len((*GOOD, *REFUSED)))
    once = dict.fromkeys(("settings", "cohort", "all"), "1")
    assert counts == once | {"score": slides, "export": slides, "total": str(2 * int(slides) + 3)}


def test_a_job_out_of_memory_was_repeated_with_more(story):
    wanted = [job for job in story.seen["jobs"] if f"rule_predict_wildcards_{HUNGRY}" in job.get("Comment", "")]
    memory = {job["JobState"]: job["MinMemoryNode"] for job in wanted if job["JobState"] != "CANCELLED"}
    states = sorted(memory)
    assert len(states) == 2, wanted
    assert "COMPLETED" in states
    assert memory.pop("COMPLETED") == "8000M"
    assert list(memory.values()) == ["700M"]


def test_the_shards_of_a_slide_ran_on_a_pretend_gpu_each(story):
    ran = [job for job in story.seen["jobs"] if "rule_predict" in job.get("Comment", "")]
    assert {job["NodeList"] for job in ran if job["JobState"] == "COMPLETED"} == {"gpu1"}
    assert {story.seen["gpus"][job["JobId"]] for job in ran if job["JobState"] == "COMPLETED"} == {"0", "1"}
    assert {story.seen["gpus"].get(job["JobId"], "") for job in story.seen["jobs"] if job not in ran} == {""}


def test_bad_slides_are_rows_with_a_reason(story):
    scores = pd.read_csv(story.out / "scores.csv").set_index("slide_id")
    assert sorted(scores.index) == sorted((*GOOD, *REFUSED))
    assert sorted(scores.index[scores["status"] == "failed"]) == sorted(REFUSED)
    failures = pd.read_csv(story.out / "failures.csv").set_index("slide_id")
    assert failures["error"].to_dict() == {"broken": "UnreadableSlide", "unknown": "MissingMpp"}
    assert {story.state(name, "export")["state"] for name in REFUSED} == {"refused"}


def test_a_run_on_one_machine_leaves_the_same_bytes(story):
    assert story.codes["local"] == 1  # two slides have no score
    found, expected = contents(story.out), contents(story.local)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert {"scores.csv", "scores.parquet", "regions.parquet", "failures.csv"} <= set(expected)


def contents(out):
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in TIMED]
    ours = ("state", "logs")
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in files
        if path.relative_to(out).parts[0] not in ours and path.name not in (".pathopan.lock", ".pathopan.progress.json")
    }


def test_it_took_no_longer_than_a_break(story, capsys):
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in story.seconds.items())
    with capsys.disabled():
        sys.stdout.write(f"\nSlurm: {len(story.seen['jobs'])} jobs in {sum(story.seconds.values()):.0f} s: {parts}\n")
    assert sum(story.seconds.values()) < 1500


def test_the_workflow_makes_its_own_report(story):
    assert story.codes["report"] == 0, story.outputs["report"][-2000:]
    assert (story.folder / "report.html").stat().st_size > 100_000
