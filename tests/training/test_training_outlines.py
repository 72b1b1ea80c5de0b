from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from training_samples import RECIPE, sample

from pathopan.classes import BREAST
from pathopan.errors import ConfigError
from pathopan.network.model import PanopticLogits
from pathopan.network.targets import encode
from pathopan.training import recipe as recipe_room
from pathopan.training import train as train_room
from pathopan.training.batches import CropStream
from pathopan.training.outlines import outline_points
from pathopan.training.train import describe, train

POINTED = [sample(number, points_only=True) for number in range(2)]


class KnowingNet(torch.nn.Module):
    """Answers with the truth of one image, wherever the image's border was continued."""

    def __init__(self, truth, *, border: int) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        shape = encode(truth.nuclei[["x_px", "y_px"]].to_numpy(), truth.instances, shape=truth.image.shape[:2])
        maps = np.stack([shape.centre, np.where(shape.foreground > 0, 9.0, -9.0), *shape.offset]).astype(np.float32)
        self.maps = torch.from_numpy(np.pad(maps, ((0, 0), (border, border), (border, border)), mode="reflect"))

    def forward(self, image: torch.Tensor) -> PanopticLogits:
        assert image.shape[2:] == self.maps.shape[1:]
        nothing = torch.zeros((1, 5, *image.shape[2:]))
        return PanopticLogits(nothing, nothing[:, :4], self.maps[None])


def test_points_become_the_outlines_that_the_network_sees(tmp_path):
    truth = sample(0)
    pointed = replace(truth, instances=None, nuclei=truth.nuclei.assign(instance_id=0))
    net = KnowingNet(truth, border=32)
    (found,) = outline_points([pointed], net, describe(RECIPE, BREAST), path=tmp_path / "outlines.safetensors")
    np.testing.assert_array_equal(found.instances, truth.instances)
    assert found.nuclei["instance_id"].tolist() == list(range(1, len(truth.nuclei) + 1))
    assert found.nuclei["class_id"].tolist() == truth.nuclei["class_id"].tolist()


def test_a_nucleus_that_the_network_misses_gets_a_disc_and_one_that_nobody_pointed_at_nothing(tmp_path):
    truth = sample(0)
    extra = truth.nuclei.iloc[[0]].assign(x_px=24.5, y_px=24.5, instance_id=0)  # between the nuclei of the lattice
    pointed = truth.nuclei.iloc[1:].assign(instance_id=0)
    nuclei = pd.concat([pointed, extra], ignore_index=True)
    net = KnowingNet(truth, border=32)
    asked = replace(truth, instances=None, nuclei=nuclei)
    (found,) = outline_points([asked], net, describe(RECIPE, BREAST), path=tmp_path / "outlines.safetensors")
    assert (found.instances == len(nuclei)).sum() > 12
    assert not found.instances[truth.instances == 1].any()


def test_outlines_are_read_again_and_other_samples_left_alone(tmp_path):
    truth, path = sample(0), tmp_path / "outlines.safetensors"
    pointed = replace(truth, instances=None)
    first = outline_points([pointed, truth], KnowingNet(truth, border=32), describe(RECIPE, BREAST), path=path)
    assert first[1] is truth
    again = outline_points([pointed, truth], torch.nn.Identity(), describe(RECIPE, BREAST), path=path)
    np.testing.assert_array_equal(again[0].instances, first[0].instances)


@pytest.mark.parametrize("stopped", [3, 5])
def test_a_run_killed_before_or_after_outlining_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch, stopped):
    monkeypatch.setattr(train_room, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(recipe_room, "CHECKPOINT_EVERY", 2)
    recipe = replace(RECIPE, outline_step=4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(recipe, POINTED, tmp_path / "whole", device="cpu", workers=0)
    batch = CropStream.batch

    def killed(self, index):
        if index == stopped:
            raise KeyboardInterrupt
        return batch(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(CropStream, "batch", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, POINTED, tmp_path / "killed", device="cpu", workers=0)
    train(recipe, POINTED, tmp_path / "killed", device="cpu", workers=0)
    torch.set_num_threads(threads)
    curves = [(tmp_path / name / "curve.csv").read_text() for name in ("whole", "killed")]
    assert curves[0] == curves[1]


def test_outlining_where_no_checkpoint_is_written_is_refused():
    with pytest.raises(ConfigError, match="outline_step 150 must be a multiple of 100"):
        replace(RECIPE, steps=400, outline_step=150)
    with pytest.raises(ConfigError, match="lie before the last of 400 steps"):
        replace(RECIPE, steps=400, outline_step=400)
