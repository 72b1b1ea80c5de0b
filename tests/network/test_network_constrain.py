import torch
from hypothesis import given
from hypothesis import strategies as st

from pathopan.network.constrain import FLOOR, Compatibility

TUMOR, STROMA = 0, 1
CANCER, LYMPHOCYTE = 0, 2


def told(strength: float = 6.0, regions: int = 3, nuclei: int = 4) -> Compatibility:
    """A layer that has learned that cancer cells live in tumor and lymphocytes in stroma."""
    layer = Compatibility(regions, nuclei)
    with torch.no_grad():
        layer.weight_NR[CANCER, TUMOR] = strength
        layer.weight_NR[LYMPHOCYTE, STROMA] = strength
    return layer


def pixel(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def answer(layer: Compatibility, region: torch.Tensor, nucleus: torch.Tensor) -> torch.Tensor:
    return layer(region, nucleus).softmax(dim=1).flatten()


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 6))
def test_the_prior_is_a_probability_and_never_zero(seed, regions, nuclei):
    layer = Compatibility(regions, nuclei)
    with torch.no_grad():
        layer.weight_NR.copy_(20 * torch.randn(nuclei, regions, generator=torch.Generator().manual_seed(seed)))
    prior = layer.prior_NR()
    torch.testing.assert_close(prior.sum(dim=0), torch.ones(regions))
    assert (prior >= FLOOR / nuclei - 1e-6).all()


def test_an_untaught_layer_changes_no_answer():
    free = pixel(1.0, -2.0, 0.5, 3.0)
    torch.testing.assert_close(answer(Compatibility(3, 4), pixel(2, 0, -1), free), free.softmax(dim=1).flatten())


def test_two_denials_do_not_make_a_yes():
    """The tissue is not tumor and the pixel does not look like cancer: multiplied logits would agree on cancer."""
    region, nucleus = pixel(-8.0, 8.0, 0.0), pixel(-6.0, 0.0, 0.0, 0.0)
    free, constrained = nucleus.softmax(dim=1).flatten(), answer(told(), region, nucleus)
    assert constrained[CANCER] <= free[CANCER]
    assert constrained[CANCER] < 0.01


def test_a_lymphocyte_stays_possible_inside_tumor():
    sure_of_tumor = pixel(20.0, -20.0, -20.0)
    assert answer(told(50.0), sure_of_tumor, pixel(0.0, 0.0, 7.0, 0.0)).argmax() == LYMPHOCYTE


@given(st.lists(st.floats(-6, 6), min_size=4, max_size=4), st.floats(-6, 6), st.floats(0.1, 4))
def test_more_tumor_never_makes_cancer_less_likely(nucleus, tumor, more):
    layer, free = told(), pixel(*nucleus)
    before = answer(layer, pixel(tumor, 0.0, 0.0), free)
    after = answer(layer, pixel(tumor + more, 0.0, 0.0), free)
    assert after[CANCER] >= before[CANCER] - 1e-6
    assert after[LYMPHOCYTE] <= before[LYMPHOCYTE] + 1e-6


def test_the_prior_is_the_sum_over_regions():
    layer, region, free = told(), pixel(0.3, -0.2, 1.0), pixel(0.1, 0.2, 0.3, 0.4)
    share = region.flatten().softmax(dim=0)
    by_hand = free.flatten() + (layer.prior_NR() * share).sum(dim=1).log()
    torch.testing.assert_close(layer(region, free).flatten(), by_hand)


def test_no_gradient_reaches_the_region_head():
    layer = told()
    region = torch.zeros((1, 3, 2, 2), requires_grad=True)
    nucleus = torch.zeros((1, 4, 2, 2), requires_grad=True)
    layer(region, nucleus)[:, 0].sum().backward()
    assert region.grad is None
    assert nucleus.grad is not None
    assert layer.weight_NR.grad is not None
    assert layer.weight_NR.grad.abs().sum() > 0
