"""The command `evaluate` at its door, on a data set in miniature and anyone's predictions."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pathopan.cli import app
from pathopan.errors import DatasetError
from pathopan.evaluation import evaluate_dataset, open_trial

NAMES = ("TCGA-A1-A0SK-01_1", "TCGA-A1-A0SK-01_2", "TCGA-B2-B0SK-01_1")
POINTS = [(10, 10, 1), (40, 12, 2), (20, 50, 3), (50, 50, 1)]  # y, x, class of BRCA-M2C
KIND = {1: "til", 2: "tumor", 3: "stromal"}


@pytest.fixture
def data(tmp_path):
    """Three images; all four nuclei of the first are predicted, three of the second, two of the third."""
    for folder in ("images", "labels", "predicted/points"):
        (tmp_path / folder).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(100, 220, (64, 64, 3), dtype=np.uint8)
    for lost, name in enumerate(NAMES):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), pixels)
        text = "".join(f"{y} {x} {kind}\n" for y, x, kind in POINTS)
        (tmp_path / "labels" / f"{name}_gt_class_coords.txt").write_text(text)
        rows = [(x + 0.5, y + 0.5, KIND[kind]) for y, x, kind in POINTS[lost:]]
        table = pd.DataFrame(rows, columns=["x_px", "y_px", "class"])
        table.to_csv(tmp_path / "predicted" / "points" / f"{name}.csv", index=False)
    return tmp_path


def run(*words):
    return CliRunner().invoke(app, ["evaluate", *map(str, words)], catch_exceptions=False)


def test_evaluate_prints_figures_and_leaves_a_page(data):
    done = run("brca_m2c", data, "--predictions", data / "predicted", "-o", data / "judged", "--sheets", 1)
    assert done.exit_code == 0
    assert done.stdout.strip().endswith(f"look at: {data / 'judged' / 'evaluation.html'}")
    summary = pd.read_csv(data / "judged" / "summary.csv").set_index(["metric", "class"])
    assert summary.loc[("detection_f1", "all"), "value"] == pytest.approx(2 * 9 / (9 + 12))
    assert summary.loc[("detection_f1", "all"), "n_patients"] == 2
    sheets = sorted(path.name for path in (data / "judged" / "sheets").iterdir())
    assert sheets == [f"best-1-{NAMES[0]}.png", f"median-1-{NAMES[1]}.png", f"worst-1-{NAMES[2]}.png"]
    assert f"{data / 'predicted'} on brca_m2c" in (data / "judged" / "evaluation.html").read_text()


def test_only_the_listed_images_are_judged(data):
    (data / "val.txt").write_text(f"{NAMES[2]}.png\n")
    done = run("brca_m2c", data, "--predictions", data / "predicted", "--only", data / "val.txt", "-o", data / "judged")
    assert done.exit_code == 0
    assert pd.read_csv(data / "judged" / "images.csv")["sample_id"].tolist() == [NAMES[2]]
    (data / "val.txt").write_text("nothing.png\n")
    with pytest.raises(DatasetError, match=r"no images of brca_m2c to evaluate, after the list of --only"):
        evaluate_dataset("brca_m2c", data, bundle="x", predictions=data / "predicted", only=data / "val.txt")
    with pytest.raises(DatasetError, match=r"absent\.txt: cannot be read as a list of images"):
        open_trial("brca_m2c", data, bundle="x", predictions=data / "predicted", only=data / "absent.txt")


def test_a_trial_reads_no_further_than_the_images_asked_for(data):
    trial = open_trial("brca_m2c", data, bundle="x", predictions=data / "predicted")
    (data / "labels" / f"{NAMES[2]}_gt_class_coords.txt").write_text("not read\n")
    assert [truth.sample_id for truth, _ in trial.pairs([NAMES[1]])] == [NAMES[1]]
    with pytest.raises(DatasetError, match="expected rows"):
        list(trial.pairs())
