"""The command `evaluate` at its door, on a data set in miniature and anyone's predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pandas as pd
import pytest
from oracle import tiny_bundle, tiny_net
from typer.testing import CliRunner

from pathopan.classes import BREAST
from pathopan.cli import app
from pathopan.datasets import read_dataset
from pathopan.datasets.derived import derive_missing_regions
from pathopan.errors import ConfigError, DatasetError
from pathopan.evaluation import evaluate_dataset, open_trial, reader_options
from pathopan.network.bundle import save_bundle
from pathopan.segment import Segmenter

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
        open_trial("brca_m2c", data, data / "predicted", only=data / "absent.txt")


def test_a_trial_reads_no_further_than_the_images_asked_for(data):
    trial = open_trial("brca_m2c", data, data / "predicted")
    (data / "labels" / f"{NAMES[2]}_gt_class_coords.txt").write_text("not read\n")
    assert [truth.sample_id for truth, _ in trial.pairs([NAMES[1]])] == [NAMES[1]]
    with pytest.raises(DatasetError, match="expected rows"):
        list(trial.pairs())


def test_names_with_blanks_and_folders_can_be_listed(data, tmp_path, caplog):
    listed = tmp_path / "some.txt"
    listed.write_text(f"{NAMES[0]}\nroi a/{NAMES[1]} [1, 2].png\n\n{NAMES[2]}.png\n")
    done = run("brca_m2c", data, "--predictions", data / "predicted", "--only", listed, "-o", data / "judged")
    assert done.exit_code == 0
    assert pd.read_csv(data / "judged" / "images.csv")["sample_id"].tolist() == [NAMES[0], NAMES[2]]
    assert f"no image of {data} has these names of --only: roi a/{NAMES[1]} [1, 2]" in caplog.text


def test_labels_are_read_in_the_classes_of_the_bundle(data):
    kinds = ("lymphocyte", "tumor", "stromal", "plasma_cell")
    roles = {"lymphocyte": "til", "plasma_cell": "til", "tumor": "tumor", "stromal": "stromal"}
    nuclei = tuple(
        replace(BREAST.nucleus(roles[name]), id=number, name=name) for number, name in enumerate(kinds, start=1)
    )
    bundle = tiny_bundle(taxonomy=replace(BREAST, name="other", nuclei=nuclei), step=64, halo=32)
    save_bundle(data / "bundle", bundle, tiny_net(bundle))
    trial = open_trial("brca_m2c", data, partial(Segmenter, data / "bundle", device="cpu"))
    truth, _ = next(trial.pairs())
    assert truth.nuclei["class_id"].tolist() == [1, 2, 3, 1]


def test_a_network_is_judged_as_it_is_asked_to_run(data):
    bundle = tiny_bundle(step=64, halo=32)
    save_bundle(data / "bundle", bundle, tiny_net(bundle))
    words = ["evaluate", "brca_m2c", str(data), "--bundle", str(data / "bundle"), "--device", "cpu", "--sheets", "0"]
    found = []
    for more in ([], ["--mirrored", "--precision", "float32"]):
        out = data / f"judged{len(found)}"
        said = CliRunner().invoke(app, [*words, *more, "-o", str(out)])
        assert said.exit_code == 0, said.output
        found.append(((out / "images.csv").read_text(), (out / "evaluation.html").read_text()))
    assert f"{bundle.name}, mirrored, float32 on brca_m2c" in found[1][1]
    assert f"{bundle.name} on brca_m2c" in found[0][1]
    assert found[0][0] != found[1][0]
    alone, mirrored = (
        evaluate_dataset("brca_m2c", data, bundle=data / "bundle", device="cpu", mirrored=asked)
        for asked in (False, True)
    )
    assert alone.images.to_csv(index=False) != mirrored.images.to_csv(index=False)
    refused = CliRunner().invoke(app, [*words, "--mirrored", "--precision", "int8"])
    assert isinstance(refused.exception, ConfigError)
    assert "inference.mirrored is not made in int8" in str(refused.exception)


def test_regions_are_not_derived_where_some_nuclei_are_not_labelled(data):
    (sample,) = (s for s in read_dataset("brca_m2c", data) if s.sample_id == NAMES[0])
    assert derive_missing_regions(sample).region_derived
    for changed in (
        replace(sample, labelled_nuclei=(1,)),
        replace(sample, region=np.ones((64, 64), np.uint8)),
        replace(sample, nuclei=sample.nuclei.assign(class_id=0)),
    ):
        assert derive_missing_regions(changed) is changed


def test_a_reader_is_given_its_options_and_refuses_others(data, tmp_path):
    (tmp_path / "own").mkdir()
    cv2.imwrite(str(tmp_path / "own" / "case.png"), np.full((64, 64, 3), 180, np.uint8))
    ring = [[4, 4], [40, 4], [40, 40], [4, 40], [4, 4]]
    nest = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "Nest"}},
    }
    (tmp_path / "own" / "case.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [nest]}))
    options = reader_options(slide_mpp=0.5, class_names=["Nest=tumor"])
    trial = open_trial("qupath", tmp_path / "own", tmp_path, options=options)
    (sample,) = read_dataset(trial.name, trial.root, **trial.options)
    assert set(np.unique(sample.region)) == {0, 1}
    with pytest.raises(DatasetError, match="the reader of brca_m2c has no option names, slide_mpp; it has subset"):
        open_trial("brca_m2c", data, tmp_path, options=options)
    with pytest.raises(DatasetError, match="must read THEIRS=OURS, such as Nest=tumor"):
        reader_options(slide_mpp=None, class_names=["Nest"])
