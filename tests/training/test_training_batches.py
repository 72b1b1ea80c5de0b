from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_samples import sample

from pathopan.classes import BREAST
from pathopan.network.losses import Batch
from pathopan.slide.stain import STAINS_RGB, optical_density
from pathopan.training import augment
from pathopan.training.batches import Crop, CropRules, CropStream, draw_crop, to_tensors
from pathopan.training.recipe import Recipe
from pathopan.training.train import _batches

RULES = CropRules(side=64, batch_size=3, seed=5)
PLAIN = CropRules(side=64, artefact_share=0, glass_share=0)
SAMPLES = [sample(0), sample(1), sample(2, source="B"), sample(3, source="C")]


def stream(samples=SAMPLES, shares=None, rules=RULES, start=0) -> CropStream:
    return CropStream(
        samples, shares or {"A": 0.6, "B": 0.4}, scales={"A": (0.9, 1.1)}, taxonomy=BREAST, rules=rules, start=start
    )


def equal(first: Batch, second: Batch) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_batch_is_a_function_of_seed_and_number():
    one = stream()
    first = one.batch(7)
    one.batch(3)
    assert equal(first, one.batch(7))
    assert equal(first, stream(start=90).batch(7))
    assert not equal(first, one.batch(8))
    assert not equal(first, stream(rules=CropRules(side=64, batch_size=3, seed=6)).batch(7))


def test_the_stream_goes_on_from_its_start():
    batches = iter(stream(start=4))
    assert equal(next(batches), stream().batch(4))
    assert equal(next(batches), stream().batch(5))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_worker_processes_change_nothing():
    loader = iter(torch.utils.data.DataLoader(stream(start=2), batch_size=None, num_workers=2))
    assert all(equal(Batch(*next(loader)), stream().batch(index)) for index in range(2, 6))


def test_a_batch_has_the_documented_shapes_and_types():
    batch = stream().batch(0)
    assert {name: (tuple(part.shape), part.dtype) for name, part in batch._asdict().items()} == {
        "image_B3HW": ((3, 3, 64, 64), torch.float32),
        "region_BHW": ((3, 64, 64), torch.int64),
        "nucleus_BHW": ((3, 64, 64), torch.int64),
        "centre_BHW": ((3, 64, 64), torch.float32),
        "foreground_BHW": ((3, 64, 64), torch.float32),
        "foreground_known_BHW": ((3, 64, 64), torch.bool),
        "offset_B2HW": ((3, 2, 64, 64), torch.float32),
        "offset_known_BHW": ((3, 64, 64), torch.bool),
        "centre_known_BHW": ((3, 64, 64), torch.bool),
    }


def test_sources_without_a_share_are_never_drawn_and_absent_ones_do_not_matter():
    one = stream(shares={"A": 0.5, "B": 0.5, "absent": 3.0})
    assert set(one.shares) == {"A", "B"}
    assert {s.sample_id for pool in one.pools.values() for s in pool} == {"0", "1", "2"}


@given(st.integers(0, 2**31), st.floats(0.7, 1.4))
def test_points_and_pixels_are_turned_alike(seed, zoom):
    """Every nucleus is painted red at its point: after zoom, flips and turns it still is."""
    x, y = np.array([20.5, 70.5, 90.5]), np.array([30.5, 80.5, 15.5])
    image = np.full((100, 100, 3), 255, np.uint8)
    instances = np.zeros((100, 100), np.int32)
    for index, (cx, cy) in enumerate(zip(x, y, strict=True), start=1):
        cv2.circle(instances, (int(cx), int(cy)), 7, index, -1)
    image[instances > 0] = (255, 0, 0)
    nuclei = pd.DataFrame({"x_px": x, "y_px": y, "class_id": [1, 2, 3], "instance_id": [1, 2, 3]})
    made = sample(0, image=image, nuclei=nuclei, instances=instances)
    crop = draw_crop(made, np.random.default_rng(seed), rules=PLAIN, zoom=(zoom, zoom), taxonomy=BREAST)
    assert crop.image.shape == (64, 64, 3)
    for row, ((cx, cy), channel) in enumerate(zip(crop.centres_xy, crop.class_channel, strict=True), start=1):
        if 0 <= cx < 64 and 0 <= cy < 64:
            assert crop.image[int(cy), int(cx)].tolist() == [255, 0, 0]
            assert crop.instances[int(cy), int(cx)] == row
        rows, columns = np.nonzero(crop.instances == row)
        if len(rows) and min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 63:  # whole inside
            assert columns.mean() + 0.5 == pytest.approx(cx, abs=1.1)
            assert rows.mean() + 0.5 == pytest.approx(cy, abs=1.1)
        assert channel in (1, 2, 3)
    red = crop.image[..., 1] < 128
    assert (red == (crop.instances > 0)).mean() > 0.97


@pytest.mark.parametrize("zoom", [0.8, 1.0, 1.3])
def test_the_rim_of_a_nucleus_is_foreground_as_far_as_it_is_covered(zoom):
    instances = np.zeros((200, 200), np.int32)
    cv2.circle(instances, (100, 100), 41, 1, -1)
    nuclei = pd.DataFrame({"x_px": [100.5], "y_px": [100.5], "class_id": [1], "instance_id": [1]})
    made = sample(0, image=np.zeros((200, 200, 3), np.uint8), nuclei=nuclei, instances=instances, mpp=0.125)
    crop = draw_crop(made, np.random.default_rng(0), rules=PLAIN, zoom=(zoom, zoom), taxonomy=BREAST)
    assert crop.coverage.sum() == pytest.approx((instances > 0).sum() * (zoom / 4) ** 2, rel=0.01)
    assert ((crop.coverage > 0.1) & (crop.coverage < 0.9)).sum() > 10
    foreground = to_tensors(crop, np.random.default_rng(0), rules=PLAIN, taxonomy=BREAST)[4].numpy()
    np.testing.assert_array_equal(foreground, crop.coverage)


def test_a_point_without_outline_does_not_become_the_background():
    nuclei = pd.DataFrame({"x_px": [10.5, 40.5], "y_px": [10.5, 40.5], "class_id": [1, 2], "instance_id": [1, 0]})
    instances = np.zeros((64, 64), np.int32)
    instances[8:13, 8:13] = 1
    made = sample(0, image=np.zeros((64, 64, 3), np.uint8), nuclei=nuclei, instances=instances)
    crop = draw_crop(made, np.random.default_rng(0), rules=PLAIN, zoom=(1, 1), taxonomy=BREAST)
    assert (crop.instances > 0).sum() == 25


@pytest.mark.parametrize(("mpp", "zoom"), [(0.5, 1.0), (0.25, 1.25), (0.5, 0.8), (1.0, 1.0)])
def test_a_small_sample_is_filled_up_with_glass_and_its_nuclei_keep_their_size(mpp, zoom):
    x, y = np.array([6.5, 24.5]), np.array([8.5, 15.5])
    instances = np.zeros((20, 30), np.int32)
    for index, (cx, cy) in enumerate(zip(x, y, strict=True), start=1):
        cv2.circle(instances, (int(cx), int(cy)), 3, index, -1)
    image = np.where(instances[..., None] > 0, np.uint8(60), np.uint8(180)).repeat(3, axis=2)
    nuclei = pd.DataFrame({"x_px": x, "y_px": y, "class_id": [1, 2], "instance_id": [1, 2]})
    region = np.full((20, 30), BREAST.region("stroma").id, np.uint8)
    small = replace(sample(0, image=image, nuclei=nuclei, instances=instances, mpp=mpp), region=region)
    scale = mpp / 0.5 * zoom
    for seed in range(8):
        crop = draw_crop(small, np.random.default_rng(seed), rules=PLAIN, zoom=(zoom, zoom), taxonomy=BREAST)
        assert crop.image.shape == (64, 64, 3)
        assert crop.region.shape == crop.instances.shape == (64, 64)
        (first, second), kept = crop.centres_xy, crop.region == BREAST.region("stroma").id
        assert np.hypot(*(first - second)) == pytest.approx(scale * np.hypot(18, 7), rel=0.01)
        assert [crop.instances[int(cy), int(cx)] for cx, cy in crop.centres_xy] == [1, 2]
        assert kept.sum() == pytest.approx(20 * 30 * scale**2, rel=0.1)
        glass = crop.region == BREAST.region("background").id
        assert (kept | glass).all()
        assert (crop.image[glass] == 240).all()
        assert not crop.instances[glass].any()


@pytest.mark.parametrize("labelled", [(), (BREAST.nucleus("til").id,)])
def test_where_not_all_nuclei_are_labelled_nothing_says_that_there_is_none(labelled):
    rng = np.random.default_rng(0)
    some = sample(0, labelled_nuclei=labelled)
    crop = draw_crop(some, rng, rules=PLAIN, zoom=(1, 1), taxonomy=BREAST)
    batch = Batch(*to_tensors(crop, rng, rules=PLAIN, taxonomy=BREAST))
    labelled_px = torch.from_numpy(crop.instances > 0)
    assert not batch.foreground_known_BHW[~labelled_px].any()
    assert not batch.centre_known_BHW[~labelled_px].any()
    assert batch.foreground_known_BHW[labelled_px].all()
    assert batch.centre_known_BHW[labelled_px].all()
    none = sample(0, labelled_nuclei=(), nuclei=some.nuclei.iloc[:0], instances=None)
    crop = draw_crop(none, rng, rules=PLAIN, zoom=(1, 1), taxonomy=BREAST)
    batch = Batch(*to_tensors(crop, rng, rules=PLAIN, taxonomy=BREAST))
    assert not batch.centre_known_BHW.any()
    assert not batch.foreground_known_BHW.any()
    assert batch.region_BHW.any()


def test_what_is_unlabelled_stays_unknown():
    points = sample(0, points_only=True, region=False)
    crop = draw_crop(points, np.random.default_rng(0), rules=PLAIN, zoom=(1, 1), taxonomy=BREAST)
    assert crop.instances is None
    batch = Batch(*to_tensors(crop, np.random.default_rng(0), rules=PLAIN, taxonomy=BREAST))
    assert not batch.region_BHW.any()
    assert not batch.foreground_known_BHW.all()


def test_classes_become_channels():
    crop = draw_crop(sample(0), np.random.default_rng(0), rules=PLAIN, zoom=(1, 1), taxonomy=BREAST)
    batch = Batch(*to_tensors(crop, np.random.default_rng(0), rules=PLAIN, taxonomy=BREAST))
    for channel, kind in enumerate(BREAST.regions, start=1):
        np.testing.assert_array_equal(batch.region_BHW == channel, crop.region == kind.id)
    expected = np.concatenate([[0], crop.class_channel])[crop.instances]
    np.testing.assert_array_equal(batch.nucleus_BHW, expected)


@pytest.mark.parametrize(
    ("rules", "role"),
    [
        (CropRules(side=64, glass_share=1, artefact_share=0), "background"),
        (CropRules(side=64, glass_share=0, artefact_share=1), "other"),
    ],
)
def test_under_glass_and_artefacts_there_is_surely_no_nucleus(rules, role):
    crop = draw_crop(sample(0), np.random.default_rng(0), rules=rules, zoom=(1, 1), taxonomy=BREAST)
    channel = [kind.role for kind in BREAST.regions].index(role) + 1
    seen = 0
    for seed in range(12):
        batch = Batch(*to_tensors(crop, np.random.default_rng(seed), rules=rules, taxonomy=BREAST))
        plain = Batch(*to_tensors(crop, np.random.default_rng(seed), rules=PLAIN, taxonomy=BREAST))
        hidden = (batch.region_BHW == channel) & (plain.region_BHW != channel)
        seen += int(hidden.sum())
        assert batch.foreground_known_BHW[hidden].all()
        for part in (batch.foreground_BHW, batch.centre_BHW, batch.nucleus_BHW, batch.offset_known_BHW):
            assert not part[hidden].any()
    assert seen > 1000


ALL_CHANGES = [augment.jitter_stain, augment.jitter_light, augment.jitter_focus]


@pytest.mark.parametrize("change", ALL_CHANGES)
def test_colors_change_by_seed_only_and_stay_colors(change):
    image = sample(0).image
    kept = image.copy()
    for seed in range(20):
        first, second = (change(image, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert (first.shape, first.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(image, kept)


def test_no_stain_jitter_is_the_identity():
    image = sample(0).image
    same = augment.jitter_stain(image, np.random.default_rng(0), strength=0)
    assert np.abs(same.astype(int) - image).max() <= 1


@pytest.mark.parametrize("factor", [0.5, 1.6])
def test_density_makes_all_stains_paler_or_darker_alike(factor):
    image = np.array([[[200, 90, 160], [120, 80, 180]]], np.uint8)
    changed = augment.jitter_stain(image, np.random.default_rng(0), strength=0, density=(factor, factor))
    expected = 256 * ((image + 1.0) / 256) ** factor - 1  # absorbance times the factor
    np.testing.assert_allclose(changed, expected, atol=1.5)


def test_density_is_drawn_evenly_between_paler_and_darker():
    image = np.full((1, 1, 3), 120, np.uint8)
    rng = np.random.default_rng(0)
    many = [augment.jitter_stain(image, rng, strength=0, density=(0.5, 2.0)).mean() for _ in range(400)]
    factors = np.log((np.array(many) + 1) / 256) / np.log(121 / 256)
    assert pytest.approx(factors.min(), abs=0.03) == 0.5
    assert pytest.approx(factors.max(), abs=0.05) == 2.0
    assert np.median(factors) == pytest.approx(1, abs=0.15)


def test_hue_turns_the_color_of_a_stain_and_keeps_how_dense_it_is():
    hematoxylin = np.float32(1.5) * STAINS_RGB[0]
    image = np.stack([np.exp(-hematoxylin) * 256 - 1, np.full(3, 255.0)]).round().astype(np.uint8)[None]
    angles = []
    for seed in range(300):
        changed = augment.jitter_stain(image, np.random.default_rng(seed), strength=0, hue=0.3)
        found, glass = optical_density(changed)[0]
        np.testing.assert_allclose(glass, 0, atol=0.01)
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(hematoxylin), rel=0.03)
        cosine = found @ hematoxylin / np.linalg.norm(found) / np.linalg.norm(hematoxylin)
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    assert max(angles) > 20  # the pink of some slides lies 24 degrees from the blue of most
    assert 3 < np.median(angles) < 12


@pytest.mark.parametrize("change", [{"stain_hue": 0.3}, {"stain_strength": 0.9}, {"density": [0.2, 0.3]}])
def test_batches_have_the_stains_that_the_recipe_asks_for(change):
    def first(**settings):
        recipe = Recipe(name="tiny", shares={"A": 1.0}, zooms={}, crop_px=64, batch_size=2, **settings)
        return next(_batches(recipe, [sample(0)], BREAST, span=range(1), workers=0))[1]

    assert not torch.equal(first().image_B3HW, first(**change).image_B3HW)
    assert torch.equal(first(**change).image_B3HW, first(**change).image_B3HW)


def test_artefacts_change_what_they_cover():
    image = np.full((64, 64, 3), (220, 180, 210), np.uint8)
    for seed in range(10):
        painted, covered = augment.paint_artefact(image, np.random.default_rng(seed))
        assert covered.shape == (64, 64)
        changed = np.abs(painted.astype(int) - image).max(axis=2) > 0
        assert changed[covered].mean() > 0.9 if covered.any() else True


def test_bare_glass_is_bright_and_flat():
    for seed in range(10):
        glass = augment.bare_glass(32, np.random.default_rng(seed))
        assert glass.shape == (32, 32, 3)
        assert glass.mean() > 200
        assert glass.std(axis=(0, 1)).max() < 10


def test_a_crop_without_nuclei():
    empty = Crop(
        np.zeros((64, 64, 3), np.uint8), np.empty((0, 2)), np.empty(0, np.int64), None, np.zeros((64, 64), np.uint8)
    )
    batch = Batch(*to_tensors(empty, np.random.default_rng(0), rules=PLAIN, taxonomy=BREAST))
    assert not batch.nucleus_BHW.any()
    assert batch.foreground_known_BHW.all()
