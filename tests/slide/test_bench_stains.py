"""The bench of stains: what it takes for a slide's stains, and what it makes of an image in those of another."""

import numpy as np
from bench.stains import find_stain, recolor

HEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.20, 0.91, 0.37])
PINK, VIOLET = np.array([0.36, 0.80, 0.49]), np.array([0.14, 0.94, 0.32])


def stained(first, second, amounts):
    colors = np.array([first / np.linalg.norm(first), second / np.linalg.norm(second)])
    return (np.exp(-amounts @ colors) * 256 - 1).round().clip(0, 255).astype(np.uint8)


def amounts(seed=0):
    """Nuclei of much hematoxylin, stroma of eosin, and a corner of glass."""
    rng = np.random.default_rng(seed)
    both = np.where(rng.random((64, 64, 1)) < 0.3, [1.5, 0.02], [0.02, 0.9]) * rng.uniform(0.7, 1.3, (64, 64, 1))
    both[:8, :8] = 0
    return both


def test_the_stains_of_an_image_are_found():
    found = find_stain(stained(HEMATOXYLIN, EOSIN, amounts()))
    for color, true in zip(found.colors_23, (HEMATOXYLIN, EOSIN), strict=True):
        assert color @ true / np.linalg.norm(color) / np.linalg.norm(true) > 0.999
    np.testing.assert_allclose(found.amounts_2, [1.95, 1.17], rtol=0.05)


def test_a_recolored_image_looks_as_if_it_had_been_stained_so():
    pink = stained(PINK, VIOLET, amounts(seed=1))
    changed = recolor(stained(HEMATOXYLIN, EOSIN, amounts()), find_stain(pink))
    wanted = stained(PINK, VIOLET, amounts())
    assert np.abs(changed.astype(int) - wanted).mean() < 4
    assert (changed[:8, :8] >= 254).all()
    own = stained(HEMATOXYLIN, EOSIN, amounts())
    assert np.abs(recolor(own, find_stain(own)).astype(int) - own).mean() < 1
