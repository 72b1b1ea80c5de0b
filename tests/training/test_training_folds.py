import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from training_samples import RECIPE as TINY_RECIPE
from training_samples import sample

from pathopan.errors import ConfigError, IncompatibleBundle
from pathopan.metrics import EvaluationResult
from pathopan.network.bundle import load_bundle
from pathopan.network.precision import fast_precision
from pathopan.training import folds as room
from pathopan.training import run
from pathopan.training.finish import best_threshold, check_report, write_bundle
from pathopan.training.folds import fold_groups, fold_recipe, read_report, report_folds, train_fold
from pathopan.training.recipe import read_notes, read_recipe

RECIPE = replace(TINY_RECIPE, steps=3, shares={"A": 0.5, "B": 0.5}, folds=2, fold_sources=["A", "B"])
SAMPLES = [sample(number, source=source, group=f"{source}{number}") for source in "AB" for number in range(3)]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for fold in range(2):
        train_fold(RECIPE, SAMPLES, folder, fold, device="cpu", workers=0)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def report(out):
    return report_folds(RECIPE, SAMPLES, out)


def test_every_patient_of_every_reported_source_is_held_out_once():
    held = [fold_groups(RECIPE, SAMPLES, fold) for fold in range(2)]
    assert sorted(held[0] + held[1]) == sorted(s.group for s in SAMPLES)
    assert all(any(group.startswith(source) for group in fold) for fold in held for source in "AB")


def test_a_source_that_is_not_reported_is_never_held_out():
    held = [fold_groups(replace(RECIPE, fold_sources=["A"]), SAMPLES, fold) for fold in range(2)]
    assert sorted(held[0] + held[1]) == ["A0", "A1", "A2"]


def test_a_fold_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="has folds 0 to 1; fold 2 was asked for"):
        fold_groups(RECIPE, SAMPLES, 2)
    with pytest.raises(ConfigError, match="reports C, of which there is no image"):
        fold_groups(replace(RECIPE, fold_sources=["C"]), SAMPLES, 0)


def test_a_fold_is_trained_without_what_it_holds_out(out):
    for fold in range(2):
        bundle, _ = load_bundle(out / f"fold-{fold}" / "bundle")
        assert bundle.card["recipe"]["hold_out"] == fold_groups(RECIPE, SAMPLES, fold)


def test_a_complete_fold_is_left_alone(out, monkeypatch):
    monkeypatch.setattr(room, "train", None)
    train_fold(RECIPE, SAMPLES, out, 0)


def test_the_report_judges_every_image_once_and_says_how(report, out):
    assert {part["dataset"]: part["images"] for part in report["folds"]} == {"A": 3, "B": 3}
    assert [part["images"] for part in report["folds"][0]["by_fold"]] in ([1, 2], [2, 1])
    assert "come from the A images of the other folds" in report["folds"][0]["protocol"]
    assert {row["what"] for row in report["ablations"]} == {
        "as it ships",
        "without region-nucleus compatibility",
        "with four flips, at four times the cost",
    }
    assert (out / report["calibration"]["picture"]).stat().st_size > 5_000
    assert read_report(out) == json.loads(json.dumps(report))
    assert len(pd.read_csv(out / "A" / "images.csv")) == 3


def test_a_report_of_another_recipe_is_refused(out):
    with pytest.raises(ConfigError, match="was trained by another recipe"):
        report_folds(replace(RECIPE, learning_rate=1e-5), SAMPLES, out)


def test_folds_of_a_network_that_goes_on_from_another_start_anew_and_say_so(out, tmp_path):
    shutil.copytree(out, tmp_path / "folds")
    going_on = report_folds(replace(RECIPE, start_from="breast-he-1"), SAMPLES, tmp_path / "folds")
    assert "from the encoder's weights and never from another network's" in going_on["folds"][0]["protocol"]
    check_report(replace(RECIPE, start_from="runs/mine/bundle"), going_on)
    with pytest.raises(ConfigError, match="is of another recipe"):
        check_report(replace(RECIPE, start_from="breast-he-1", seed=5), going_on)


def test_a_report_needs_all_folds(tmp_path):
    with pytest.raises(ConfigError, match="fold 0 was not trained yet"):
        report_folds(RECIPE, SAMPLES, tmp_path)
    with pytest.raises(ConfigError, match="run `pathopan crossvalidate` first"):
        read_report(tmp_path)


def test_the_bundle_takes_threshold_calibration_and_figures_from_the_folds(report, out, tmp_path):
    draft, net = load_bundle(out / "fold-0" / "bundle")
    saved = write_bundle(tmp_path / "bundle", RECIPE, SAMPLES, bundle=draft, net=net, minutes=1, report=report)
    assert saved.decode.min_centre == report["decode"]["min_centre"]
    assert saved.decode.class_temperature == report["decode"]["class_temperature"]
    assert saved.card["folds"] == report["folds"]
    assert (tmp_path / "bundle" / "MODEL_CARD.md").is_file()
    with pytest.raises(ConfigError, match="is of another recipe"):
        write_bundle(
            tmp_path / "other", replace(RECIPE, seed=5), SAMPLES, bundle=draft, net=net, minutes=1, report=report
        )


@pytest.fixture
def recipe_file(tmp_path):
    """The recipe as a user's file, with notes for its card."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(RECIPE.to_dict()))
    notes = tmp_path / "mine.card"
    notes.mkdir()
    (notes / "skin.png").write_bytes(b"a picture")
    (notes / "card.yaml").write_text("tried: [larger tiles]\nfailures: [{picture: skin.png, caption: Skin is tumor}]\n")
    return path


def test_a_bundle_is_made_whole_by_one_call(report, out, recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "read_samples", lambda _data, _recipe: SAMPLES)
    for _ in range(2):  # the second has nothing left to train
        saved = run.train_bundle(str(recipe_file), tmp_path, tmp_path / "out", device="cpu", workers=0, folds=out)
    folder = tmp_path / "out" / "bundle"
    assert saved.card["tried"] == ["larger tiles"]
    assert (folder / "calibration.png").read_bytes() == (out / "calibration.png").read_bytes()
    card = (folder / "MODEL_CARD.md").read_text()
    precision = f"| precision | {fast_precision('cpu')} |"
    for shown in ("](calibration.png)", "](skin.png)", "- larger tiles", precision):
        assert shown in card


def test_a_recipe_goes_on_from_a_bundle_and_says_so(report, out, recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "read_samples", lambda _data, _recipe: SAMPLES)
    first = run.train_bundle(str(recipe_file), tmp_path, tmp_path / "first", device="cpu", workers=0, folds=out)
    before = str(tmp_path / "first" / "bundle")
    tuned = tmp_path / "tuned.yaml"
    tuned.write_text(yaml.safe_dump(RECIPE.to_dict() | {"steps": 1, "learning_rate": 1e-9, "start_from": before}))
    second = run.train_bundle(str(tuned), tmp_path, tmp_path / "second", device="cpu", workers=0)
    assert second.card["started_from"] == {"name": first.name, "sha256": first.sha256}
    assert second.decode == first.decode
    assert second.card["folds"][0]["quality"] == first.card["folds"][0]["quality"]
    assert second.card["folds"][0]["protocol"].startswith(f"Of {first.name}, which this network was fine-tuned from: ")
    card = (tmp_path / "second" / "bundle" / "MODEL_CARD.md").read_text()
    for shown in (f"| figure | {first.name} |", f"went on from the weights of {first.name}", "](calibration.png)"):
        assert shown in card
    here, there = (load_bundle(tmp_path / name / "bundle")[1].state_dict() for name in ("first", "second"))
    head = "shape_head.conv.weight"
    assert torch.allclose(here[head].float(), there[head].float(), atol=1e-5)
    assert fold_recipe(read_recipe(tuned), SAMPLES, 0).start_from is None


def test_a_network_that_goes_on_is_blended_with_what_it_was(out, recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "read_samples", lambda _data, _recipe: SAMPLES)
    before = str(out / "fold-0" / "bundle")
    found = {}
    for share in (0.0, 0.25):
        told = RECIPE.to_dict() | {"steps": 2, "learning_rate": 0.05, "start_from": before, "start_share": share}
        recipe_file.write_text(yaml.safe_dump(told))
        folder = tmp_path / "out"
        for _ in range(2):  # all but the first have nothing left to train, and blend what was trained
            run.train_bundle(str(recipe_file), tmp_path, folder, device="cpu", workers=0)
        found[share] = load_bundle(folder / "bundle")[1].state_dict()
    assert "; 25% of each weight that ships is still theirs." in (folder / "bundle" / "MODEL_CARD.md").read_text()
    assert fold_recipe(read_recipe(recipe_file), SAMPLES, 0).start_share == 0
    old, moved = load_bundle(before)[1].state_dict(), 0.0
    for key, value in found[0.25].items():
        if value.is_floating_point():
            expected = 0.75 * found[0.0][key] + 0.25 * old[key]
            assert torch.allclose(value, expected, rtol=0.01, atol=2e-3)  # weights are stored in 16 bits
            moved = max(moved, float((found[0.0][key] - old[key]).abs().max()))
    assert moved > 0.02


@pytest.mark.parametrize("more", [{"start_share": 0.5}, {"start_share": 1.0, "start_from": "breast-he-1"}])
def test_a_share_of_no_network_or_of_nothing_else_is_refused(more):
    with pytest.raises(ConfigError, match="must be 0 to below 1, and needs a start_from"):
        replace(RECIPE, **more)


def test_the_option_is_part_of_the_recipe_that_the_card_tells(out, recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "read_samples", lambda _data, _recipe: SAMPLES)
    given = str(out / "fold-0" / "bundle")
    saved = run.train_bundle(str(recipe_file), tmp_path, tmp_path / "out", device="cpu", workers=0, start_from=given)
    assert saved.card["recipe"]["start_from"] == given


def test_a_bundle_of_another_shape_is_no_start(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "read_samples", lambda _data, _recipe: SAMPLES)
    with pytest.raises(IncompatibleBundle, match=r"cannot start from bundle 'breast-he-1': its arguments"):
        run.train_bundle(str(recipe_file), tmp_path, tmp_path / "out", start_from="breast-he-1")


@pytest.mark.parametrize(
    ("text", "named"),
    [("triumphs: []", "triumphs"), ("failures: [{picture: gone.png}]", "gone.png"), ("[", "not readable")],
)
def test_notes_that_cannot_be_used_are_refused(text, named, recipe_file):
    (recipe_file.with_suffix(".card") / "card.yaml").write_text(text)
    with pytest.raises(ConfigError, match=named):
        read_notes(recipe_file)


def test_patients_that_measure_the_bundle_choose_nothing_of_it(out, monkeypatch):
    asked = []
    monkeypatch.setattr(room, "best_threshold", lambda found: asked.append(found) or 0.3)
    first = SAMPLES[0].group
    report_folds(replace(RECIPE, hold_out=[first]), SAMPLES, out)
    groups = [set().union(*(part.parts["group"] for part in found)) for found in asked]
    assert any(first in group for group in groups[:-1])
    assert first not in groups[-1]


def test_folds_may_be_shorter(out):
    short = replace(RECIPE, fold_steps=RECIPE.steps, steps=RECIPE.steps + 100)
    assert fold_recipe(short, SAMPLES, 0).steps == RECIPE.steps
    report = report_folds(short, SAMPLES, out)
    assert f"{RECIPE.steps} of {RECIPE.steps + 100} steps" in report["folds"][0]["protocol"]
    assert short.learns_as(report["recipe"])


def judged(heights: list[float], matched: list[bool], truths: int) -> EvaluationResult:
    nuclei = pd.DataFrame({"prob": heights, "matched": matched})
    parts = pd.DataFrame(
        [{"metric": "detection_recall", "class": "all", "above": sum(matched), "below": truths}],
    )
    nothing = pd.DataFrame()
    return EvaluationResult(nothing, nothing, nothing, nothing, parts, nuclei)


def test_the_threshold_keeps_what_is_mostly_right():
    """Above 0.3 all are right, below it one in five: 2 x 20 / (20 + 24) beats 2 x 24 / (40 + 24)."""
    heights = [0.5] * 20 + [0.15] * 20
    matched = [True] * 20 + [True] * 4 + [False] * 16
    assert 0.15 < best_threshold([judged(heights, matched, 24)]) <= 0.5
    assert best_threshold([judged(heights, [True] * 40, 40)]) <= 0.14
    assert best_threshold([judged(heights[:20], matched[:20], 24), judged(heights[20:], [True] * 20, 20)]) <= 0.14
    assert np.isfinite(best_threshold([judged([], [], 3)]))
