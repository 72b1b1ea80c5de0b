"""Scores of phantoms whose answers are known."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import (
    GLASS,
    RICH,
    STROMA,
    STROMAL_CELL,
    TIL,
    TILS,
    TUMOR,
    TUMOR_CELL,
    disc_in_stroma,
    nuclei_at,
)

from pathopan.classes import BREAST
from pathopan.config import ScoresConfig
from pathopan.objects import COMPARTMENTS, CompartmentRules, Drawn, find_objects
from pathopan.scores import (
    ScoreRules,
    failed_score,
    find_violations,
    lined_up,
    score_regions,
    score_slide,
    score_stability,
    scores_schema,
    scores_table,
)
from pathopan.scores.columns import COMPARTMENT_MEANINGS

RULES = CompartmentRules(min_region_um2=0)
LEAN = ScoreRules(bootstrap=200)


def look(classes, nuclei, mpp=5.0, *, taxonomy=BREAST, drawn=None, rules=RULES):
    return find_objects(
        np.asarray(classes, np.uint8),
        nuclei,
        taxonomy=taxonomy,
        mpp=mpp,
        scale_l0=(mpp / 0.5, mpp / 0.5),
        rules=rules,
        drawn=drawn,
    )


def score(classes, nuclei, mpp=5.0, **options):
    return score_slide(look(classes, nuclei, mpp, **options), slide_id="phantom", rules=LEAN)


def lattice(side_um: float, pitch_um: float):
    steps = np.arange(pitch_um / 2, side_um, pitch_um)
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)


def ring_of_tumor(mpp=5.0):
    """Stroma of radius 400 um in tumor of radius 800 um, in stroma: a bed with both."""
    side = disc_in_stroma(3000, 800, mpp=mpp)
    return np.where(disc_in_stroma(3000, 400, mpp=mpp) == TUMOR, STROMA, side).astype(np.uint8)


@pytest.fixture(scope="module")
def even():
    """TILs everywhere, one in 20 um x 20 um: 2,500 per mm2 in every compartment."""
    return look(ring_of_tumor(), nuclei_at(lattice(3000, 20), TIL))


def test_an_even_density_is_found_in_every_compartment(even):
    found = score_slide(even, slide_id="even", rules=LEAN)
    for name, part in found.compartments.items():
        if "til_density_per_mm2" in part and part["area_mm2"] > 0:
            assert part["til_density_per_mm2"] == pytest.approx(2500, rel=0.05), name
            assert part["til_area_percent_fixed"] == pytest.approx(100 * 2500 * 64e-6, rel=0.05)
            assert part["til_density_per_mm2"] == part["n_til"] / part["area_mm2"]
    head = found.headline
    assert head["stil_percent"] == pytest.approx(16.0, rel=0.02)
    assert head["stil_percent"] == pytest.approx(100 * head["stil_n_til"] * 64e-6 / head["stil_area_mm2"])
    assert head["stil_area_mm2"] == pytest.approx(np.pi * 0.16, rel=0.03)
    assert head["stil_area_fraction"] == pytest.approx(head["stil_til_area_um2"] / head["stil_area_mm2"] / 1e6)
    assert head["stil_percent_ci_low"] <= head["stil_percent"] <= head["stil_percent_ci_high"]
    assert head["stil_itil_ratio"] == pytest.approx(1.0, rel=0.03)
    assert found.phenotype == {"phenotype": "inflamed"}
    assert found.status == "scored"


def test_everything_is_conserved(even):
    found = score_slide(even, slide_id="even", rules=LEAN)
    regions = score_regions(even, rules=LEAN)
    assert find_violations(found.to_dict(), regions, even.nuclei, taxonomy=BREAST, mpp_l0=(0.5, 0.5)) == []


def test_violations_are_told():
    objects = look(ring_of_tumor(), nuclei_at(lattice(3000, 50), TIL))
    stored, regions = score_slide(objects, slide_id="x", rules=LEAN).to_dict(), score_regions(objects, rules=LEAN)

    def told(changed=stored, regions=regions, nuclei=objects.nuclei):
        return " | ".join(find_violations(changed, regions, nuclei, taxonomy=BREAST, mpp_l0=(0.5, 0.5)))

    def with_part(name, **values):
        return {**stored, "compartments": {**stored["compartments"], name: {**stored["compartments"][name], **values}}}

    assert told() == ""
    assert "area_mm2 of tumor_front + tumor_core is" in told(with_part("tumor", area_mm2=9.0))
    assert "the density of stroma is 7, but n_til" in told(with_part("stroma", til_density_per_mm2=7))
    assert "empty without a reason" in told(with_part("stroma", til_density_per_mm2=None))
    assert "the compartments hold 3600 nuclei, the table has 3599" in told(nuclei=objects.nuclei.iloc[1:])
    assert "n_til differs in 1 regions; region 2 says 3" in told(
        regions=regions.assign(n_til=[*regions["n_til"][:1], 3, *regions["n_til"][2:]])
    )
    assert "regions, which the table" not in told()
    assert "which the table of regions lacks" in told(nuclei=objects.nuclei.assign(region_id=99))
    assert "unknown compartments ['bed']" in told(nuclei=objects.nuclei.assign(compartment="bed"))
    grown = regions.assign(geometry=regions.geometry.buffer(9))
    assert "outlines differ in area from the table" in told(regions=grown)
    crossed = regions.assign(geometry=[shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])] * len(regions))
    assert "are not valid" in told(regions=crossed)
    assert (
        find_violations(failed_score("x", "e").to_dict(), regions, objects.nuclei, taxonomy=BREAST, mpp_l0=(1, 1)) == []
    )


def test_lymphocytes_painted_in_a_nest_are_itil():
    xy = lattice(3000, 20)
    in_nest = np.hypot(*(xy - 1500).T) < 600
    found = score(
        disc_in_stroma(mpp=5.0), nuclei_at(xy[in_nest], np.where(np.arange(in_nest.sum()) % 4, TUMOR_CELL, TIL))
    )
    head = found.headline
    assert head["itil_n_til"] > 600
    assert head["itil_per_mm2"] == pytest.approx(head["itil_n_til"] / head["itil_area_mm2"])
    assert head["itil_per_100_tumor_cells"] == pytest.approx(100 / 3, rel=0.02)
    assert head["stil_n_til"] == 0


def test_no_til_is_zero_with_an_upper_bound():
    found = score(ring_of_tumor(), nuclei_at(lattice(3000, 40), STROMAL_CELL)).headline
    assert found["stil_percent"] == 0
    assert found["stil_percent_ci_low"] == 0
    assert found["stil_density_ci_high"] == pytest.approx(3.689 / found["stil_area_mm2"], rel=1e-3)


def test_no_stroma_has_no_stil_and_a_reason():
    found = score(np.where(disc_in_stroma(mpp=5.0) == TUMOR, TUMOR, GLASS), nuclei_at([(1500, 1500)], TIL))
    assert found.headline["stil_percent"] is None
    assert found.headline["stil_n_til"] == 0
    assert found.headline["reasons"]["stil_percent"] == "no stroma inside the tumor bed"
    assert found.headline["itil_n_til"] == 1
    assert found.phenotype == {
        "phenotype": "",
        "reasons": {"phenotype": "no sTIL: no stroma inside the tumor bed"},
    }
    assert found.reasons["compartments.stroma.til_density_per_mm2"] == "no stroma"
    told = found.to_row()["reason"].split("; ")
    assert "no stroma inside the tumor bed (stil_percent)" in told
    assert "no sTIL: no stroma inside the tumor bed (phenotype)" in told
    assert math.isnan(scores_table([found], BREAST)["stil_percent"][0])


def test_no_tumor_has_no_headline():
    found = score(np.full((100, 100), STROMA), nuclei_at(lattice(500, 50), TIL))
    assert found.headline["stil_percent"] is None
    assert found.headline["itil_per_mm2"] is None
    assert found.compartments["stroma"]["til_density_per_mm2"] == 400
    assert found.status == "scored"


def test_a_compartment_too_small_to_bear_a_ratio_says_so():
    classes = np.full((100, 100), TUMOR)
    classes[50, 50:60] = STROMA  # 250 um2
    found = score(classes, nuclei_at([(262, 252)], TIL)).compartments["stroma"]
    assert (found["n_til"], found["til_density_per_mm2"], found["til_area_percent"]) == (1, None, None)
    assert found["reasons"]["til_density_per_mm2"] == "0.00025 mm2 of stroma is below the least of 0.01 mm2"
    assert found["til_fraction_of_nuclei"] == 1.0


@pytest.mark.parametrize("fill", [0, GLASS])
def test_an_empty_slide_has_a_row_of_reasons(fill):
    found = score(np.full((40, 40), fill), nuclei_at([], TIL))
    assert found.status == "empty"
    assert found.headline["stil_percent"] is None
    assert found.fields.empty
    everywhere = scores_table([found], BREAST)
    ratios = [c.name for c in scores_schema(BREAST).columns if c.unit in ("1/mm2", "%")]
    assert everywhere[ratios].isna().all(axis=None)
    assert everywhere["stil_n_til"][0] == 0


def test_a_slide_without_pixels():
    assert score(np.zeros((0, 0)), nuclei_at([], TIL)).status == "empty"
    assert len(score_regions(look(np.zeros((0, 0)), nuclei_at([], TIL)))) == 0


def test_all_rows_have_the_same_columns(even):
    scored = score_slide(even, slide_id="even", rules=LEAN)
    table = scores_table([scored, failed_score("bad", "cannot be read")], BREAST)
    names = scores_schema(BREAST).names
    assert table.columns.tolist() == names
    assert len(set(names)) == len(names)
    assert set(scored.to_row()) == set(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") for name in names)
    assert table.loc[1].drop(["slide_id", "manifest_id", "status", "error"]).replace("", None).isna().all()
    assert table["stil_n_til"].dtype == "Int64"


def test_rows_survive_json(even):
    scored = score_slide(even, slide_id="even", rules=LEAN)
    again = lined_up([json.loads(json.dumps(scored.to_row()))], BREAST)
    assert again.equals(scores_table([scored], BREAST))
    stored = json.loads(json.dumps(scored.to_dict(), allow_nan=False))
    assert stored["headline"]["stil_n_til"] == scored.headline["stil_n_til"]
    assert len(stored["fields"]) == 36


def test_two_kinds_of_til_and_excluded_classes_are_counted_together():
    xy = lattice(3000, 40)
    kinds = np.where(np.arange(len(xy)) % 2, 3, 5)  # lymphocyte, plasma
    classes = ring_of_tumor()
    classes[:60], classes[-40:] = RICH.region("necrosis").id, RICH.region("dcis").id
    objects = look(classes, nuclei_at(xy, kinds, taxonomy=RICH), taxonomy=RICH)
    found = score_slide(objects, slide_id="rich", rules=LEAN)
    stroma = found.compartments["stroma"]
    assert stroma["n_til"] == stroma["n_lymphocyte"] + stroma["n_plasma"] == stroma["n_nuclei"]
    assert found.exclusions["necrosis"]["area_mm2"] == pytest.approx(0.9)
    assert found.exclusions["dcis"]["area_mm2"] == pytest.approx(0.6)
    assert found.exclusions["buffer"]["area_mm2"] == pytest.approx(3.0 * 0.05)
    assert found.exclusions["buffer"]["n_til"] > 0
    reasons = ("necrosis", "dcis", "buffer", "by_hand")
    assert sum(found.exclusions[n]["area_mm2"] for n in reasons) == pytest.approx(
        found.compartments["excluded"]["area_mm2"]
    )
    regions = score_regions(objects, rules=LEAN)
    assert find_violations(found.to_dict(), regions, objects.nuclei, taxonomy=RICH, mpp_l0=(0.5, 0.5)) == []
    assert set(found.to_row()) == set(scores_schema(RICH).names)


def test_what_a_person_excluded_is_listed():
    drawn = Drawn(excluded=shapely.box(0, 0, 6000, 1000))
    found = score(ring_of_tumor(), nuclei_at(lattice(3000, 50), TIL), drawn=drawn)
    assert found.exclusions["by_hand"] == {"area_mm2": pytest.approx(1.5), "n_nuclei": 600, "n_til": 600}


@settings(max_examples=8)
@given(st.integers(0, 3), st.booleans())
def test_turned_and_mirrored_slides_score_the_same(turns, mirror):
    rng = np.random.default_rng(5)
    xy = np.floor(rng.uniform(0, 1600, (300, 2)) / 8) * 8 + 4  # in the middle of pixels
    kinds = rng.choice([TIL, TUMOR_CELL, STROMAL_CELL], 300)
    classes = np.full((200, 200), STROMA)
    classes[40:160, 60:130], classes[90:110, 80:100], classes[:, :10] = TUMOR, TILS, GLASS
    plain = score(classes, nuclei_at(xy, kinds), 8.0)
    turned, points = np.rot90(classes, turns), xy - 800
    for _ in range(turns):
        points = np.column_stack([points[:, 1], -points[:, 0]])
    if mirror:
        turned, points = turned[:, ::-1], points * [-1, 1]
    other = score(turned, nuclei_at(points + 800, kinds), 8.0)
    for name, part in plain.compartments.items():
        if "bed" in name or "margin" in name:
            assert other.compartments[name]["area_mm2"] == pytest.approx(part["area_mm2"], rel=0.01), name
        else:
            counted = [key for key in part if key.startswith(("n_", "area")) and key != "n_fields"]
            assert {k: other.compartments[name][k] for k in counted} == pytest.approx({k: part[k] for k in counted})


def test_splitting_a_region_leaves_densities_alone():
    xy = lattice(1600, 20)
    whole = np.full((200, 200), STROMA)
    split = whole.copy()
    split[:, 100] = GLASS
    left = nuclei_at(xy[np.abs(xy[:, 0] - 804) > 12], TIL)
    one, two = score_regions(look(whole, left, 8.0)), score_regions(look(split, left, 8.0))
    assert (len(one), len(two)) == (1, 2)
    assert two["n_til"].sum() == one["n_til"].sum()
    pooled = score(split, left, 8.0).compartments["stroma"]
    assert pooled["til_density_per_mm2"] == pytest.approx(two["n_til"].sum() / two["area_mm2"].sum())


def test_regions_have_their_own_densities():
    classes = ring_of_tumor()
    xy = lattice(3000, 20)
    tumor = (np.hypot(*(xy - 1500).T) > 420) & (np.hypot(*(xy - 1500).T) < 780)
    objects = look(classes, nuclei_at(xy[tumor], TIL))
    table = score_regions(objects, rules=LEAN).set_index("class")
    row = table.loc["tumor"]
    assert row["til_density_per_mm2"] == pytest.approx(tumor.sum() / row["area_mm2"])
    assert row["til_density_ci_low"] < row["til_density_per_mm2"] < row["til_density_ci_high"]
    assert row["mean_prob"] == 0.75
    assert row["til_fraction_of_nuclei"] == 1.0
    empty = table.loc["stroma"]
    assert (empty["til_density_per_mm2"] == 0).all()
    assert (empty["til_density_ci_high"] > 0).all()
    assert empty["til_fraction_of_nuclei"].isna().all()
    assert (empty["reason"] == "no nuclei").all()


def test_a_small_region_has_counts_and_no_density():
    classes = np.full((60, 60), STROMA)
    classes[10:20, 10:20] = TUMOR  # 2,500 um2
    row = score_regions(look(classes, nuclei_at([(75, 75)], TIL))).set_index("class").loc["tumor"]
    assert row["n_til"] == 1
    assert math.isnan(row["til_density_per_mm2"])
    assert row["reason"] == "area is below the least of 0.01 mm2"


def test_a_region_in_one_field_has_a_poisson_interval():
    objects = look(np.full((90, 90), STROMA), nuclei_at(lattice(450, 150), TIL))  # 9 TILs in 0.2025 mm2
    row = score_regions(objects).iloc[0]
    assert [row["til_density_ci_low"] * 0.2025, row["til_density_ci_high"] * 0.2025] == pytest.approx(
        [4.1154, 17.0848], rel=1e-4
    )


def test_fields_of_any_number_of_pixels_hold_everything():
    objects = look(ring_of_tumor(7.0), nuclei_at(lattice(3000, 30), TIL), 7.0)
    for field_um in (333.0, 500.0, 9999.0):
        found = score_slide(objects, slide_id="x", rules=replace(LEAN, field_um=field_um))
        assert found.fields["tissue_mm2"].sum() == pytest.approx(found.compartments["tissue"]["area_mm2"])
        assert found.fields["stroma_n_til"].sum() == found.compartments["stroma"]["n_til"]
        assert found.compartments["stroma"]["til_density_per_mm2"] == pytest.approx(30**-2 * 1e6, rel=0.01)


def test_nuclei_outside_the_map_are_counted_as_not_analysed():
    found = score(np.full((40, 40), STROMA), nuclei_at([(100, 100), (900, 100)], TIL))
    assert found.compartments["not_analysed"]["n_til"] == 1
    assert found.compartments["stroma"]["n_til"] == 1


def test_stability_moves_with_the_threshold_and_not_with_the_fields():
    nuclei = nuclei_at(lattice(3000, 40), TIL)
    close = np.arange(len(nuclei)) % 2 == 0
    nuclei.loc[close, ["prob_til", "prob_stromal"]] = [0.45, 0.44]
    found = score_stability(look(ring_of_tumor(), nuclei), rules=LEAN)
    densities = [part["stil_density_per_mm2"] for part in found.class_threshold.values()]
    assert densities[0] == pytest.approx(densities[1] / 2, rel=0.05)
    assert densities[1] == densities[2]
    assert set(found.field_shift) == {"none", "x", "y", "both"}
    for shifted in found.field_shift.values():
        assert shifted["stil_density_ci_low"] <= densities[1] <= shifted["stil_density_ci_high"]


def test_rules_are_the_settings_of_a_run():
    assert {f.name: f.default for f in fields(ScoreRules)} == {f.name: f.default for f in fields(ScoresConfig)}


def test_every_compartment_has_a_meaning():
    assert list(COMPARTMENT_MEANINGS) == [c.name for c in COMPARTMENTS]
