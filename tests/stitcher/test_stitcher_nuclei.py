from itertools import pairwise

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from oracle import Look, OracleRuntime, merged, predict_all

from pathopan.datasets.synthetic import make_slide
from pathopan.geometry import Grid, Window
from pathopan.slide import ArraySlide, open_slide
from pathopan.stitcher.nuclei import merge_nuclei, merge_rows, tile_rows

GRID = Grid(mpp=0.5, step=64, halo=16, size=(128, 128), scale_l0=(1, 1))


def table(*rows: tuple[int, float, shapely.Polygon]) -> gpd.GeoDataFrame:
    """Candidates from (tile, prob, polygon)."""
    return gpd.GeoDataFrame(
        {
            "tile_index": np.array([row[0] for row in rows], np.int64),
            "prob": np.array([row[1] for row in rows], float),
        },
        geometry=gpd.GeoSeries([row[2] for row in rows], crs=None),
        crs=None,
    )


def disc(x: float, y: float, radius: float = 6.0) -> shapely.Polygon:
    return shapely.Point(x, y).buffer(radius)


def merge(candidates: gpd.GeoDataFrame, grid: Grid = GRID, margin: float = 6.0) -> gpd.GeoDataFrame:
    return merge_nuclei(candidates, grid, margin_px=margin)


def test_a_nucleus_that_two_tiles_saw_appears_once_and_the_surer_one_stays():
    found = merge(table((0, 0.7, disc(63, 30)), (1, 0.9, disc(64, 31))))
    assert found["tile_index"].tolist() == [1]
    assert found["nucleus_id"].tolist() == [1]


def test_equally_sure_tiles_give_way_to_the_lower_one():
    assert merge(table((1, 0.9, disc(64, 31)), (0, 0.9, disc(63, 30))))["tile_index"].tolist() == [0]


def test_a_nucleus_at_the_corner_of_four_tiles_appears_once():
    four = [(tile, 0.5 + tile / 10, disc(64 + tile / 3, 64 - tile / 4)) for tile in range(4)]
    assert merge(table(*four))["tile_index"].tolist() == [3]


def test_neighbours_that_barely_touch_stay_two():
    assert len(merge(table((0, 0.7, disc(60, 30)), (1, 0.9, disc(70, 30))))) == 2


def test_overlap_is_measured_on_the_smaller_one():
    """A small piece inside a large nucleus is no second nucleus, although the union is much larger."""
    assert len(merge(table((0, 0.9, disc(62, 30, 10)), (1, 0.7, disc(66, 30, 3))))) == 1


def test_one_tile_never_drops_its_own():
    assert len(merge(table((0, 0.7, disc(60, 30)), (0, 0.9, disc(61, 30))))) == 2


def test_who_was_dropped_drops_nobody():
    chain = table((0, 0.9, disc(58, 30)), (1, 0.8, disc(64, 30)), (0, 0.7, disc(70, 30)))
    assert merge(chain)["prob"].tolist() == [0.9, 0.7]


def test_a_twin_is_found_although_only_one_of_the_two_reaches_the_seam():
    """The left tile saw a small piece well inside; the right tile saw all of it, with a centroid it may keep."""
    whole, piece = shapely.box(42, 20, 76, 34), shapely.box(44, 22, 56, 32)
    assert whole.centroid.x >= 64 - 6
    assert piece.bounds[2] <= 64 - 6
    assert merge(table((0, 0.6, piece), (1, 0.9, whole)))["tile_index"].tolist() == [1]


def test_ids_follow_the_rows():
    found = merge(table((0, 0.9, disc(40, 40)), (0, 0.9, disc(10, 40)), (0, 0.9, disc(40, 10))))
    assert found["nucleus_id"].tolist() == [1, 2, 3]
    assert [(round(p.x), round(p.y)) for p in found.geometry.centroid] == [(40, 10), (10, 40), (40, 40)]


def test_nothing_to_merge():
    found = merge(table())
    assert len(found) == 0
    assert list(found.columns) == ["nucleus_id", "tile_index", "prob", "geometry"]


@st.composite
def crowds(draw: st.DrawFn) -> gpd.GeoDataFrame:
    """Nuclei around the middle of four tiles; each is seen by some of them, with jitter."""
    rows = []
    for _ in range(draw(st.integers(1, 10))):
        x, y = draw(st.integers(40, 88)), draw(st.integers(40, 88))
        for tile in draw(st.sets(st.integers(0, 3), min_size=1)):
            jitter_x, jitter_y = draw(st.integers(-2, 2)), draw(st.integers(-2, 2))
            rows.append((tile, draw(st.sampled_from([0.4, 0.6, 0.9])), disc(x + jitter_x, y + jitter_y, 5)))
    return table(*rows)


@given(crowds(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(crowd, random):
    shuffled = list(range(len(crowd)))
    random.shuffle(shuffled)
    first, second = merge(crowd), merge(crowd.iloc[shuffled].reset_index(drop=True))
    assert first.equals(second)


@given(crowds(), st.floats(0, 12))
def test_no_two_nuclei_of_different_tiles_share_much(crowd, margin):
    found = merge(crowd, margin=margin)
    for i, j in zip(*np.triu_indices(len(found), 1), strict=True):
        if found["tile_index"][i] != found["tile_index"][j]:
            one, other = found.geometry[i], found.geometry[j]
            assert one.intersection(other).area <= 0.3 * min(one.area, other.area) + 1e-9


@given(crowds())
def test_whoever_was_dropped_has_a_better_twin(crowd):
    found = merge(crowd)
    for _, row in crowd.iterrows():
        shared = found.geometry.intersection(row.geometry).area
        smaller = np.minimum(found.geometry.area, row.geometry.area)
        assert (shared > 0.3 * smaller).any()


TALL = Grid(mpp=0.5, step=64, halo=24, size=(192, 320), scale_l0=(1, 1))


@st.composite
def columns_of_nuclei(draw: st.DrawFn) -> gpd.GeoDataFrame:
    """Nuclei anywhere on a tall grid, each seen by those of its tiles that may own it, in the tiles' order."""
    rows = []
    for _ in range(draw(st.integers(0, 25))):
        x, y = draw(st.integers(10, 180)), draw(st.integers(10, 310))
        for tile in TALL:
            grown = tile.write.grow(6)
            if grown.x <= x < grown.x1 and grown.y <= y < grown.y1 and draw(st.booleans()):
                prob = draw(st.sampled_from([0.4, 0.6, 0.9]))
                rows.append((tile.index, prob, disc(x + draw(st.integers(-2, 2)), y, draw(st.integers(3, 11)))))
    return table(*sorted(rows, key=lambda row: row[0]))


@given(columns_of_nuclei(), st.integers(1, 4))
def test_rows_of_tiles_are_merged_one_by_one_as_all_at_once(candidates, size):
    shards = [candidates.iloc[first : first + size] for first in range(0, max(1, len(candidates)), size)]
    parts = list(merge_rows(tile_rows(shards, TALL), TALL, margin_px=6.0))
    whole = merge(candidates, TALL)
    streamed = gpd.GeoDataFrame(pd.concat([part.nuclei for part in parts], ignore_index=True))
    pd.testing.assert_frame_equal(pd.DataFrame(streamed), pd.DataFrame(whole))
    for part, later in pairwise(parts):
        assert not len(later.nuclei) or later.nuclei.bounds["miny"].min() >= part.settled_px


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    truth = make_slide(tmp_path_factory.mktemp("small") / "small.tif", size_px=(640, 512), seed=2, discs_per_kind=1)
    with open_slide(truth.path, slide_id="small") as opened:
        pixels = opened.read(Window(0, 0, 640, 512), 0.5)
    return truth, lambda: ArraySlide(pixels, mpp=0.5, slide_id="small")


@pytest.mark.parametrize(
    "look",
    [Look(step=64), Look(step=128), Look(step=256), Look(step=1024), Look(step=128, offset=(37, 101))],
    ids=lambda look: f"{look.step}-{look.offset}",
)
def test_the_grid_does_not_show_in_the_nuclei(slide, look):
    truth, reader = slide
    grid, predictions = predict_all(reader, OracleRuntime(), look)
    found = merged(grid, predictions)
    assert len(found) == len(truth.nuclei)
    assert found["class_id"].value_counts().to_dict() == truth.nuclei["class_id"].value_counts().to_dict()
    tree = shapely.STRtree(found.geometry.to_numpy())
    left, right = tree.query(found.geometry.to_numpy(), predicate="intersects")
    assert (left == right).all(), "the true nuclei do not touch"
