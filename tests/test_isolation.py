"""Slides run in a child process: one that kills it fails alone, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dangers
import pandas as pd
import pytest

from pathopan.batch import RunSettings
from pathopan.config import Config
from pathopan.console import LineWatcher
from pathopan.errors import FolderInUse, ProcessDied, ProcessStalled, ResultError
from pathopan.inference.child import Child
from pathopan.locks import hold_folder, is_held
from pathopan.pipeline import run_cohort
from pathopan.status import describe_status, read_status


def silent(*_told):
    pass


def is_alive(pid):
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def open_files():
    """Files, pipes and sockets that this process holds."""
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sorted(str(link) for link in links if not str(link).startswith("/proc/"))


def test_one_child_answers_until_it_dies_and_then_another_does():
    handles = open_files()
    with Child(dangers.echo, patience_s=60) as child:
        assert child.greeting() == "hello"
        told = []
        first = child.ask("a", lambda *what: told.append(what))
        assert (first[0], told) == ("a", [("asked", "a")])
        assert child.ask("b", silent)[1] == first[1] != os.getpid()
        with pytest.raises(LookupError, match="raise"):
            child.ask("raise", silent)
        assert child.ask("c", silent)[1] == first[1]
        with pytest.raises(ProcessDied, match=r"crashed in native code \(SIGSEGV\)") as died:
            child.ask("crash", silent)
        assert "Segmentation fault" in died.value.log
        second = child.ask("d", silent)[1]
        assert second != first[1]
    assert not is_alive(first[1])
    assert not is_alive(second)
    assert open_files() == handles


def test_a_child_that_says_nothing_is_ended():
    with Child(dangers.echo, patience_s=20) as child:
        pid = child.ask("a", silent)[1]
        child._patience_s = 0.5
        with pytest.raises(ProcessStalled, match=r"nothing happened for \d s"):
            child.ask("sleep", silent)
        assert not is_alive(pid)


@pytest.mark.slow
def test_a_slide_that_hangs_is_given_up_and_one_that_is_slow_is_not(tmp_path, small_bundle, small_slides, monkeypatch):
    monkeypatch.setattr("pathopan.pipeline.open_worker", dangers.open_light)
    settings = RunSettings(tmp_path / "out", small_bundle, Config(), patience_s=dangers.SLOW_S - 4)
    started = time.monotonic()
    outcome = run_cohort(small_slides("hangs", "slow"), settings, LineWatcher(sys.stdout))
    assert time.monotonic() - started < 120
    assert (outcome.skipped, [failure.slide_id for failure in outcome.failures]) == (1, ["hangs"])
    row = pd.read_csv(tmp_path / "out" / "failures.csv").iloc[0]
    assert row[["slide_id", "stage", "error"]].tolist() == ["hangs", "predict", "ProcessStalled"]
    assert row["message"] == "nothing happened for 6 s, and its process was ended"
    assert "give slow slides more --patience" in row["remedy"]


def test_what_start_raises_is_raised_here():
    with Child(dangers.bad_start, patience_s=60) as child, pytest.raises(LookupError, match="no bundle"):
        child.greeting()


@pytest.mark.timeout(900)
def test_a_slide_that_kills_its_process_fails_alone(tmp_path, small_bundle, small_slides, monkeypatch, capsys):
    monkeypatch.setattr("pathopan.pipeline.open_worker", dangers.open_dangerous)
    entries = small_slides("crashes", "fine", "once")
    settings = RunSettings(tmp_path / "out", small_bundle, Config())
    outcome = run_cohort(entries, settings, LineWatcher(sys.stdout))
    assert (outcome.done, outcome.skipped, len(outcome.failures)) == (2, 0, 1)
    table = pd.read_csv(tmp_path / "out" / "failures.csv").set_index("slide_id")
    assert list(table) == ["path", "stage", "error", "message", "remedy"]
    assert table["error"].to_dict() == {"crashes": "ProcessDied"}
    assert "SIGSEGV" in table.loc["crashes", "message"]
    assert "more memory; if it fails again" in table.loc["crashes", "remedy"]
    record = json.loads((tmp_path / "out" / "slides" / "crashes" / "record.json").read_text())
    assert "Segmentation fault" in record["failure"]["traceback"]
    scores = pd.read_csv(tmp_path / "out" / "scores.csv").set_index("slide_id")["status"].to_dict()
    assert scores["once"] == scores["fine"] == "scored"
    assert [path for path in (tmp_path / "out").rglob("*") if path.name.endswith((".tmp", ".lock"))] == []
    states = {slide.slide_id: slide.state for slide in read_status(tmp_path / "out").slides}
    assert states == {"crashes": "failed", "fine": "done", "once": "done"}
    assert "Traceback" not in capsys.readouterr().out


@pytest.mark.timeout(900)
def test_in_line_and_in_a_child_the_result_is_the_same(tmp_path, small_bundle, small_slides, monkeypatch, truth_run):
    monkeypatch.setattr("pathopan.pipeline.open_worker", dangers.open_dangerous)
    run_cohort(small_slides("S-1"), RunSettings(tmp_path / "out", small_bundle, Config()), LineWatcher(sys.stdout))
    for name in ("score.json", "nuclei.parquet", "regions.parquet", "S-1.regions.geojson"):
        ours, theirs = ((out / "slides" / "S-1" / name).read_bytes() for out in (tmp_path / "out", truth_run))
        assert ours == theirs, name


def test_a_held_folder_is_refused_and_free_again_later(tmp_path, monkeypatch):
    monkeypatch.setattr("pathopan.locks._WAIT_S", 0.5)
    out = tmp_path / "out"
    with hold_folder(out):
        assert is_held(out)
        started = time.monotonic()
        told = rf"process {os.getpid()} on .* is writing there; wait for it"
        with pytest.raises(FolderInUse, match=told), hold_folder(out):
            pass
        assert time.monotonic() - started < 20
    assert not is_held(out)
    assert not (out / ".pathopan.lock").exists()
    with hold_folder(out, shared=True), hold_folder(out, shared=True), pytest.raises(FolderInUse), hold_folder(out):
        pass
    assert not (out / ".pathopan.lock").exists()


def test_status_lists_what_matters_and_names_who_works(tmp_path):
    out = tmp_path / "out"
    with hold_folder(out):
        told = describe_status(read_status(out))
        assert told[0] == "no slide has been begun"  # the network is being read
        assert told[1].startswith(f"going on: process {os.getpid()} on ")
    with pytest.raises(ResultError, match="holds no run"):
        read_status(out)
    names = [f"S-{number:02d}" for number in range(14)]
    (out / "run.json").write_text(json.dumps({"slides": names}))
    told = {"current": names[1], "stage": "predict", "tiles": 9, "tiles_done": 3, "finished": 1, "seconds": 60}
    (out / ".pathopan.progress.json").write_text(json.dumps({**told, "slides": names}))
    (out / "slides" / names[0]).mkdir(parents=True)
    failure = {"stage": "open", "message": "no mpp"}
    (out / "slides" / names[0] / "record.json").write_text(json.dumps({"failure": failure}))
    (out / "state" / names[2]).mkdir(parents=True)
    failed = {"failure": {"stage": "stitch", "message": "disk full"}}
    (out / "state" / names[2] / "stitch.failed.json").write_text(json.dumps(failed))
    with hold_folder(out):
        lines = describe_status(read_status(out))
    assert [line.split(maxsplit=2) for line in lines[:3]] == [
        ["S-00", "failed", "open: no mpp"],
        ["S-01", "running", "predict, tile 3 of 9"],
        ["S-02", "failed", "stitch: disk full"],
    ]
    assert lines[3] == f"waiting: {', '.join(names[3:13])} and 1 more"
    assert lines[4] == "14 slides: 2 failed, 1 running, 11 waiting"
    assert lines[6] == "60 s a slide, about 13 min left"
    dead = describe_status(read_status(out))
    assert "nobody works on it: the same command goes on where it stopped" in dead
    assert "running" not in "".join(dead)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ResultError, match="cannot be written to: File exists"), hold_folder(tmp_path / "out"):
        pass


_RUN = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import dangers
from pathopan import cli, pipeline
pipeline.open_worker = dangers.open_light
sys.argv = ["pathopan", "run", {slides!r}, "-o", {out!r}, "-b", {bundle!r}]
cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_stopped_in_the_middle_the_child_ends_and_the_lock_is_free(tmp_path, small_bundle, small_slides, number, code):
    small_slides("hangs")
    out = tmp_path / "out"
    names = {"tests": str(Path(__file__).parent), "slides": str(tmp_path / "slides"), "out": str(out)}
    script = _RUN.format(**names, bundle=str(small_bundle))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (out / ".pathopan.progress.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = [int(line) for line in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) == 1
    assert [(s.slide_id, s.state) for s in read_status(out).slides] == [("hangs", "running")]
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err
    assert ("interrupted; what is written stays, and the same command goes on" in err) == (number == signal.SIGINT)
    deadline = time.monotonic() + 15
    while is_alive(children[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(children[0])
    assert not is_held(out)
    assert not list(out.rglob("*.tmp"))
    assert [(s.slide_id, s.state) for s in read_status(out).slides] == [("hangs", "waiting")]


def test_what_a_reader_warns_of_stands_in_the_record_and_on_the_page(tmp_path, small_bundle, small_slides, monkeypatch):
    import logging

    import oracle

    import pathopan.stages

    whole = pathopan.stages.open_slide

    def warning(path, **named):
        logging.getLogger("tifffile").warning("%s: odd tag 7", path.name)
        return whole(path, **named)

    monkeypatch.setattr("pathopan.stages.open_slide", warning)
    monkeypatch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: oracle.OracleRuntime())
    run_cohort(small_slides("S-1"), RunSettings(tmp_path / "out", small_bundle, Config()), LineWatcher(sys.stdout))
    folder = tmp_path / "out" / "slides" / "S-1"
    assert json.loads((folder / "record.json").read_text())["stages"]["tile"]["reader_warnings"] == [
        "tifffile: S-1: odd tag 7"
    ]
    assert "odd tag 7" in (folder / "report.html").read_text()
