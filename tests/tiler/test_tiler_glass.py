import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathopan.tiler.glass import GLASS_REACH_UM, find_glass

MPP = 0.5


def tissue(height, width, seed=0):
    return np.random.default_rng(seed).integers(120, 200, (height, width, 3), dtype=np.uint8)


def with_gap(width_um):
    image = tissue(120, 160)
    half = round(width_um / MPP / 2)
    image[:, 80 - half : 80 + half] = 245
    return image


def test_a_wide_gap_is_glass_up_to_its_border_and_a_narrow_one_is_tissue():
    found = find_glass(with_gap(30), mpp=MPP)
    assert found[:, 80 - 24 : 80 + 24].all()
    assert not found[:, : 80 - 30].any()
    assert not found[:, 80 + 30 :].any()
    assert not find_glass(with_gap(6), mpp=MPP).any()


def test_bright_but_textured_is_tissue():
    image = np.clip(np.random.default_rng(0).normal(235, 15, (100, 100)), 0, 255).astype(np.uint8)
    assert not find_glass(np.repeat(image[..., None], 3, axis=2), mpp=MPP).any()


def test_darker_glass_is_found_where_its_level_is_known():
    image = np.full((60, 60, 3), 215, np.uint8)
    assert not find_glass(image, mpp=MPP).any()
    assert find_glass(image, mpp=MPP, glass_level=217.0).all()


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_pixel_is_glass_or_not_whatever_window_shows_it(x, y):
    image = tissue(200, 200)
    image[60:140, 50:131] = 240
    image[90:101, 80:93] = tissue(11, 13, seed=1)
    whole, part = find_glass(image, mpp=MPP), find_glass(image[y:, x:], mpp=MPP, corner=(x, y))
    reach = round(GLASS_REACH_UM / MPP)
    np.testing.assert_array_equal(part[reach:, reach:], whole[y + reach :, x + reach :])


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0, 2.0])
def test_lengths_are_micrometres_at_any_resolution(mpp):
    side = round(200 / mpp)
    image = tissue(side, side)
    gap = slice(round(80 / mpp), round(120 / mpp))
    image[gap] = 245
    found = find_glass(image, mpp=mpp)
    assert found.shape == (side, side)
    assert found.mean() == pytest.approx(0.18, abs=0.03)
