"""What an evaluation leaves on disk, from painted images and predictions that are known to be good and bad."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pathopan.classes import BREAST
from pathopan.datasets.sample import Sample, Source, empty_nuclei, nuclei_of
from pathopan.evaluation_page import Wording, _differences, choose_images, rank_images, write_evaluation, write_failures
from pathopan.metrics import Prediction, evaluate, pool

SOURCE = Source("painted", "CC0-1.0", "nobody", "breast")


def pair(name, *, right):
    """Ten nuclei, of which the first ``right`` are found, all of the right class."""
    labels = np.zeros((60, 60), np.int32)
    for index in range(10):
        y, x = 6 + 25 * (index // 5), 2 + 11 * (index % 5)
        labels[y : y + 8, x : x + 8] = index + 1
    table = nuclei_of(labels).assign(class_id=np.arange(10) % 3 + 1)
    region = np.full((60, 60), 2, np.uint8)
    truth = Sample(name, np.full((60, 60, 3), 200, np.uint8), 0.5, name[0], SOURCE, table, labels, region)
    found = table.iloc[:right].assign(prob=0.8, **{f"prob_{k.name}": 0.25 for k in BREAST.nuclei})
    return truth, Prediction(found, np.where(labels <= right, labels, 0), region)


@pytest.fixture(scope="module")
def pairs():
    return {name: pair(name, right=right) for name, right in (("a/1", 10), ("b", 2), ("c", 6), ("d", 5), ("e", 9))}


def test_tables_charts_sheets_and_page(tmp_path, pairs):
    found = evaluate(pairs.values(), taxonomy=BREAST, resamples=20)
    asked = []

    def pairs_of(names):
        asked.extend(names)
        return (pairs[name] for name in pairs if name in names)  # in the data set's order, not in that of the names

    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "of-an-earlier-run.png").write_bytes(b"")
    page = write_evaluation(
        found, tmp_path, pairs_of=pairs_of, taxonomy=BREAST, wording=Wording("net on painted", each=1)
    )
    assert sorted(asked) == ["a/1", "b", "c"]
    assert page == tmp_path / "evaluation.html"
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {
        "evaluation.html", "summary.csv", "images.csv", "nucleus_confusion.csv", "region_confusion.csv",
        "calibration.csv", "nucleus_confusion.png", "region_confusion.png", "reliability.png", "images.png", "sheets",
    }  # fmt: skip
    sheets = sorted(path.name for path in (tmp_path / "sheets").iterdir())
    assert sheets == ["best-1-a_1.png", "median-1-c.png", "worst-1-b.png"]
    with Image.open(tmp_path / "sheets" / sheets[0]) as picture:
        assert picture.mode == "RGB"
    text = (tmp_path / "evaluation.html").read_text()
    assert text.index("best 1: a/1") < text.index("median 1: c") < text.index("worst 1: b")
    calibration = pd.read_csv(tmp_path / "calibration.csv").set_index("probability_of")
    assert calibration.loc["detection", "n"] == 32
    assert calibration.loc["detection", "ece"] == pytest.approx(0.2)  # 0.8 was claimed, and all are nuclei


def test_the_worst_images_become_a_cards_known_failures(tmp_path, pairs):
    found = evaluate(pairs.values(), taxonomy=BREAST, resamples=0)
    entries = write_failures(
        found, tmp_path, pairs_of=lambda names: [pairs[n] for n in pairs if n in names], taxonomy=BREAST, count=2
    )
    assert [entry["picture"] for entry in entries] == ["failure-1.jpg", "failure-2.jpg"]
    assert entries[0]["caption"].startswith("painted b: the worst of 5 images by class F1 over all classes")
    assert entries[1]["caption"].startswith("painted d: number 2 from the end")
    with Image.open(tmp_path / "failure-1.jpg") as picture:
        assert max(picture.size) <= 1600
    assert write_failures(pool([]), tmp_path, pairs_of=lambda _: [], taxonomy=BREAST) == []


@pytest.mark.parametrize(("labelled", "kinds"), [(None, [1, 2, 3]), ((3,), [3]), ((), [])])
def test_only_annotated_classes_have_false_alarms(pairs, labelled, kinds):
    truth, _ = pairs["b"]
    _, pred = pairs["a/1"]
    bare = Sample("x", truth.image, 0.5, "x", SOURCE, empty_nuclei(), labelled_nuclei=labelled)
    table = _differences(bare, pred).table
    assert sorted(set(table["found_id"].tolist())) == kinds
    assert set(table["kind"]) <= {"extra"}


def test_points_without_probabilities_have_no_reliability(tmp_path, pairs):
    truth, pred = pairs["c"]
    bare = Prediction(pred.nuclei[["x_px", "y_px", "class_id"]].assign(instance_id=0))
    found = evaluate([(truth, bare)], taxonomy=BREAST, resamples=0)
    write_evaluation(found, tmp_path, pairs_of=lambda _: [(truth, bare)], taxonomy=BREAST, wording=Wording("t"))
    assert not (tmp_path / "reliability.png").exists()
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["best-1-c.png"]


def test_no_images_leave_empty_tables(tmp_path):
    found = evaluate([], taxonomy=BREAST)
    write_evaluation(found, tmp_path, pairs_of=lambda _: [], taxonomy=BREAST, wording=Wording("nothing"))
    assert (tmp_path / "evaluation.html").exists()
    assert list((tmp_path / "sheets").iterdir()) == []


def test_images_are_ranked_by_what_there_is(pairs):
    found = evaluate(pairs.values(), taxonomy=BREAST, resamples=0)
    assert rank_images(found) == (["a/1", "e", "c", "d", "b"], "class F1 over all classes")
    assert rank_images(pool([found])) == rank_images(found)
    truth, pred = pairs["b"]
    regions = [
        Sample(n, truth.image, 0.5, n, SOURCE, empty_nuclei(), region=truth.region, labelled_nuclei=()) for n in "ba"
    ]
    other = Prediction(empty_nuclei(), region=np.where(np.arange(60) < 30, 1, 2)[:, None].repeat(60, 1))
    judged = evaluate([(regions[0], pred), (regions[1], other)], taxonomy=BREAST, resamples=0)
    assert rank_images(judged) == (["b", "a"], "region Dice")


def test_no_image_is_chosen_twice():
    assert choose_images([], each=2) == {}
    assert choose_images(["a"], each=2) == {"a": "best 1"}
    assert choose_images(["a", "b", "c"], each=2) == {"a": "best 1", "b": "best 2", "c": "worst 1"}
    assert choose_images(list("abcdefg"), each=2) == {
        "a": "best 1", "b": "best 2", "c": "median 1", "d": "median 2", "g": "worst 1", "f": "worst 2",
    }  # fmt: skip
    assert choose_images(list("abc"), each=0) == {}
