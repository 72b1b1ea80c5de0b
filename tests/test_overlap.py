"""A slide is finished while the network looks at the next: the same files, failures and interruptions as in turn."""

import io
import json
import sys
import threading

import dangers
import pandas as pd
import pytest
from test_isolation import is_alive

from pathopan.attempt import overlaps
from pathopan.batch import RunSettings
from pathopan.config import load_config
from pathopan.console import LineWatcher
from pathopan.errors import ConfigError
from pathopan.inference.child import Child
from pathopan.inference.ordered import ordered_map
from pathopan.locks import is_held
from pathopan.pipeline import run_cohort
from pathopan.status import read_status

OVERLAP, IN_TURN = (load_config(overrides=[f"inference.overlap={how}"]) for how in ("always", "never"))
TIMED = {"run.json", "record.json", "config.yaml", "report.html", "import_into_qupath.groovy", ".pathopan.written.json"}


def contents(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in TIMED
    }


@pytest.fixture
def dangerous(monkeypatch):
    monkeypatch.setattr("pathopan.pipeline.open_worker", dangers.open_dangerous)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_bytes_and_the_failures_are_those_of_slides_in_turn(tmp_path, small_bundle, small_slides, dangerous):
    entries, said = small_slides("a", "crashes", "b"), io.StringIO()
    for name, config in (("on", OVERLAP), ("off", IN_TURN)):
        settings = RunSettings(tmp_path / name, small_bundle, config)
        outcome = run_cohort(entries, settings, LineWatcher(said if name == "on" else sys.stdout))
        assert (outcome.done, outcome.skipped, [f.slide_id for f in outcome.failures]) == (2, 0, ["crashes"])
        assert json.loads((tmp_path / name / "run.json").read_text())["overlap"] == (name == "on")
    found, expected = contents(tmp_path / "on"), contents(tmp_path / "off")
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    lines = said.getvalue().splitlines()
    assert [line for line in lines if line.endswith("done")] == ["[1/3] a: done", "[3/3] b: done"]
    assert lines.index("[2/3] crashes") < lines.index("[1/3] a: done")
    again = run_cohort(entries[:1], RunSettings(tmp_path / "on", small_bundle, OVERLAP), LineWatcher(sys.stdout))
    assert (again.done, again.skipped) == (0, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_overwrite_looks_at_each_slide_once(tmp_path, small_bundle, small_slides, dangerous):
    entries = small_slides("a", "b")
    run_cohort(entries, RunSettings(tmp_path / "out", small_bundle, OVERLAP), LineWatcher(sys.stdout))
    before = contents(tmp_path / "out")
    said = io.StringIO()
    settings = RunSettings(tmp_path / "out", small_bundle, OVERLAP, overwrite=True)
    assert run_cohort(entries, settings, LineWatcher(said)).done == 2
    assert contents(tmp_path / "out") == before
    records = [json.loads((tmp_path / "out" / "slides" / name / "record.json").read_text()) for name in "ab"]
    assert all(set(record["stages"]) >= {"tile", "predict", "stitch", "score", "export"} for record in records)


class StoppedAt:
    """A listener at whose terminal somebody types Ctrl-C when a slide begins, or when one ends."""

    def __init__(self, event, slide):
        self.event, self.name, self.children = event, slide, []

    def slide(self, slide_id, *_told):
        self._stop("slide", slide_id)

    def progress(self, *_told): ...

    def finished(self, slide_id, _text):
        self._stop("finished", slide_id)

    def _stop(self, event, slide_id):
        if (event, slide_id) == (self.event, self.name):
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("event", "slide"), [("slide", "b"), ("finished", "a")])
def test_an_interruption_ends_both_processes_and_the_next_call_goes_on(
    tmp_path, small_bundle, small_slides, monkeypatch, event, slide
):
    children = []

    def open_noted(settings, keep_open):
        children.append(dangers.open_dangerous(settings, keep_open))
        return children[-1]

    monkeypatch.setattr("pathopan.pipeline.open_worker", open_noted)
    entries, settings = small_slides("a", "b"), RunSettings(tmp_path / "out", small_bundle, OVERLAP)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run_cohort(entries, settings, StoppedAt(event, slide))
    assert len(children) == 2
    assert not is_held(tmp_path / "out")
    assert threading.active_count() == threads
    records = sorted((tmp_path / "out" / "slides").glob("*/record.json"))
    assert not any("failure" in json.loads(path.read_text()) for path in records)
    outcome = run_cohort(entries, settings, LineWatcher(sys.stdout))
    assert outcome.failures == ()
    assert pd.read_csv(tmp_path / "out" / "scores.csv")["status"].tolist() == ["scored"] * 2


@pytest.mark.slow
def test_status_tells_of_both_slides(tmp_path, small_bundle, small_slides, dangerous):
    states = []

    class Onlooker(LineWatcher):
        def slide(self, slide_id, number, total):
            super().slide(slide_id, number, total)
            states.append([(s.slide_id, s.state, s.text) for s in read_status(tmp_path / "out").slides])

    run_cohort(small_slides("a", "b"), RunSettings(tmp_path / "out", small_bundle, OVERLAP), Onlooker(sys.stdout))
    assert states[0][0] == ("a", "running", "open")
    assert states[1] == [("a", "running", "stitch, score, export"), ("b", "running", "open")]


def test_a_child_that_another_thread_closes_interrupts_who_asked():
    child, told = Child(dangers.echo, patience_s=60), threading.Event()
    pid = child.ask("a", lambda *_told: None)[1]
    caught = []

    def ask():
        try:
            child.ask("sleep", lambda *_told: told.set())
        except KeyboardInterrupt as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert told.wait(60)
    child.close()
    thread.join(60)
    assert len(caught) == 1
    assert not is_alive(pid)


@pytest.mark.parametrize("broken", [True, False])
def test_what_is_abandoned_hears_of_it_before_it_is_waited_for(broken):
    stop, left = threading.Event(), []

    def source():
        yield 1
        if broken:
            raise KeyboardInterrupt
        stop.set()

    def abandon():
        left.append(True)
        stop.set()

    results = ordered_map(lambda _: stop.wait(60), source(), workers=1, abandon=abandon)
    if broken:
        with pytest.raises(KeyboardInterrupt):
            list(results)
    else:
        assert list(results) == [True]
    assert left == [True] * broken


@pytest.mark.parametrize(("asked", "device", "cuda", "expected"), [
    ("auto", "auto", False, False), ("auto", "auto", True, True), ("auto", "cpu", True, False),
    ("always", "cpu", False, True), ("never", "cuda", True, False),
])  # fmt: skip
def test_slides_overlap_where_a_gpu_would_wait(tmp_path, monkeypatch, asked, device, cuda, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    config = load_config(overrides=[f"inference.overlap={asked}"])
    assert overlaps(RunSettings(tmp_path, "breast-he-1", config, device)) == expected


def test_it_is_always_never_or_auto():
    with pytest.raises(ConfigError, match="auto, always or never"):
        load_config(overrides=["inference.overlap=maybe"])
