from dataclasses import replace

import numpy as np
import pytest
import torch
from training_samples import RECIPE, sample

from pathopan.network.flips import FLIPS, look
from pathopan.network.losses import LossWeights
from pathopan.network.model import PanopticLogits
from pathopan.training import train as room
from pathopan.training.batches import CropStream
from pathopan.training.consistency import consistency_loss, teach
from pathopan.training.train import train

SAMPLES = [sample(number) for number in range(2)]
BATCH = CropStream.batch


def logits(seed: int) -> PanopticLogits:
    generator = torch.Generator().manual_seed(seed)
    return PanopticLogits(*(torch.randn(2, count, 12, 12, generator=generator) for count in (5, 4, 4)))


class Corner(torch.nn.Module):
    """A network that answers otherwise for each way an image lies: with how far each pixel is from one corner."""

    def forward(self, image: torch.Tensor) -> PanopticLogits:
        rows, columns = image.shape[2:]
        ramp = (torch.arange(rows)[:, None] * 2 + torch.arange(columns)).float().expand(len(image), 1, rows, columns)
        return PanopticLogits(ramp.repeat(1, 5, 1, 1), ramp.repeat(1, 4, 1, 1), ramp.repeat(1, 4, 1, 1))


@pytest.mark.parametrize("part", ["region_BRHW", "nucleus_BNHW", "shape_BKHW"])
def test_a_network_that_says_what_its_teacher_says_loses_least(part):
    taught = logits(0)
    taught.shape_BKHW[:, 1] += 2  # enough nuclei
    least = consistency_loss(taught, taught, weights=LossWeights())
    other = taught._replace(**{part: getattr(taught, part) + torch.randn(getattr(taught, part).shape)})
    assert consistency_loss(other, taught, weights=LossWeights()) > least + 0.05


def test_the_teacher_is_no_part_of_what_is_learned():
    learning = PanopticLogits(*(maps.requires_grad_() for maps in logits(0)))
    average = torch.nn.Module()
    average.weight = torch.nn.Parameter(torch.ones(()))
    average.forward = lambda image: PanopticLogits(*(maps * average.weight for maps in logits(1)))
    average.train()
    taught = teach(average, torch.zeros(2, 3, 12, 12), np.random.default_rng(0))
    consistency_loss(learning, taught, weights=LossWeights()).backward()
    assert all(maps.grad.abs().sum() > 0 for maps in learning)
    assert average.weight.grad is None
    assert average.training


def test_the_teacher_looks_in_eight_ways_and_learners_see_none_of_them():
    seen = {
        tuple(
            teach(Corner(), torch.zeros(1, 3, 6, 6), np.random.default_rng(seed)).region_BRHW[0, 0].flatten().tolist()
        )
        for seed in range(80)
    }
    ways = [look(Corner(), torch.zeros(1, 3, 6, 6), axes, swapped=swapped) for axes in FLIPS for swapped in (0, 1)]
    assert seen == {tuple(way.region_BRHW[0, 0].flatten().tolist()) for way in ways}
    assert len(seen) == 8


def test_the_average_teaches_from_the_step_on_at_which_it_outlines(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(room, "outline_points", lambda samples, *_args, **_kwargs: samples)

    def noted(*_args, step, teacher, **_kwargs):
        asked.append((step, teacher is not None))
        return {"loss": 0.0}

    monkeypatch.setattr(room, "_step", noted)
    train(
        replace(RECIPE, steps=102, outline_step=100, consistency=1.0), SAMPLES, tmp_path / "a", device="cpu", workers=0
    )
    assert asked == [(step, step >= 100) for step in range(102)]
    asked.clear()
    train(replace(RECIPE, steps=102, outline_step=100), SAMPLES, tmp_path / "b", device="cpu", workers=0)
    assert not any(teaches for _, teaches in asked)


def test_a_run_with_a_teacher_that_was_killed_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    recipe = replace(RECIPE, consistency=1.0)
    monkeypatch.setattr(room, "CHECKPOINT_EVERY", 3)

    def killed(self, index):
        if index == 5:
            raise KeyboardInterrupt
        return BATCH(self, index)

    nets = [train(recipe, SAMPLES, tmp_path / "whole", device="cpu", workers=0)[1]]
    with monkeypatch.context() as patch:
        patch.setattr(CropStream, "batch", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, SAMPLES, tmp_path / "cut", device="cpu", workers=0)
    nets.append(train(recipe, SAMPLES, tmp_path / "cut", device="cpu", workers=0)[1])
    whole, cut = ((tmp_path / name / "curve.csv").read_text().splitlines() for name in ("whole", "cut"))
    assert whole == cut
    assert whole[0].endswith(",consistency")
    assert all(float(row.split(",")[-1]) > 0 for row in whole[1:])
    for first, second in zip(*(net.state_dict().values() for net in nets), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
