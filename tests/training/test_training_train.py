import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
import torch
from oracle import tiny_bundle, tiny_net
from safetensors.torch import save_file
from training_samples import RECIPE, sample

from pathopan.classes import BREAST
from pathopan.errors import ConfigError
from pathopan.network.bundle import load_bundle, read_bundle
from pathopan.network.model import PanopticNet
from pathopan.network.targets import DecodeRules
from pathopan.training import finish
from pathopan.training import train as room
from pathopan.training.batches import CropStream
from pathopan.training.finish import measure, set_threshold, write_bundle
from pathopan.training.optimiser import OPTIMISERS
from pathopan.training.recipe import DEFAULT_RECIPE, Recipe, read_recipe, read_samples
from pathopan.training.train import describe, learning_rate, nucleus_weights, train, training_effort

SAMPLES = [sample(number) for number in range(3)]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "curve.csv").open(newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def run(folder: Path, recipe: Recipe = RECIPE, samples=SAMPLES, **more):
    return train(recipe, samples, folder, device="cpu", workers=0, **more)


def test_crops_are_as_dense_as_the_recipe_says():
    plain = replace(RECIPE, artefact_share=0.0, stain_strength=0.0)
    mean = {}
    for density in ([1.0, 1.0], [0.5, 0.5], [1.6, 1.6]):
        recipe = replace(plain, density=density)
        _, batch = next(room._batches(recipe, SAMPLES, BREAST, span=range(1), workers=0))
        mean[density[0]] = float(batch.image_B3HW.mean())
    assert mean[0.5] > mean[1.0] > mean[1.6]


BATCH = CropStream.batch


def stop_at(step: int):
    """Kill the run when it asks for a batch."""

    def killed(self: CropStream, index: int):
        if index == step:
            raise KeyboardInterrupt
        return BATCH(self, index)

    return killed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder)


def test_a_run_leaves_a_curve_and_a_checkpoint(whole):
    folder, bundle, net = whole
    rows = curve(folder)
    assert [row["step"] for row in rows] == list(range(8))
    assert list(rows[0]) == ["step", "loss", "centre", "foreground", "offset", "nucleus", "free_nucleus", "region"]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert (folder / "checkpoint.safetensors").is_file()
    assert (bundle.name, bundle.step, bundle.halo, bundle.mpp) == ("tiny", 64, 32, 0.5)
    assert not net.training


@pytest.mark.parametrize("stopped", [2, 5, 7])
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(whole, tmp_path, monkeypatch, stopped):
    monkeypatch.setattr(room, "CHECKPOINT_EVERY", 3)
    with monkeypatch.context() as patch:
        patch.setattr(CropStream, "batch", stop_at(stopped))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert len(curve(tmp_path)) == stopped
    _, net = run(tmp_path)
    assert curve(tmp_path) == curve(whole[0])
    for first, second in zip(net.state_dict().values(), whole[2].state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("fast", ["bfloat16", "float32"])
def test_it_computes_in_the_precision_that_is_fast_here(tmp_path, monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast == "bfloat16")
    seen = []
    forward = PanopticNet.forward_unconstrained

    def watched(self: PanopticNet, image: torch.Tensor):
        seen.append("bfloat16" if torch.is_autocast_enabled("cpu") else "float32")
        return forward(self, image)

    monkeypatch.setattr(PanopticNet, "forward_unconstrained", watched)
    run(tmp_path, replace(RECIPE, steps=1))
    assert seen == [fast]
    assert training_effort(tmp_path).precision == fast


def test_a_run_that_moves_to_a_machine_of_another_precision_says_so(tmp_path, monkeypatch, caplog):
    for steps, fast, trained in [
        (1, True, "bfloat16"),
        (2, False, "bfloat16 and float32"),
        (3, True, "bfloat16 and float32"),
    ]:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        monkeypatch.setattr(room, "CHECKPOINT_EVERY", 1)
        monkeypatch.setattr(CropStream, "batch", stop_at(steps))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
        assert training_effort(tmp_path).precision == trained
    assert "trained in bfloat16 so far and goes on in float32" in caplog.text


def test_a_run_from_before_precision_was_noted_was_in_bfloat16(tmp_path):
    save_file({"net.weight": torch.zeros(1)}, tmp_path / "checkpoint.safetensors", metadata={"minutes": "1.50"})
    assert training_effort(tmp_path) == (1.5, "bfloat16")


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_stochastic_depth_and_momentum_are_of_the_step_and_not_of_the_start(tmp_path, monkeypatch, optimiser):
    arguments = {**RECIPE.arguments, "encoder": "efficientnet-b0"}
    recipe = replace(RECIPE, steps=3, arguments=arguments, optimiser=optimiser)
    run(tmp_path / "whole", recipe)
    monkeypatch.setattr(room, "CHECKPOINT_EVERY", 1)
    with monkeypatch.context() as patch:
        patch.setattr(CropStream, "batch", stop_at(2))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", recipe)
    run(tmp_path / "killed", recipe)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")


def test_a_run_that_is_begun_anew_makes_its_own_outlines(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "CHECKPOINT_EVERY", 1)
    recipe = replace(RECIPE, steps=200, outline_step=100)
    made, outlined = [], room.outline_points

    def noted(samples, *args, path, **more):
        made.append(path.exists())
        return outlined(samples, *args, path=path, **more)

    monkeypatch.setattr(room, "outline_points", noted)
    for _ in range(2):
        monkeypatch.setattr(CropStream, "batch", stop_at(101))
        monkeypatch.setattr(room, "_step", lambda *_args, **_kwargs: {"loss": 0.0})
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, recipe, [sample(0, points_only=True)])
        (tmp_path / "checkpoint.safetensors").unlink()
    assert made == [False, False]


def test_a_finished_run_is_not_run_again(whole, monkeypatch):
    monkeypatch.setattr(CropStream, "batch", stop_at(8))
    _, net = run(whole[0])
    for first, second in zip(net.state_dict().values(), whole[2].state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_another_recipe_does_not_go_on(whole):
    with pytest.raises(ConfigError, match="holds a run of another recipe; choose another folder, or delete"):
        run(whole[0], replace(RECIPE, learning_rate=1e-4))


def test_a_curve_without_a_checkpoint_is_begun_anew(whole, tmp_path):
    (tmp_path / "curve.csv").write_text("step,loss\n0,9\n1,9\n")
    run(tmp_path, replace(RECIPE, steps=1))
    assert len(curve(tmp_path)) == 1


def test_a_lost_curve_does_not_stop_a_run(tmp_path):
    run(tmp_path, replace(RECIPE, steps=2))
    (tmp_path / "curve.csv").unlink()
    run(tmp_path, replace(RECIPE, steps=2))


def test_another_seed_is_another_run(whole, tmp_path):
    run(tmp_path, replace(RECIPE, seed=1, steps=1))
    assert curve(tmp_path)[0]["loss"] != curve(whole[0])[0]["loss"]


def test_groups_that_are_held_out_are_never_drawn(tmp_path, monkeypatch):
    seen = set()
    batch = CropStream.batch

    def watched(self: CropStream, index: int):
        seen.update(s.group for pool in self.pools.values() for s in pool)
        return batch(self, index)

    monkeypatch.setattr(CropStream, "batch", watched)
    samples = [sample(0, group="kept"), sample(1, group="held"), sample(2, group="held", source="B")]
    run(tmp_path, replace(RECIPE, steps=1, hold_out=["held"], shares={"A": 0.5, "B": 0.5}), samples)
    assert seen == {"kept"}


def test_a_recipe_that_leaves_nothing_to_learn_from(tmp_path):
    with pytest.raises(ConfigError, match=r"no sample is left to train on: the recipe draws from \['A'\]"):
        run(tmp_path, replace(RECIPE, hold_out=["held"]), [sample(0, group="held"), sample(1, source="B")])


def test_fine_tuning_starts_from_the_network_given(tmp_path):
    given = tiny_net(seed=3)
    kept = {key: value.clone() for key, value in given.state_dict().items()}
    _, net = run(tmp_path, replace(RECIPE, steps=1, learning_rate=1e-12, ema_decay=0.0), start_from=given)
    torch.testing.assert_close(net.region_head.weight, kept["region_head.weight"])


def test_the_learning_rate_rises_over_a_tenth_and_falls_along_a_cosine():
    recipe = replace(RECIPE, steps=1000, learning_rate=1.0)
    rates = np.array([learning_rate(step, recipe) for step in range(1001)])
    assert rates[0] == pytest.approx(0.05)
    assert rates.argmax() == 100
    assert rates[100] == pytest.approx(1.0)
    assert (np.diff(rates[:101]) > 0).all()
    assert (np.diff(rates[100:]) < 0).all()
    assert rates[550] == pytest.approx(0.505)
    assert rates[1000] == pytest.approx(0.01)


def test_rare_nuclei_weigh_more_and_no_class_is_forgotten():
    weights = nucleus_weights(SAMPLES, BREAST)
    assert weights.mean() == pytest.approx(1)
    by_name = dict(zip([kind.name for kind in BREAST.nuclei], weights.tolist(), strict=True))
    assert by_name["stromal"] > by_name["tumor"]
    assert max(weights) <= 10 * min(weights) + 1e-5


def test_the_description_says_what_the_batches_do():
    bundle = describe(RECIPE, BREAST)
    assert (bundle.mean, bundle.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert bundle.decode == RECIPE.decode


def test_the_packaged_recipe_can_be_read():
    recipe = read_recipe(DEFAULT_RECIPE)
    assert recipe.name == DEFAULT_RECIPE
    assert recipe.hold_out or recipe.fold_steps  # figures come from patients that were held out, or from folds


def test_a_recipe_that_is_no_text(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a readable recipe"):
        read_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nstepz: 3\n", r"unknown keys \['stepz'\]; known: \["),
        ("name: x\nlosses: {center: 1}\n", "(?s)not a readable recipe.*center"),
        ("steps: 3\n", "(?s)not a readable recipe.*name"),
        ("a: [", "not a readable recipe"),
        ("", "not a readable recipe"),
        ("- 1\n- 2\n", "unknown keys|not a readable recipe"),
        ("name: x\nsets: {quPath: mine}\n", r"no reader for data sets \['quPath'\]; known: bcss"),
        ("name: x\nsets: {qupath: {names: {}}}\n", "sets: qupath must be a folder, or a folder and options"),
    ],
)
def test_a_recipe_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_recipe(path)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="not a readable recipe"):
        read_recipe(tmp_path / "nothing.yaml")


def test_own_annotations_are_a_data_set_like_any_other(tmp_path):
    square = shapely.box(0, 0, 40, 40)
    nuclei = [shapely.Point(x, y).buffer(4) for x in (10, 30) for y in (10, 30)]
    objects = [("annotation", "Nest", square), *(("detection", "Tumor", shape) for shape in nuclei)]
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shape),
            "properties": {"objectType": kind, "classification": {"name": name}},
        }
        for kind, name, shape in objects
    ]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "S.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    cv2.imwrite(str(tmp_path / "own" / "S.png"), np.full((64, 64, 3), 180, np.uint8))
    text = "sets: {qupath: {folder: own, slide_mpp: 0.5, names: {Nest: tumor, Tumor: tumor}}}\nshares: {QuPath: 1}\n"
    (tmp_path / "mine.yaml").write_text("name: mine\n" + text)
    recipe = read_recipe(tmp_path / "mine.yaml")
    (found,) = read_samples(tmp_path, recipe)
    assert (found.source.name, len(found.nuclei), set(np.unique(found.region))) == ("QuPath", 4, {0, 1})
    assert recipe.to_dict()["sets"]["qupath"]["folder"] == "own"
    assert "sets" not in Recipe("usual").to_dict()
    with pytest.raises(ConfigError, match=r"holds out P-7, and .* has no image of them"):
        read_samples(tmp_path, replace(recipe, hold_out=["P-7"]))


def test_the_recipe_for_own_annotations_fits_the_bundle_that_it_starts_from():
    recipe = read_recipe("finetune-qupath")
    assert recipe.start_from == DEFAULT_RECIPE
    bundle, wanted = read_bundle(recipe.start_from), describe(recipe, BREAST)
    assert (bundle.arguments, bundle.step, bundle.halo) == (wanted.arguments, wanted.step, wanted.halo)


def test_one_s_own_recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nsteps: 7\nlosses: {region: 0.1}\ndecode: {min_centre: 0.2}\n")
    recipe = read_recipe(path)
    assert (recipe.steps, recipe.losses.region, recipe.decode.min_centre) == (7, 0.1, 0.2)
    assert json.loads(json.dumps(recipe.to_dict()))["name"] == "mine"


def test_the_threshold_is_chosen_on_what_was_given(monkeypatch):
    monkeypatch.setattr(finish, "THRESHOLDS", (0.1, 0.2))
    bundle = tiny_bundle(decode=DecodeRules(min_centre=0.9))
    chosen = set_threshold(tiny_net(bundle), bundle, SAMPLES[:1])
    assert chosen.decode.min_centre in (0.1, 0.2)
    assert replace(chosen, decode=bundle.decode) == bundle


@pytest.mark.slow
def test_it_overfits_a_handful_of_tiles_and_the_bundle_knows(tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "THRESHOLDS", (0.2, 0.3))
    samples = [sample(number) for number in range(4)]
    recipe = replace(
        RECIPE, steps=140, batch_size=4, learning_rate=4e-3, artefact_share=0.0, ema_decay=0.95, stain_strength=0.0
    )
    bundle, net = run(tmp_path, recipe, samples)
    rows = curve(tmp_path)
    assert np.mean([row["loss"] for row in rows[-10:]]) < 0.35 * rows[0]["loss"]
    found = measure(net, bundle, samples)
    assert found.value("detection_f1") > 0.9
    held = [sample(9, group="held")]
    aside = replace(recipe, hold_out=["held"])
    saved = write_bundle(tmp_path / "bundle", aside, samples + held, bundle=bundle, net=net, minutes=1)
    assert load_bundle(tmp_path / "bundle")[0] == saved
    assert saved.card["held_out"]["images"] == 1
    assert saved.card["held_out"]["quality"]["detection_f1 all"]["value"] > 0.8
    assert [entry["images"] for entry in saved.card["data"]] == [4]
