from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from pathopan.classes import BREAST
from pathopan.datasets.synthetic import (
    COLORS,
    MIN_COLOR_DISTANCE,
    RADIUS_UM,
    TRUTH_MPP,
    classes_from_colors,
    make_slide,
)
from pathopan.geometry import Window
from pathopan.slide import open_slide


def read_all(truth, mpp):
    with open_slide(truth.path) as slide:
        return slide.read(Window(0, 0, *slide.info.size_px(mpp)), mpp)


def test_the_slide_is_a_real_one(synthetic_slide):
    with open_slide(synthetic_slide.path) as slide:
        assert slide.info.vendor == "generic-tiff"
        assert slide.info.mpp_l0 == pytest.approx((0.5, 0.5))
        assert slide.info.downsamples == (1.0, 2.0, 4.0, 8.0)


def test_colors_lie_far_apart():
    assert min(np.linalg.norm(np.subtract(a, b)) for a, b in combinations(COLORS.values(), 2)) >= MIN_COLOR_DISTANCE


def test_every_color_reads_as_its_classes():
    region, nucleus = classes_from_colors(np.array([list(COLORS.values())], np.uint8))
    assert list(zip(nucleus[0], region[0], strict=True)) == list(COLORS)


def test_the_truth_can_be_read_back_exactly_at_the_slide_s_mpp(synthetic_slide):
    region, nucleus = classes_from_colors(read_all(synthetic_slide, TRUTH_MPP))
    np.testing.assert_array_equal(region, synthetic_slide.region)
    labels, count = ndimage.label(nucleus)
    table = synthetic_slide.nuclei
    assert count == len(table)
    columns = np.floor(table["x_um"] / TRUTH_MPP).astype(int)
    rows = np.floor(table["y_um"] / TRUTH_MPP).astype(int)
    np.testing.assert_array_equal(nucleus[rows, columns], table["class_id"])
    np.testing.assert_array_equal(region[rows, columns], table["region_id"])
    areas = np.bincount(labels.ravel())[labels[rows, columns]] * TRUTH_MPP**2
    np.testing.assert_allclose(areas, np.pi * table["radius_um"] ** 2, rtol=0.08)


def test_the_truth_survives_resampling(tmp_path):
    truth = make_slide(tmp_path / "fine.tif", size_px=(2001, 1603), mpp=0.25, seed=3, discs_per_kind=2)
    region, nucleus = classes_from_colors(read_all(truth, TRUTH_MPP))
    assert region.shape == truth.region.shape
    assert (region == truth.region).mean() > 0.99
    _, count = ndimage.label(ndimage.binary_opening(nucleus > 0, iterations=2))
    assert count == len(truth.nuclei)


def test_counts_and_areas_add_up(synthetic_slide):
    truth = synthetic_slide
    assert sum(truth.areas_mm2.values()) == pytest.approx(truth.region.size * TRUTH_MPP**2 / 1e6)
    til = truth.nuclei["class_id"].isin(BREAST.nucleus_ids("til"))
    assert sum(truth.til_counts.values()) == til.sum()
    assert truth.til_counts["background"] == 0
    assert all(truth.til_counts[name] > 5 for name in ("tumor", "stroma", "tils"))


def test_nuclei_do_not_touch(synthetic_slide):
    table = synthetic_slide.nuclei
    points = table[["x_um", "y_um"]].to_numpy()
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    reach = table["radius_um"].to_numpy()[:, None] + table["radius_um"].to_numpy()[None]
    np.fill_diagonal(apart, np.inf)
    assert (apart - reach).min() >= 1.9


def test_the_same_seed_paints_the_same_slide(tmp_path):
    first = make_slide(tmp_path / "a.tif", size_px=(600, 500), seed=5)
    second = make_slide(tmp_path / "b.tif", size_px=(600, 500), seed=5)
    other = make_slide(tmp_path / "c.tif", size_px=(600, 500), seed=6)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    pd.testing.assert_frame_equal(first.nuclei, second.nuclei)
    assert not np.array_equal(first.region, other.region)


def test_every_class_is_there(synthetic_slide):
    assert set(np.unique(synthetic_slide.region)) == {c.id for c in BREAST.regions}
    assert set(synthetic_slide.nuclei["class_id"]) == set(RADIUS_UM)
