"""The model card: everything a bundle says of itself, nothing that it does not say."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from pathopan.classes import BREAST
from pathopan.datasets.sample import Sample, Source
from pathopan.errors import BundleError, UnknownBundle
from pathopan.metrics import Prediction, evaluate
from pathopan.metrics.calibrate import calibrate_folds
from pathopan.network.bundle import list_bundles
from pathopan.training.card import calibration_entry, folds_entry, write_model_card


@pytest.fixture
def write_card(tmp_path):
    """Write the card of a bundle whose ``card`` is given, and read it."""
    source = list_bundles()["breast-he-1"]

    def write(card, name="bundle"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        stored = json.loads((source / "bundle.json").read_text())
        (folder / "bundle.json").write_text(json.dumps({**stored, "card": card}))
        return write_model_card(folder).read_text()

    return write


def row(text, start):
    return next(line for line in text.splitlines() if line.startswith(f"| {start} "))


def test_the_bundle_that_ships_has_a_card(tmp_path):
    shutil.copy(list_bundles()["breast-he-1"] / "bundle.json", tmp_path)
    text = write_model_card(tmp_path).read_text()
    assert text.startswith("# breast-he-1\n")
    for heading in ("Network", "Intended use", "Limits", "Data", "Quality", "Calibration", "Speed", "Training"):
        assert f"\n## {heading}\n" in text
    assert "BSD-3-Clause" in row(text, "BRCA-M2C")


def test_an_empty_card_says_what_is_not_known(write_card):
    text = write_card({})
    assert "## Data\n\nNot stated." in text
    assert "## Quality\n\nNot measured." in text
    assert "## Calibration\n\nNot measured." in text
    assert "## Speed\n\nNot measured." in text
    assert "Training" not in text
    assert "## Known failures" not in text


def test_every_part_of_the_schema_is_shown(write_card, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "flake.jpg").write_bytes(b"a picture")
    nothing = {"value": None, "low": None, "high": None}
    quality = {"detection_f1 all": {"value": 0.871234, "low": 0.85, "high": 0.89}, "pq all": nothing}
    text = write_card(
        {
            "data": [{"name": "A|B", "licence": "CC0", "nuclei": 12}],
            "encoder_weights": "ImageNet",
            "folds": [
                {
                    "dataset": "BRCA-M2C",
                    "protocol": "5 folds by patient.",
                    "images": 90,
                    "patients": 80,
                    "quality": quality,
                    "by_fold": [{"fold": 0, "quality": {"detection_f1 all": 0.86}}],
                }
            ],
            "calibration": {
                "temperature": 1.31,
                "slope": 0.9,
                "intercept": 0.1,
                "folds": [{"fold": "0", "ece_before": 0.08, "ece_after": 0.02}],
                "picture": "absent.png",
            },
            "thresholds": "set on training images",
            "speed": {"machine": "2 cores", "ms_per_tile": 43.1},
            "tradeoff": [{"encoder": "lite0", "ms": 43.0}, {"encoder": "b3", "tta": True}],
            "ablations": [{"what": "without compatibility", "class_f1 mean": 0.69}],
            "tried": ["longer training", {"what": "focal loss", "result": "no gain", "class_f1 mean": 0.7}],
            "failures": [
                {"picture": "flake.jpg", "caption": "A flake of keratin"},
                {"picture": "lost.jpg", "caption": "A pale nucleus"},
            ],
            "recipe": {"steps": 2000, "learning_rate": 0.0015},
            "command": "pathopan train x",
            "commit": "abc",
            "cost": "70 min on one core",
            "limits": ["two organs"],
        }
    )
    assert row(text, "A\\|B") == "| A\\|B | CC0 | 12 |"
    assert row(text, "detection_f1 all") == "| detection_f1 all | 0.871 (0.850 to 0.890) | 0.855 | 0.86 |"
    assert row(text, "pq all") == "| pq all | - | - | - |"
    assert "5 folds by patient. 90 images, 80 patients." in text
    assert "MCSpatNet" in text
    assert "temperature 1.31 of the class probabilities, slope 0.9 and intercept 0.1" in text
    assert row(text, "0") == "| 0 | 0.08 | 0.02 |"
    assert row(text, "b3") == "| b3 | - | True |"
    assert row(text, "without compatibility") == "| without compatibility | 0.69 |"
    assert "- longer training\n- focal loss: no gain: class_f1 mean 0.7\n" in text
    assert "![A flake of keratin](flake.jpg)" in text
    assert "lost.jpg" not in text
    assert "absent.png" not in text
    assert "A pale nucleus" in text
    assert row(text, "command") == "| command | `pathopan train x` |"
    assert row(text, "learning_rate") == "| learning_rate | 0.0015 |"
    assert "- two organs" in text
    assert "Thresholds: set on training images." in text


def test_one_cross_validation_may_stand_alone(write_card):
    quality = {"class_f1 til": {"value": 0.7, "low": 0.6, "high": 0.8}}
    text = write_card({"folds": {"protocol": "leave one out", "quality": quality}})
    assert "### cross-validation\n\nleave one out.\n" in text
    assert "published" not in text


@pytest.mark.parametrize("card", [{"folds": "good"}, {"speed": ["fast"]}, {"failures": [{"picture": "x.png"}]}])
def test_a_malformed_card_is_a_bundle_error(write_card, card):
    with pytest.raises(BundleError, match=r"does not follow the schema of pathopan\.training\.card"):
        write_card(card)
    with pytest.raises(UnknownBundle):
        write_model_card("nowhere")


def fold(index):
    rng = np.random.default_rng(index)
    table = pd.DataFrame(rng.uniform(5, 95, (12, 2)), columns=["x_px", "y_px"])
    table = table.assign(class_id=np.arange(12) % 3 + 1, instance_id=0)
    probs = {f"prob_{kind.name}": np.where(table["class_id"] == kind.id, 0.7, 0.1) for kind in BREAST.nuclei}
    image = np.zeros((100, 100, 3), np.uint8)
    source = Source("BRCA-M2C", "BSD-3-Clause", "nobody", "breast")
    truth = Sample(f"s{index}", image, mpp=0.5, group=f"P{index}", source=source, nuclei=table)
    return evaluate([(truth, Prediction(table.assign(prob=0.9, **probs).iloc[2:]))], taxonomy=BREAST, resamples=0)


def test_results_of_folds_become_entries_that_json_can_hold(write_card):
    folds = [fold(index) for index in range(3)]
    entry = folds_entry("BRCA-M2C", folds, protocol="3 folds by patient")
    assert (entry["images"], entry["patients"]) == (3, 3)
    assert entry["quality"]["detection_f1 all"]["value"] == pytest.approx(20 / 22, abs=1e-4)
    assert [part["quality"]["detection_f1 all"] for part in entry["by_fold"]] == [0.9091] * 3
    calibration = calibration_entry(calibrate_folds(folds, BREAST), picture="curves.png")
    assert calibration["temperature"] < 1  # always right, and claimed 0.7 only
    stored = json.loads(json.dumps({"folds": entry, "calibration": calibration}, allow_nan=False))
    text = write_card(stored)
    assert row(text, "detection_f1 all").startswith("| detection_f1 all | 0.909 (")
    assert row(text, "all").startswith("| all | 30 | 30 |")


@pytest.mark.parametrize("name", sorted(list_bundles()))
def test_the_card_of_a_bundle_that_ships_is_what_its_description_says(name, tmp_path):
    shipped = list_bundles()[name]
    copied = shutil.copytree(shipped, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors", "*.md"))
    assert write_model_card(copied).read_text() == (shipped / "MODEL_CARD.md").read_text(), (
        "renew it: python -c \"from pathopan.training.card import write_model_card; write_model_card('NAME')\""
    )
