import numpy as np
import pytest
import torch

from pathopan.network.losses import (
    Batch,
    LossWeights,
    centre_loss,
    class_loss,
    foreground_loss,
    offset_loss,
    total_loss,
)
from pathopan.network.model import PanopticLogits
from pathopan.network.targets import encode

SURE = 30.0


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def as_logit(target: torch.Tensor) -> torch.Tensor:
    return torch.where(target > 0.5, SURE, -SURE)


def unknown_batch(size: int = 2, side: int = 8) -> Batch:
    """A batch of which nothing is known."""
    plane, no = torch.zeros(size, side, side), torch.zeros(size, side, side, dtype=torch.bool)
    return Batch(
        torch.zeros(size, 3, side, side),
        plane.long(),
        plane.long(),
        plane,
        plane,
        no,
        torch.zeros(size, 2, side, side),
        no,
        no,
    )


def logits(size: int = 2, side: int = 8) -> PanopticLogits:
    parts = [random(size, channels, side, side, seed=channels).requires_grad_() for channels in (5, 3, 4)]
    return PanopticLogits(parts[0], parts[1], parts[2])


def test_a_perfect_answer_costs_nearly_nothing():
    target = torch.from_numpy(encode(np.array([[8.5, 8.5]]), None, shape=(16, 16)).centre)[None]
    centre = torch.logit(target.clamp(1e-6, 1 - 1e-6))
    disc = (target > 0.5).float()
    known = torch.ones_like(disc, dtype=torch.bool)
    offset = random(1, 2, 16, 16)
    assert centre_loss(centre, target, known) < 1e-3
    assert foreground_loss(as_logit(disc), disc, known) < 1e-3
    assert offset_loss(offset, offset, known) == 0


def test_a_perfect_class_costs_least():
    """Smoothed labels cost something whatever the answer; the least is their own entropy."""
    target = torch.tensor([[[1, 2, 3, 0]]])
    smooth = torch.full((3,), 0.02 / 3) + torch.tensor([0.98, 0.0, 0.0])
    right = torch.stack([smooth.log().roll(shift) for shift in (0, 1, 2, 0)], dim=1)[None, :, None, :]
    least = class_loss(right, target)
    assert least == pytest.approx(float(-(smooth * smooth.log()).sum()), abs=1e-5)
    assert class_loss(right.roll(1, dims=1), target) > 10 * least


def test_wrong_answers_cost_more_than_right_ones():
    disc = torch.zeros(1, 8, 8)
    disc[0, 2:5, 2:5] = 1
    known = torch.ones_like(disc, dtype=torch.bool)
    assert foreground_loss(-as_logit(disc), disc, known) > 10
    assert centre_loss(-as_logit(disc), disc, known) > 1
    assert offset_loss(torch.ones(1, 2, 8, 8), torch.zeros(1, 2, 8, 8), known) == 2, "sum of |x| and |y|"


def test_masked_pixels_do_not_count():
    known = torch.zeros(1, 8, 8, dtype=torch.bool)
    known[:, :, :4] = True
    first, second = random(1, 8, 8), random(1, 8, 8, seed=5)
    second[:, :, :4] = first[:, :, :4]
    target = (random(1, 8, 8, seed=3) > 0).float()
    assert centre_loss(first, target, known) == centre_loss(second, target, known)
    assert centre_loss(first, target, known) == centre_loss(first, target * known, known)
    assert foreground_loss(first, target, known) == foreground_loss(second, target, known)
    assert foreground_loss(first, target, known) == foreground_loss(first, target * known, known)
    one, two = random(1, 2, 8, 8), random(1, 2, 8, 8, seed=9)
    two[..., :4] = one[..., :4]
    assert offset_loss(one, torch.zeros_like(one), known) == offset_loss(two, torch.zeros_like(two), known)
    classes = torch.randint(1, 4, (1, 8, 8), generator=torch.Generator().manual_seed(0)) * known
    one, two = random(1, 3, 8, 8), random(1, 3, 8, 8, seed=9)
    two[..., :4] = one[..., :4]
    assert class_loss(one, classes) == class_loss(two, classes)


def test_twice_the_unknown_pixels_change_no_mean():
    known = torch.zeros(1, 8, 16, dtype=torch.bool)
    known[:, :, :8] = True
    wide, target = random(1, 8, 16), (random(1, 8, 16, seed=4) > 0).float()
    narrow = foreground_loss(wide[..., :8], target[..., :8], known[..., :8])
    torch.testing.assert_close(foreground_loss(wide, target, known), narrow)


def test_rare_classes_can_weigh_more():
    target = torch.tensor([[[1, 2]]])
    logit = torch.zeros(1, 2, 1, 2)
    plain, weighed = class_loss(logit, target), class_loss(logit, target, torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(weighed, 2 * plain)


def test_a_batch_of_which_nothing_is_known_teaches_no_class_and_breaks_nothing():
    out = logits()
    free = random(2, 3, 8, 8, seed=7).requires_grad_()
    loss, terms = total_loss(out, free, unknown_batch(), weights=LossWeights(), nucleus_weight_N=torch.ones(3))
    loss.backward()
    assert torch.isfinite(loss)
    assert {
        name: terms[name] for name in ("offset", "nucleus", "free_nucleus", "region", "foreground", "centre")
    } == dict.fromkeys(("offset", "nucleus", "free_nucleus", "region", "foreground", "centre"), 0.0)
    assert not out.region_BRHW.grad.any()
    assert not out.nucleus_BNHW.grad.any()
    assert not free.grad.any()
    assert torch.isfinite(out.shape_BKHW.grad).all()


def test_the_total_is_the_weighted_sum():
    weights = LossWeights(centre=1, foreground=2, offset=3, nucleus=4, free_nucleus=5, region=6)
    batch = unknown_batch()._replace(region_BHW=torch.ones(2, 8, 8).long(), nucleus_BHW=torch.ones(2, 8, 8).long())
    loss, terms = total_loss(
        logits(), random(2, 3, 8, 8, seed=7), batch, weights=weights, nucleus_weight_N=torch.ones(3)
    )
    by_hand = sum(getattr(weights, name) * value for name, value in terms.items())
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
