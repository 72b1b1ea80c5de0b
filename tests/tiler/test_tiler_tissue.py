"""Tissue must be found, and ink, dirt and glass must not, on pictures whose truth is known."""

import cv2
import numpy as np
import pytest
from PIL import Image

from pathopan.slide import ArraySlide, open_slide
from pathopan.tiler import TissueMask, find_tissue
from pathopan.tiler.tissue import find_ink, glass_color, optical_density, stain_strength

GLASS = (243, 241, 242)
EOSIN = (232, 165, 195)
HEMATOXYLIN = (120, 90, 155)
MPP = 8.0


def glass(side=160, color=GLASS, seed=0):
    noise = np.random.default_rng(seed).normal(0, 1.5, (side, side, 3))
    return np.full((side, side, 3), color, float) + noise


def with_piece(picture, color, *, corner=(50, 50), side=60):
    y, x = corner
    noise = np.random.default_rng(1).normal(0, 8, (side, side, 1))
    picture[y : y + side, x : x + side] = np.asarray(color) + noise
    return picture


def find(picture, **options):
    pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return find_tissue(ArraySlide(pixels, mpp=MPP, slide_id="drawn"), mpp=MPP, **options)


def box(side=160, corner=(50, 50), length=60):
    mask = np.zeros((side, side), bool)
    mask[corner[0] : corner[0] + length, corner[1] : corner[1] + length] = True
    return mask


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize("color", [EOSIN, HEMATOXYLIN, (236, 218, 228), (190, 60, 130)])
@pytest.mark.parametrize("background", [GLASS, (235, 228, 240), (226, 222, 228), (230, 235, 225)])
def test_stained_pieces_are_found_on_any_glass(color, background):
    through_glass = np.asarray(color) * np.asarray(background) / 245
    found = find(with_piece(glass(color=background), through_glass))
    assert found.mask[box()].all()
    assert found.mask.sum() < 1.35 * box().sum()
    assert found.reason == ""


def test_fat_is_tissue_though_most_of_it_is_empty():
    picture, side = glass(240), 240
    y, x = np.mgrid[:side, :side]
    walls = np.hypot((y + 6 * ((x // 12) % 2)) % 12 - 6, x % 12 - 6) > 5.2
    disc = np.hypot(y - 120, x - 120) < 80
    picture[walls & disc] = (232, 205, 222)
    found = find(cv2.GaussianBlur(picture, (0, 0), 0.6))
    assert dice(found.mask, disc) > 0.9


def test_a_pale_piece_is_found_beside_a_dark_one():
    picture = with_piece(glass(240), HEMATOXYLIN, corner=(20, 20))
    found = find(with_piece(picture, (238, 216, 229), corner=(150, 150)))
    assert found.mask[box(240, (20, 20)) | box(240, (150, 150))].mean() > 0.98


def test_every_small_biopsy_is_kept_and_specks_are_not():
    picture = glass(200)
    for column in (20, 80, 140):
        picture[40:140, column : column + 24] = EOSIN
    picture[170:174, 100:104] = HEMATOXYLIN
    found = find(picture)
    count, labels = cv2.connectedComponents(found.mask.astype(np.uint8))
    assert count - 1 == 3
    assert labels[172, 102] == 0


@pytest.mark.parametrize(
    "ink",
    [(40, 60, 160), (150, 180, 230), (30, 130, 70), (20, 60, 40), (60, 160, 190), (40, 40, 45), (110, 110, 112)],
    ids=["blue", "pale blue", "green", "dark green", "cyan", "black", "grey"],
)
def test_pen_marks_are_not_tissue(ink):
    picture = with_piece(glass(), EOSIN)
    cv2.line(picture, (20, 10), (20, 150), ink, 7)
    cv2.circle(picture, (80, 80), 55, ink, 4)
    found = find(cv2.GaussianBlur(picture, (0, 0), 0.7))
    assert not found.mask[:, 10:30].any()
    assert dice(found.mask, box()) > 0.88


def test_broad_red_ink_is_not_tissue():
    picture = with_piece(glass(), EOSIN)
    cv2.line(picture, (20, 10), (20, 150), (215, 40, 50), 9)
    assert not find(picture).mask[30:130, 18:23].any()


def test_ink_over_tissue_is_left_out_and_told():
    picture = with_piece(glass(), EOSIN)
    cv2.line(picture, (80, 40), (80, 120), (30, 130, 70), 12)
    found = find(picture)
    assert not found.mask[60:100, 78:83].any()
    assert "ink covers or touches" in found.warnings[0]


def test_dust_and_edges_of_coverslips_are_not_tissue():
    picture = glass()
    picture[60:90, 60:90] = (120, 118, 119)
    cv2.line(picture, (0, 20), (160, 26), (150, 150, 152), 3)
    picture[:, 150:] *= 0.8
    found = find(picture)
    assert (found.mask.any(), found.reason) == (False, "nothing on the glass is stained")


def test_only_ink_is_said_to_be_only_ink():
    picture = glass()
    cv2.circle(picture, (80, 80), 50, (40, 60, 160), 8)
    assert find(picture).reason == "only ink was found"


@pytest.mark.parametrize("color", [(255, 255, 255), GLASS, (200, 200, 200), (235, 225, 240)])
def test_blank_glass_is_empty_and_says_why(color):
    found = find(glass(color=color))
    assert (found.area_mm2, found.reason) == (0.0, "nothing on the glass is stained")


def test_a_shaded_background_is_glass():
    assert not find(glass() * np.linspace(0.85, 1, 160)[:, None, None]).mask.any()


@pytest.mark.parametrize("color", [EOSIN, HEMATOXYLIN, (225, 190, 212), (236, 214, 227)])
@pytest.mark.parametrize("side", [31, 160])
def test_a_picture_without_any_glass_is_all_tissue(color, side):
    assert find(glass(side, color)).mask.mean() > 0.99


def test_fluorescence_is_refused():
    picture = np.full((160, 160, 3), 4.0)
    picture[50:110, 50:110] = (90, 8, 6)
    found = find(picture)
    assert not found.mask.any()
    assert "fluorescence" in found.reason


def test_black_around_a_scan_is_no_fluorescence():
    picture = np.full((300, 300, 3), 3.0)
    picture[70:230, 70:230] = with_piece(glass(), EOSIN)
    assert dice(find(picture).mask, box(300, (120, 120))) > 0.9


def test_lumens_belong_to_the_tissue_and_wide_gaps_do_not():
    picture = with_piece(glass(300), EOSIN, corner=(50, 50), side=200)
    picture[100:110, 100:110] = GLASS
    picture[150:230, 150:230] = GLASS
    found = find(picture)
    assert found.mask[105, 105]
    assert not found.mask[190, 190]


def test_area_counts_mask_pixels():
    assert TissueMask(np.ones((10, 20), bool), 8.0).area_mm2 == pytest.approx(200 * 64 / 1e6)


def test_the_smallest_piece_is_a_setting():
    picture = with_piece(glass(), EOSIN, side=20)
    assert find(picture, min_tissue_um2=10_000).mask.any()
    assert not find(picture, min_tissue_um2=60_000).mask.any()


def test_glass_is_measured_and_padding_is_not_glass():
    picture = np.rint(with_piece(glass(color=(231, 226, 233)), EOSIN)).astype(np.uint8)
    picture[:40] = 255
    assert glass_color(picture) == pytest.approx((231, 226, 233), abs=2)
    assert glass_color(np.full((9, 9, 3), 90, np.uint8)) == (245, 245, 245)


def test_stain_strength_is_zero_for_greys_and_positive_for_both_stains():
    colors = np.array([[GLASS, (128, 128, 128), EOSIN, HEMATOXYLIN]], np.uint8)
    strength = stain_strength(optical_density(colors, GLASS))[0]
    assert strength[:2] == pytest.approx(0, abs=0.01)
    assert (strength[2:] > 0.05).all()


def test_stains_are_not_ink():
    colors = np.array([[GLASS, EOSIN, HEMATOXYLIN, (60, 30, 100)]], np.uint8)
    assert not find_ink(optical_density(colors, GLASS)).any()


def test_the_synthetic_slide_s_tissue_is_found(synthetic_slide):
    with open_slide(synthetic_slide.path) as slide:
        found = find_tissue(slide)
    truth = sum(area for name, area in synthetic_slide.areas_mm2.items() if name != "background")
    assert truth <= found.area_mm2 < 1.2 * truth


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "mpp", "low", "high"),
    [
        ("CMU-1-Small-Region.svs", None, 0.40, 0.50),
        ("OS-1-detail.ome.tif", None, 0.99, 1.0),
        ("instanseg_HE_example.tif", None, 0.75, 0.85),
        ("tcga-cr-7395-01a-01-ts1.svs", 0.25, 0.73, 0.82),
        ("test3-TRITC-2-560.ndpi", None, 0.0, 0.0),
    ],
)
def test_real_slides_have_the_share_of_tissue_that_was_checked_by_eye(shared_data, name, mpp, low, high):
    with open_slide(shared_data / "slides" / name, slide_mpp=mpp) as slide:
        found = find_tissue(slide)
    assert low <= found.mask.mean() <= high
    assert bool(found.reason) == (high == 0)


@pytest.mark.data
def test_real_breast_fields_are_all_tissue(shared_data):
    for path in sorted((shared_data / "brca_m2c" / "images").glob("*.png"))[::6]:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert find_tissue(ArraySlide(pixels, mpp=0.5, slide_id=path.stem)).mask.mean() > 0.95
