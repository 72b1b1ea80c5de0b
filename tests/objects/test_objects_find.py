"""Nuclei in their places, and what a person drew burned into the map."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import GLASS, OTHER, STROMA, TIL, TILS, TUMOR, TUMOR_CELL, disc_in_stroma, nuclei_at

from pathopan.classes import BREAST
from pathopan.errors import SchemaError, UnknownLabel
from pathopan.objects import Annotation, CompartmentRules, burn_annotations, find_objects
from pathopan.tables import nuclei_schema


def find(classes, nuclei, *, mpp=4.0, rules=None, drawn=None):
    scale = (mpp / 0.5, mpp / 0.5)
    rules = rules or CompartmentRules(min_region_um2=0)
    return find_objects(classes, nuclei, taxonomy=BREAST, mpp=mpp, scale_l0=scale, rules=rules, drawn=drawn)


@pytest.fixture
def scattered(rng_seed=3):
    rng = np.random.default_rng(rng_seed)
    return nuclei_at(rng.uniform(0, 3000, (400, 2)), rng.choice([TUMOR_CELL, TIL], 400))


def test_a_nucleus_is_in_the_region_whose_outline_holds_its_centroid(scattered):
    found = find(disc_in_stroma(), scattered)
    centroids = shapely.centroid(found.nuclei.geometry.to_numpy())
    for region_id, outline in zip(found.regions["region_id"], found.regions.geometry, strict=True):
        held = shapely.contains(outline, centroids)
        np.testing.assert_array_equal(held, found.nuclei["region_id"] == region_id)


def test_the_table_is_complete(scattered):
    found = find(disc_in_stroma(), scattered).nuclei
    assert found.columns.tolist()[: len(nuclei_schema(BREAST).names)] == nuclei_schema(BREAST).names
    assert set(found["class"]) == {"tumor", "til"}
    area = 8 * np.sin(np.pi / 8) * 16  # a 16-gon of radius 4 um
    assert found["area_um2"].to_numpy() == pytest.approx(area)
    np.testing.assert_allclose(found["x_um"], shapely.centroid(found.geometry).x * 0.5)


def test_glass_and_what_was_not_analysed_is_no_region():
    classes = np.full((20, 20), GLASS, np.uint8)
    classes[:, 10:] = 0
    found = find(classes, nuclei_at([(10, 10), (60, 10), (500, 10)], TIL))
    assert found.nuclei["region_id"].tolist() == [0, 0, 0]
    assert found.nuclei["compartment"].tolist() == ["background", "not_analysed", "not_analysed"]
    assert len(found.regions) == 0


def test_no_nuclei_and_one_nucleus():
    assert len(find(disc_in_stroma(), nuclei_at([], TIL)).nuclei) == 0
    assert find(disc_in_stroma(), nuclei_at([(1500, 1500)], TIL)).nuclei["compartment"].tolist() == ["tumor_core"]


def test_the_map_after_islands_have_joined_is_kept():
    classes = disc_in_stroma()
    classes[3:5, 3:5] = TILS
    found = find(classes, nuclei_at([], TIL), rules=CompartmentRules())
    np.testing.assert_array_equal(found.classes(), disc_in_stroma())


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_is_no_matter(random):
    rng = np.random.default_rng(0)
    nuclei = nuclei_at(rng.uniform(0, 800, (30, 2)), rng.choice([TUMOR_CELL, TIL], 30))
    order = list(range(30))
    random.shuffle(order)
    classes = disc_in_stroma(800, 200, mpp=8.0)
    straight = find(classes, nuclei, mpp=8.0).nuclei
    shuffled = find(classes, nuclei.iloc[order], mpp=8.0).nuclei.sort_values("nucleus_id")
    assert shuffled.reset_index(drop=True).equals(straight)


def test_regions_spread_over_fields_without_loss():
    found = find(disc_in_stroma(mpp=7.0), nuclei_at([], TIL), mpp=7.0)
    spread = found.region_fields.groupby("region_id")["n_pixels"].sum()
    np.testing.assert_allclose(spread.to_numpy() * 49e-6, found.regions["area_mm2"])


def test_tables_with_gaps_are_refused():
    nuclei = nuclei_at([(10, 10)], TIL)
    with pytest.raises(SchemaError, match=r"detections lacks the columns \['class_id'\]"):
        find(disc_in_stroma(), nuclei.drop(columns="class_id"))
    with pytest.raises(SchemaError, match=r"lacks the columns \['prob_til'\]; it has"):
        find(disc_in_stroma(), nuclei.drop(columns="prob_til"))
    with pytest.raises(UnknownLabel, match=r"class ids \[9\], which taxonomy"):
        find(disc_in_stroma(), nuclei.assign(class_id=9))
    with pytest.raises(SchemaError, match="1 nuclei have no outline"):
        find(disc_in_stroma(), nuclei.set_geometry([shapely.Polygon()]))


def test_regions_burned_back_give_the_same_map(scattered):
    classes = disc_in_stroma(mpp=4.0)
    classes[:, :100], classes[300:330, 300:340] = GLASS, OTHER
    found = find(classes, scattered)
    drawn = [
        Annotation(shape, name) for name, shape in zip(found.regions["class"], found.regions.geometry, strict=True)
    ]
    glass = np.full_like(classes, GLASS)
    for order in (drawn, drawn[::-1]):
        burned = burn_annotations(glass, order, taxonomy=BREAST, scale_l0=(8.0, 8.0))
        np.testing.assert_array_equal(burned.classes, classes)


def test_a_correction_on_top_of_a_region_wins_and_qupath_names_count():
    below = np.full((10, 10), STROMA, np.uint8)
    below[0, 0] = 0
    drawn = [Annotation(shapely.box(0, 0, 40, 40), "Tumor"), Annotation(shapely.box(8, 8, 24, 24), "Immune cells")]
    burned = burn_annotations(below, drawn, taxonomy=BREAST, scale_l0=(8.0, 8.0)).classes
    assert burned[:6, :6].tolist() == [
        [0, 1, 1, 1, 1, 2],
        [1, 3, 3, 1, 1, 2],
        [1, 3, 3, 1, 1, 2],
        [1, 1, 1, 1, 1, 2],
        [1, 1, 1, 1, 1, 2],
        [2, 2, 2, 2, 2, 2],
    ]
    assert below[1, 1] == STROMA


def test_exclusions_and_beds_are_no_class():
    drawn = [
        Annotation(shapely.box(0, 0, 800, 800), "Exclude"),
        Annotation(shapely.box(0, 0, 3200, 3200), "Tumour bed"),
        Annotation(shapely.box(3200, 0, 4000, 800), "tumor bed"),
    ]
    burned = burn_annotations(disc_in_stroma(), drawn, taxonomy=BREAST, scale_l0=(8.0, 8.0))
    np.testing.assert_array_equal(burned.classes, disc_in_stroma())
    assert burned.drawn.bed.area == 3200**2 + 800**2
    found = find(burned.classes, nuclei_at([(100, 100)], TIL), drawn=burned.drawn)
    assert found.nuclei["compartment"].tolist() == ["excluded"]
    assert found.nuclei["region_id"].tolist() == [1]
    assert burn_annotations(disc_in_stroma(), [], taxonomy=BREAST, scale_l0=(8.0, 8.0)).drawn.bed is None


def test_an_unknown_annotation_is_refused_by_name():
    with pytest.raises(UnknownLabel, match=r"called 'Stomach'; set one of .*tumor bed"):
        burn_annotations(
            disc_in_stroma(), [Annotation(shapely.box(0, 0, 1, 1), "Stomach")], taxonomy=BREAST, scale_l0=(8, 8)
        )


def test_tumor_is_drawn_where_stroma_was():
    drawn = [Annotation(shapely.box(0, 0, 800, 800), "tumor")]
    burned = burn_annotations(np.full((200, 200), STROMA, np.uint8), drawn, taxonomy=BREAST, scale_l0=(8.0, 8.0))
    assert (burned.classes == TUMOR).sum() == 100 * 100
