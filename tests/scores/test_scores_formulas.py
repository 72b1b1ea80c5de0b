"""Each formula against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from phantoms import OTHER_CELL, STROMA, STROMAL_CELL, TIL, TILS, TUMOR, TUMOR_CELL, nuclei_at

from pathopan.classes import BREAST
from pathopan.errors import ConfigError, ShapeMismatch
from pathopan.objects import CompartmentRules, Drawn, find_objects
from pathopan.scores.calibration import apply_calibration, fit_calibration
from pathopan.scores.fields import tally_fields
from pathopan.scores.heterogeneity import gini, morans_i
from pathopan.scores.interval import density_interval, poisson_interval
from pathopan.scores.itil import itil_per_100_tumor_cells
from pathopan.scores.mutils import METRICS, score_mutils
from pathopan.scores.phenotype import find_phenotype
from pathopan.scores.ratio import Ratio, divide
from pathopan.scores.stil import stil_itil_ratio, til_area_percent, til_area_percent_fixed, til_density_per_mm2


def square(classes, nuclei, mpp=8.0):
    return find_objects(
        np.asarray(classes, np.uint8),
        nuclei,
        taxonomy=BREAST,
        mpp=mpp,
        scale_l0=(mpp * 2, mpp * 2),
        rules=CompartmentRules(min_region_um2=0, associated_um=32.0),
    )


@pytest.fixture(scope="module")
def one_roi():
    """One square of 512 um at 8 um/px: 16 columns of tumor, 8 of infiltrate, 40 of stroma."""
    classes = np.full((64, 64), STROMA)
    classes[:, :16], classes[:, 16:24] = TUMOR, TILS
    kinds = [TIL] * 6 + [STROMAL_CELL] * 3 + [TUMOR_CELL] * 10 + [OTHER_CELL]
    xy = np.column_stack([np.full(20, 20.0), np.arange(20) * 20 + 12.0])
    return score_mutils(tally_fields(square(classes, nuclei_at(xy, kinds)), field_um=512.0))


def test_mutils_metrics_by_hand(one_roi):
    whole = 64 * 64
    # Columns 16 to 19 lie within 32 um of tumor: half a pixel, then one each, 4, 12, 20 and 28 um.
    salient = 4 * 64
    expected = {
        "SaliencyScore": (salient / whole) * (16 * 64 / whole),
        "TissueRatio": 1.0,
        "TILs2AnyStromaRatio": 8 / 48,
        "TILs2AllRatio": 8 / 64,
        "TILs2TumorRatio": 8 / 16,
        "SalientTILs2StromaRatio": 1.0,
        "nTILsCells2AnyStromaRegionArea": 6 / (48 * 64 * 64 / 0.25),
        "nTILsCells2nStromaCells": 2.0,
        "nTILsCells2nAllStromaCells": 6 / 9,
        "nTILsCells2nAllCells": 6 / 20,
        "nTILsCells2nTumorCells": 6 / 10,
    }
    assert set(METRICS) == set(expected)
    assert len(METRICS) == 11
    for name, value in expected.items():
        assert one_roi[f"mutils_pooled_{name}"].value == pytest.approx(value), name
        assert one_roi[f"mutils_weighted_{name}"].value == pytest.approx(value), name
        assert one_roi[f"mutils_weighted_std_{name}"].value == pytest.approx(0, abs=1e-12)
    assert (one_roi["mutils_n_rois"], one_roi["mutils_n_salient_rois"]) == (1, 1)


def test_mutils_weights_by_saliency_and_pools_by_sums():
    left, right = np.full((64, 64), STROMA), np.full((64, 64), STROMA)
    left[:, :32], right[:, 48:] = TUMOR, TUMOR  # 1/2 and 1/4 tumor, the same salient stroma but for the seam
    left_til, right_til = [(300, y) for y in range(20, 420, 100)], [(700, y) for y in range(20, 220, 100)]
    cells = [*left_til, *right_til, (400, 60), (640, 60), (640, 160)]
    kinds = [TIL] * 6 + [STROMAL_CELL] * 3
    found = score_mutils(tally_fields(square(np.hstack([left, right]), nuclei_at(cells, kinds)), field_um=512.0))
    assert found["mutils_n_rois"] == 2
    assert found["mutils_pooled_nTILsCells2nAllStromaCells"].value == pytest.approx(6 / 9)
    # Saliency 4/64 * 32/64 on the left and 4/64 * 16/64 on the right: weights 1 and 1/2.
    assert found["mutils_weighted_nTILsCells2nAllStromaCells"].value == pytest.approx((4 / 5 + 0.5 * 2 / 4) / 1.5)
    assert found["mutils_weighted_SaliencyScore"].value == pytest.approx((4 * 32 + 4 * 16) / 64**2 / 2)
    spread = found["mutils_weighted_std_nTILsCells2nAllStromaCells"].value
    assert spread == pytest.approx(np.sqrt((0.1**2 + 0.5 * 0.2**2) / 1.5))


def test_mutils_without_a_denominator_is_empty_not_zero():
    found = score_mutils(tally_fields(square(np.full((64, 64), TUMOR), nuclei_at([(9, 9)], TIL)), field_um=512.0))
    assert found["mutils_pooled_TILs2AnyStromaRatio"] == Ratio(None, "no stroma")
    assert found["mutils_weighted_nTILsCells2nTumorCells"].value is None
    assert found["mutils_pooled_nTILsCells2nAllCells"].value == 1.0
    assert found["mutils_weighted_nTILsCells2nAllCells"].value == 1.0


def test_mutils_skips_squares_with_little_tissue():
    classes = np.zeros((64, 128))
    classes[:, :33] = STROMA
    found = score_mutils(tally_fields(square(classes, nuclei_at([], TIL)), field_um=512.0))
    assert found["mutils_n_rois"] == 1
    assert found["mutils_pooled_TissueRatio"].value == pytest.approx(33 / 64)
    nothing = score_mutils(tally_fields(square(np.zeros((64, 64)), nuclei_at([], TIL)), field_um=512.0))
    assert nothing["mutils_n_rois"] == 0
    assert nothing["mutils_pooled_TissueRatio"] == Ratio(None, "no region of interest")


def test_stil_by_hand():
    words = {"where": "stroma", "least_mm2": 0.01}
    assert til_density_per_mm2(50, 0.25, **words) == Ratio(200.0)
    assert til_area_percent(2500.0, 0.25, **words) == Ratio(1.0)
    assert til_area_percent_fixed(50, 0.25, footprint_um2=64.0, **words).value == pytest.approx(1.28)
    assert itil_per_100_tumor_cells(3, 0) == Ratio(None, "no tumor nuclei")
    assert stil_itil_ratio(Ratio(200.0), Ratio(50.0)) == Ratio(4.0)
    assert stil_itil_ratio(Ratio(200.0), Ratio(0.0)) == Ratio(None, "no iTIL")
    assert stil_itil_ratio(Ratio(None, "no stroma"), Ratio(1.0)) == Ratio(None, "no sTIL density: no stroma")


def test_zero_is_a_value_and_nothing_is_not():
    assert divide(0, 2, what="area") == Ratio(0.0)
    assert divide(0, 0, what="area") == Ratio(None, "no area")


@pytest.mark.parametrize(
    ("stil", "itil", "expected"),
    [(10, 100, "inflamed"), (9, 100, "inflamed"), (10, 99, "excluded"), (9.9, 99, "desert"), (0, 0, "desert")],
)
def test_phenotypes(stil, itil, expected):
    found = find_phenotype(Ratio(stil), Ratio(itil), inflamed_stil_percent=10.0, inflamed_itil_per_mm2=100.0)
    assert found == (expected, "")


def test_a_phenotype_needs_both_scores():
    empty = Ratio(None, "no tumor")
    found = find_phenotype(Ratio(1.0), empty, inflamed_stil_percent=10.0, inflamed_itil_per_mm2=100.0)
    assert found == ("", "no iTIL: no tumor")


def test_poisson_limits_are_garwoods():
    low, high = poisson_interval([0, 1, 5, 100])
    assert low == pytest.approx([0, 0.0253, 1.6235, 81.3636], abs=1e-3)
    assert high == pytest.approx([3.6889, 5.5716, 11.6683, 121.6272], abs=1e-3)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.01, 0.25)), min_size=1, max_size=20))
def test_the_interval_holds_the_pooled_density_and_is_repeatable(rows):
    counts, areas = (np.array(column) for column in zip(*rows, strict=True))
    low, high, method = density_interval(counts, areas, resamples=300, seed=1)
    assert (low, high, method) == density_interval(counts, areas, resamples=300, seed=1)
    densities = counts / areas
    if method == "bootstrap":
        assert densities.min() - 1e-9 <= low <= high <= densities.max() + 1e-9
    else:
        assert low <= counts.sum() / areas.sum() <= high


def test_a_sliver_of_a_field_widens_no_interval():
    low, high, method = density_interval([25, 1], [0.25, 4e-6])
    assert method == "poisson"
    assert (low, high) == pytest.approx([16.98 / 0.25, 38.1 / 0.25], rel=0.01)


def test_few_fields_know_no_more_than_their_counts():
    low, high, method = density_interval([4, 4], [1.0, 1.0])
    assert method == "wider"
    assert (low, high) == pytest.approx([3.4538 / 2, 15.7632 / 2], rel=1e-3)  # Poisson: a bootstrap gives 4 to 4
    assert density_interval([0, 40], [1.0, 1.0])[:2] == (0.0, 40.0)


def test_the_bootstrap_sees_clusters_that_poisson_does_not():
    areas = np.full(40, 0.25)
    clustered = np.where(np.arange(40) % 10 == 0, 100, 0)
    low, high, _ = density_interval(clustered, areas)
    poisson_low, poisson_high, method = density_interval(clustered, areas, resamples=0)
    assert method == "poisson"
    assert high - low > 3 * (poisson_high - poisson_low)


def test_the_bootstrap_covers_about_95_percent():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(150):
        counts = rng.poisson(rng.gamma(4.0, 5.0, 60))  # fields of mean 20 and clustered
        low, high, _ = density_interval(counts, np.ones(60), resamples=400, seed=seed)
        hits += low <= 20 <= high
    assert 0.89 <= hits / 150 <= 0.99


def test_gini_and_moran_by_hand():
    assert gini(np.array([2.0, 2.0, 2.0])).value == pytest.approx(0)
    assert gini(np.array([1.0, 3.0])).value == pytest.approx(0.25)
    assert gini(np.zeros(3)).reason == "no TIL in any field"
    row, column = np.divmod(np.arange(4), 2)
    checker = morans_i(np.array([1.0, 0, 0, 1.0]), rows=row, columns=column)
    assert checker.value == pytest.approx(-1 / 3)  # all four touch each other: 6 pairs, 4 unlike and 2 alike
    assert "same density" in morans_i(np.ones(4), rows=row, columns=column).reason
    assert "needs 3" in morans_i(np.ones(2), rows=row[:2], columns=column[:2]).reason
    apart = morans_i(np.array([1.0, 2.0, 3.0]), rows=np.array([0, 5, 9]), columns=np.zeros(3, int))
    assert apart.reason == "no two fields are neighbours"


@given(st.lists(st.floats(0, 1000), min_size=3, max_size=12))
def test_morans_i_equals_the_sum_written_out(values):
    density = np.array(values)
    rows, columns = np.divmod(np.arange(len(density)), 3)
    found = morans_i(density, rows=rows, columns=columns).value
    if found is None:
        return
    z = density - density.mean()
    weight = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns)) == 1
    assert found == pytest.approx(len(z) / weight.sum() * (weight * np.outer(z, z)).sum() / (z**2).sum())


def test_a_line_is_recovered_with_its_interval():
    rng = np.random.default_rng(1)
    computed = rng.uniform(0, 60, 200)
    visual = 1.5 * computed + 4 + rng.normal(0, 3, 200)
    line = fit_calibration([*computed, np.nan], [*visual, 5.0])
    assert line.n == 200
    assert line.slope_ci[0] < 1.5 < line.slope_ci[1]
    assert line.intercept_ci[0] < 4 < line.intercept_ci[1]
    value, low, high = apply_calibration(line, [20.0, 90.0, np.nan])
    assert value[0] == pytest.approx(34, abs=1)
    assert high[0] - low[0] == pytest.approx(2 * 1.97 * 3, rel=0.15)
    assert value[1] == 100
    assert np.isnan(value[2])
    covered = (apply_calibration(line, computed)[1] <= visual) & (visual <= apply_calibration(line, computed)[2])
    assert covered.mean() > 0.9


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([], [])])
def test_a_calibration_needs_three_different_scores(x, y):
    with pytest.raises(ShapeMismatch, match="needs three pairs with different computed scores"):
        fit_calibration(x, y)


def test_a_calibration_needs_pairs():
    with pytest.raises(ShapeMismatch, match=r"\(2,\) computed and \(3,\) visual scores do not pair up"):
        fit_calibration([1, 2], [1, 2, 3])


def test_mutils_counts_nobody_where_a_person_drew_out_or_nobody_looked():
    classes = np.full((64, 64), STROMA)
    classes[:, :16] = TUMOR
    classes[:4] = 0
    xy = [(200.0, 100.0), (200.0, 200.0), (200.0, 10.0), (400.0, 400.0)]  # kept, kept, not analysed, drawn out
    found = find_objects(
        np.asarray(classes, np.uint8),
        nuclei_at(xy, [TIL] * 4),
        taxonomy=BREAST,
        mpp=8.0,
        scale_l0=(16.0, 16.0),
        rules=CompartmentRules(min_region_um2=0),
        drawn=Drawn(excluded=shapely.box(300 * 2, 300 * 2, 512 * 2, 512 * 2)),
    )
    scores = score_mutils(tally_fields(found, field_um=512.0))
    assert (scores["mutils_n_til"], scores["mutils_n_all"]) == (2, 2)


def test_fields_must_hold_pixels():
    objects = square(np.full((4, 4), STROMA), nuclei_at([], TIL))
    with pytest.raises(ConfigError, match=r"fields of 4.0 um, shifted by \(0.0, 0.0\), on a map of 8.0 um/px"):
        tally_fields(objects, field_um=4.0)
    with pytest.raises(ConfigError, match="shift less than a field"):
        tally_fields(objects, field_um=16.0, shift_um=(16.0, 0.0))
