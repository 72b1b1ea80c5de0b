"""Compartments of phantoms whose areas have closed forms."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from phantoms import GLASS, OTHER, RICH, STROMA, TILS, TUMOR, areas, disc_in_stroma, nuclei_at, radius_map
from scipy import ndimage

from pathopan.classes import BREAST
from pathopan.config import ObjectsConfig, ScoresConfig
from pathopan.objects import (
    COMPARTMENTS,
    PARTITION,
    TILES_OF,
    CompartmentRules,
    Drawn,
    compartments,
    distances,
    find_compartments,
    find_objects,
)
from pathopan.objects.bed import find_bed
from pathopan.objects.compartments import BED, FRONT, MID, NEAR, partition_of_place

RULES = CompartmentRules(min_region_um2=0)


def look(classes, mpp=4.0, *, taxonomy=BREAST, rules=RULES, drawn=None, xy_um=()):
    nuclei = nuclei_at(xy_um, taxonomy.nuclei[0].id, taxonomy=taxonomy)
    return find_objects(
        np.asarray(classes, np.uint8),
        nuclei,
        taxonomy=taxonomy,
        mpp=mpp,
        scale_l0=(mpp / 0.5, mpp / 0.5),
        rules=rules,
        drawn=drawn,
    )


def ring_mm2(inner_um: float, outer_um: float) -> float:
    return np.pi * (outer_um**2 - inner_um**2) / 1e6


@pytest.mark.parametrize("mpp", [2.0, 4.0, 5.0])
def test_a_disc_of_tumor_has_rings_of_known_area(mpp):
    found = areas(look(disc_in_stroma(3000, 700, mpp=mpp), mpp))
    expected = {
        "tumor": ring_mm2(0, 700),
        "tumor_front": ring_mm2(650, 700),
        "tumor_core": ring_mm2(0, 650),
        "stroma_near": ring_mm2(700, 750),
        "stroma_mid": ring_mm2(750, 900),
        "stroma_far": 9.0 - ring_mm2(0, 900),
        "stroma_associated": ring_mm2(700, 732),
        "bed_inside": ring_mm2(0, 700),
        "margin_inside": ring_mm2(200, 700),
        "margin_outside": ring_mm2(700, 1200),
        "tissue": 9.0,
    }
    for name, area in expected.items():
        narrow = name in ("tumor_front", "stroma_near", "stroma_associated")
        assert found[name] == pytest.approx(area, rel=0.035 if narrow else 0.015), name
    assert found["other"] == found["excluded"] == found["background"] == found["not_analysed"] == 0


def test_distances_are_those_to_the_border():
    angle = np.linspace(0, 6, 60)
    radius = np.linspace(20, 1400, 60)
    xy = 1500 + np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    inside = (xy > 0).all(axis=1) & (xy < 3000).all(axis=1)
    found = look(disc_in_stroma(mpp=2.0), 2.0, xy_um=xy[inside]).nuclei
    np.testing.assert_allclose(found["distance_to_tumor_um"], radius[inside] - 700, atol=2.9)
    assert found["compartment"].tolist() == [
        "tumor_core"
        if r < 650
        else "tumor_front"
        if r < 700
        else "stroma_near"
        if r < 750
        else "stroma_mid"
        if r < 900
        else "stroma_far"
        for r in radius[inside]
    ]


maps = hnp.arrays(np.uint8, st.tuples(st.integers(1, 16), st.integers(1, 16)), elements=st.integers(0, 5))


@given(maps)
def test_bands_agree_with_a_distance_transform_of_the_whole_slide(classes):
    rules = replace(RULES, front_um=3.0, near_um=2.5, mid_um=6.0)
    points = np.arange(classes.size)
    found = find_compartments(classes, taxonomy=BREAST, mpp=1.0, rules=rules, points=points, drawn=Drawn())
    tumor, stroma = classes == TUMOR, np.isin(classes, (STROMA, TILS))
    away, depth = (_transform(~mask) - 0.5 for mask in (tumor, stroma))
    np.testing.assert_array_equal(found.places & NEAR > 0, stroma & (away <= 2.5))
    np.testing.assert_array_equal(found.places & MID > 0, stroma & (away > 2.5) & (away <= 6))
    np.testing.assert_array_equal(found.places & FRONT > 0, tumor & (depth <= 3))
    expected = np.where(tumor, -depth, away)
    expected[np.isinf(expected)] = np.nan
    np.testing.assert_allclose(found.distance_um.reshape(classes.shape), expected, atol=1e-5)


def _transform(mask):
    return ndimage.distance_transform_edt(mask) if not mask.all() else np.full(mask.shape, np.inf)


@given(maps, st.integers(1, 5))
def test_no_seam_cuts_a_band(classes, rows):
    rules = replace(RULES, near_um=2.0, mid_um=5.0, front_um=2.0, margin_um=4.0, associated_um=3.0, bed_closing_um=4.0)

    def find():
        return find_compartments(
            classes, taxonomy=BREAST, mpp=1.0, rules=rules, points=np.arange(classes.size), drawn=Drawn()
        )

    whole = find()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compartments, "DISTANCE_ROWS", rows)
        patch.setattr(distances, "DISTANCE_ROWS", rows)
        cut = find()
    np.testing.assert_array_equal(cut.places, whole.places)
    np.testing.assert_array_equal(cut.distance_um, whole.distance_um)


@given(maps, st.integers(0, 3))
def test_area_is_conserved_and_turning_the_slide_changes_none(classes, turns):
    rules = replace(RULES, near_um=2.0, mid_um=5.0, front_um=2.0, margin_um=4.0, bed_closing_um=4.0)
    found = areas(look(classes, 1.0, rules=rules))
    for whole, pieces in TILES_OF:
        assert found[whole] == pytest.approx(sum(found[piece] for piece in pieces))
    assert sum(found[name] for name in PARTITION) == pytest.approx(classes.size * 1e-6)
    turned = areas(look(np.rot90(classes, turns), 1.0, rules=rules))
    without_bed = [name for name in found if "bed" not in name and "margin" not in name]
    assert {n: turned[n] for n in without_bed} == pytest.approx({n: found[n] for n in without_bed})


@settings(max_examples=10)
@given(st.integers(0, 12), st.integers(0, 12))
def test_moving_the_tissue_changes_nothing(right, down):
    disc = disc_in_stroma(800, 200, mpp=8.0)
    still = np.pad(disc, ((6, 6), (6, 6)), constant_values=GLASS)
    moved = np.pad(disc, ((down, 12 - down), (right, 12 - right)), constant_values=GLASS)
    rules = replace(RULES, margin_um=100)
    assert areas(look(moved, 8.0, rules=rules)) == pytest.approx(areas(look(still, 8.0, rules=rules)))


def test_renaming_ids_changes_nothing():
    renamed = replace(BREAST, regions=tuple(replace(c, id=c.id * 17) for c in BREAST.regions))
    classes = disc_in_stroma(1600, 300, mpp=8.0)
    classes[:20], classes[20:30] = GLASS, TILS
    assert areas(look(classes * 17, 8.0, taxonomy=renamed)) == areas(look(classes, 8.0))


def test_the_front_faces_stroma_not_lumens_or_the_border_of_the_slide():
    classes = np.full((60, 60), TUMOR)
    classes[25:35, 25:35] = GLASS
    assert areas(look(classes))["tumor_front"] == 0
    classes[:, 50:] = STROMA
    assert areas(look(classes))["tumor_front"] == pytest.approx(60 * 13 * 16e-6)  # the 13th centre is at 50 um


def test_all_tumor_is_core_and_has_no_depth():
    found = look(np.full((30, 30), TUMOR), xy_um=[(60, 60)])
    assert areas(found)["tumor_core"] == pytest.approx(900 * 16e-6)
    assert found.nuclei["distance_to_tumor_um"].isna().all()


def test_without_tumor_there_is_no_distance_and_no_bed():
    found = look(np.full((30, 30), STROMA), xy_um=[(60, 60)])
    assert found.nuclei["distance_to_tumor_um"].isna().all()
    assert found.nuclei["compartment"].tolist() == ["stroma_far"]
    assert found.bed.is_empty
    assert areas(found)["stroma_outside_bed"] == areas(found)["stroma"]


@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (1, 1)])
def test_an_empty_slide_is_an_answer(shape):
    found = look(np.zeros(shape))
    assert areas(found)["tissue"] == 0
    assert (len(found.nuclei), len(found.regions), found.bed.is_empty) == (0, 0, True)


def test_dense_stroma_is_stroma():
    classes = disc_in_stroma(1600, 300, mpp=8.0)
    dense = classes.copy()
    dense[:, 150:] = TILS
    plain, rich = areas(look(classes, 8.0)), areas(look(dense, 8.0))
    assert rich["stroma_dense"] == pytest.approx(50 * 200 * 64e-6)
    assert all(rich[c.name] == plain[c.name] for c in COMPARTMENTS if c.name != "stroma_dense")


def test_stroma_round_in_situ_epithelium_is_excluded():
    dcis, necrosis = RICH.region("dcis").id, RICH.region("necrosis").id
    classes = np.where(radius_map(1200, 4.0) <= 200, dcis, STROMA)
    found = areas(look(classes, taxonomy=RICH))
    assert found["excluded"] == pytest.approx(ring_mm2(0, 250), rel=0.02)
    assert found["stroma"] == pytest.approx(1.44 - ring_mm2(0, 250), rel=0.01)
    bare = areas(look(np.where(classes == dcis, necrosis, STROMA), taxonomy=RICH))
    assert bare["excluded"] == pytest.approx(ring_mm2(0, 200), rel=0.02)


def test_the_buffer_leaves_tumor_alone():
    dcis = RICH.region("dcis").id
    classes = np.full((40, 60), TUMOR)
    classes[:, :20] = dcis
    assert areas(look(classes, taxonomy=RICH))["tumor"] == pytest.approx(40 * 40 * 16e-6)


def test_the_buffer_takes_area_and_no_interface():
    """Carcinoma beside in-situ epithelium still faces stroma, though that stroma is not counted."""
    dcis = RICH.region("dcis").id
    classes = np.full((100, 100), STROMA)
    classes[:, :40], classes[:, 45:50] = TUMOR, dcis
    found = areas(look(classes, taxonomy=RICH))
    assert found["tumor_front"] == pytest.approx(100 * 13 * 16e-6)
    assert found["stroma_near"] == 0


def test_tumor_is_opened_at_least_by_a_pixel():
    classes = np.full((60, 60), STROMA)
    classes[30] = TUMOR
    for mpp in (2.0, 2.01, 4.0):
        assert areas(look(classes, mpp))["stroma_associated"] == 0


def test_what_a_person_excludes_is_in_no_denominator():
    classes = disc_in_stroma(1600, 300, mpp=8.0)
    classes[:, :20] = GLASS
    left = Drawn(excluded=shapely.box(0, 0, 800 / 0.5, 1600 / 0.5))
    found, before = areas(look(classes, 8.0, drawn=left)), areas(look(classes, 8.0))
    assert found["tumor"] == pytest.approx(before["tumor"] / 2)
    assert found["excluded"] == pytest.approx(80 * 200 * 64e-6)
    assert found["background"] == before["background"]
    assert found["tissue"] == before["tissue"]


def test_a_drawn_bed_replaces_the_computed_one():
    drawn = Drawn(bed=shapely.box(0, 0, 1600 / 0.5, 800 / 0.5))
    found = look(disc_in_stroma(1600, 300, mpp=8.0), 8.0, drawn=drawn)
    assert areas(found)["bed_inside"] == pytest.approx(1.6 * 0.8)
    assert found.bed.equals(drawn.bed)


def test_the_bed_closes_over_stroma_between_nests_and_leaves_far_pieces_apart():
    nests = np.zeros((500, 900), bool)
    for x in range(60, 260, 40):  # 20-pixel nests, 20 pixels apart, at 8 um/px: 160 um of stroma between
        for y in range(60, 260, 40):
            nests[y : y + 20, x : x + 20] = True
    one = find_bed(nests, mpp=8.0)
    assert one.geom_type == "Polygon"
    assert shapely.contains_xy(one, 150, 150)  # between nests
    assert one.area == pytest.approx(180 * 180, rel=0.06)
    nests[350:450, 700:800] = True
    assert len(shapely.get_parts(find_bed(nests, mpp=8.0))) == 2


def test_the_bed_has_no_holes_and_ignores_specks():
    ring = (radius_map(3000, 10.0) <= 1000) & (radius_map(3000, 10.0) > 500)
    ring[5:8, 5:8] = True  # 900 um2
    bed = find_bed(ring, mpp=10.0)
    assert bed.area * 1e-4 == pytest.approx(ring_mm2(0, 1000), rel=0.01)


def test_a_hole_with_a_longer_rim_than_the_tumor_is_filled_too():
    tumor = np.zeros((120, 120), bool)
    tumor[10:110, 10:110] = True
    tumor[20:100, 20:100:4] = False  # a comb of stroma
    tumor[20, 20:100] = False
    assert find_bed(tumor, mpp=8.0, closing_um=0.0).area == pytest.approx(100 * 100, rel=0.01)


def test_pieces_that_touch_at_a_corner_both_have_a_bed():
    tumor = np.zeros((80, 120), bool)
    tumor[10:40, 10:60] = tumor[40:70, 60:110] = True
    assert find_bed(tumor, mpp=8.0, closing_um=0.0).area == pytest.approx(2 * 30 * 50, rel=0.01)


def test_many_small_nests_make_one_bed():
    """Nests of 56 um, each below the least piece, with 32 um between them: one carcinoma, as a pathologist sees it."""
    tumor = np.zeros((200, 200), bool)
    for row in range(30, 170, 11):
        for column in range(30, 170, 11):
            tumor[row : row + 7, column : column + 7] = True
    bed = find_bed(tumor, mpp=8.0)
    assert len(shapely.get_parts(bed)) == 1
    assert bed.area == pytest.approx(140 * 140, rel=0.1)


def test_a_biopsy_thinner_than_the_opening_still_has_a_bed():
    strip = np.zeros((60, 400), bool)
    strip[25:35] = True  # 80 um wide
    bed = find_bed(strip, mpp=8.0)
    assert bed.area == pytest.approx(10 * 400, rel=0.05)


def test_small_lonely_tumor_makes_no_bed():
    speck = np.zeros((50, 50), bool)
    speck[20:25, 20:25] = True  # 0.0016 mm2
    assert find_bed(speck, mpp=8.0).is_empty


def test_the_bed_map_is_the_bed_outline():
    found = look(disc_in_stroma(mpp=4.0))
    area_um2 = found.bed.area * 0.25
    assert (found.places & BED > 0).sum() * 16 == pytest.approx(area_um2, rel=1e-3)


def test_every_place_is_in_one_part_of_the_partition():
    by_name = {c.name: c for c in COMPARTMENTS}
    for taxonomy in (BREAST, RICH):
        held = np.stack([by_name[name].holds(taxonomy) for name in PARTITION])
        known = np.isin(np.arange(1 << 16) & 255, [0, *(c.id for c in taxonomy.regions)])
        possible = known & ~((np.arange(1 << 16) & NEAR > 0) & (np.arange(1 << 16) & MID > 0))
        assert (held[:, possible].sum(axis=0) == 1).all()
        np.testing.assert_array_equal(held[:, possible].argmax(axis=0), partition_of_place(taxonomy)[possible])


def test_rules_are_the_settings_of_a_run():
    for rule in fields(CompartmentRules):
        owner = ScoresConfig() if rule.name == "field_um" else ObjectsConfig()
        assert getattr(owner, rule.name) == rule.default, rule.name


def test_other_tissue_is_in_no_denominator():
    classes = disc_in_stroma(1600, 300, mpp=8.0)
    classes[:50] = OTHER
    found = areas(look(classes, 8.0))
    assert found["other"] == pytest.approx(50 * 200 * 64e-6)
    assert found["bed_inside"] + found["bed_outside"] == pytest.approx(found["tumor"] + found["stroma"])
