import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import grids

from pathopan.classes import BREAST
from pathopan.contours import paint
from pathopan.geometry import Grid, Window
from pathopan.stitcher import store
from pathopan.stitcher.ngff import open_panoptic
from pathopan.stitcher.nuclei import MergedNuclei
from pathopan.stitcher.store import Found, blocks, region_map, write_panoptic

PICTURE = (np.full((4, 4, 3), 200, np.uint8), 8.0)


def nuclei(*polygons: shapely.Polygon) -> gpd.GeoDataFrame:
    ids = np.arange(1, len(polygons) + 1, dtype=np.int64)
    return gpd.GeoDataFrame({"nucleus_id": ids}, geometry=gpd.GeoSeries(list(polygons), crs=None), crs=None)


def cut(plane: np.ndarray, grid: Grid) -> list[tuple[int, np.ndarray]]:
    """What each tile would say of a region map: its write window, with rubbish where it reaches over the border."""
    tiles = []
    for tile in grid:
        region = np.full((grid.step, grid.step), 255, np.uint8)
        inside = tile.write.intersect(grid.plane)
        region[inside.relative_to(tile.write).slices] = plane[inside.slices]
        tiles.append((tile.index, region))
    return tiles


def stitch(path, grid, regions, found=None, *, workers=0):
    parts = [MergedNuclei(nuclei() if found is None else found, np.inf)]
    write_panoptic(path, Found(regions, parts), grid=grid, taxonomy=BREAST, picture=PICTURE, workers=workers)
    return open_panoptic(path)


@settings(max_examples=15)
@given(grids(max_side=60), st.data())
def test_stitching_what_was_cut_gives_it_back(tmp_path_factory, grid, data):
    if 0 in grid.size:
        return
    plane = data.draw(hnp.arrays(np.uint8, grid.size[::-1], elements=st.integers(0, 5)))
    tiles = data.draw(st.permutations(cut(plane, grid)))
    arrays = stitch(tmp_path_factory.mktemp("s") / "panoptic.ome.zarr", grid, tiles)
    np.testing.assert_array_equal(arrays.regions[0][:], plane)


GRID = Grid(mpp=0.5, step=32, halo=8, size=(96, 64), scale_l0=(1, 1))


def test_tiles_that_were_not_looked_at_stay_unanalysed(tmp_path):
    arrays = stitch(tmp_path / "p", GRID, [(1, np.full((32, 32), 2, np.uint8))])
    plane = arrays.regions[0][:]
    assert (plane[:32, 32:64] == 2).all()
    assert plane.sum() == 2 * 32 * 32


def test_the_instance_map_holds_the_rows_of_the_table(tmp_path):
    found = nuclei(shapely.box(3, 4, 9, 8), shapely.box(40, 40, 50, 44))
    plane = stitch(tmp_path / "p", GRID, [], found).nuclei[0][:]
    assert plane.dtype == np.uint32
    assert (plane[4:8, 3:9] == 1).all()
    assert (plane[40:44, 40:50] == 2).all()
    assert (plane > 0).sum() == 24 + 40


def test_where_two_touch_the_lower_id_keeps_the_pixel(tmp_path):
    plane = stitch(tmp_path / "p", GRID, [], nuclei(shapely.box(0, 0, 6, 1), shapely.box(4, 0, 9, 1))).nuclei[0][:]
    assert plane[0, :10].tolist() == [1] * 6 + [2] * 3 + [0]


@pytest.mark.parametrize("parts", [1, 4])
def test_painting_in_strips_and_parts_changes_nothing(tmp_path, monkeypatch, parts):
    rng = np.random.default_rng(0)
    found = nuclei(*(shapely.Point(x, y).buffer(5) for x, y in sorted(rng.uniform(0, 60, (30, 2)), key=lambda p: p[1])))
    monkeypatch.setattr(store, "_STRIP", 16)
    cuts = np.array_split(np.arange(len(found)), parts)
    settled = [*(found.geometry.iloc[rows[0]].bounds[1] for rows in cuts[1:]), np.inf]
    streamed = [MergedNuclei(found.iloc[rows], y) for rows, y in zip(cuts, settled, strict=True)]
    write_panoptic(tmp_path / "p", Found([], streamed), grid=GRID, taxonomy=BREAST, picture=PICTURE)
    plane = open_panoptic(tmp_path / "p").nuclei[0][:]
    whole = paint(zip(found.geometry, found["nucleus_id"].tolist(), strict=True), shape=(64, 96))
    np.testing.assert_array_equal(plane, whole)


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_no_byte(tmp_path, workers):
    grid = Grid(mpp=0.5, step=320, halo=8, size=(1300, 2100), scale_l0=(1, 1))  # tiles that share chunks
    rng = np.random.default_rng(0)
    places = sorted(rng.uniform(0, [1300, 2100], (400, 2)).tolist(), key=lambda place: place[1])
    found = nuclei(*(shapely.Point(x, y).buffer(12) for x, y in places))
    tiles = cut(rng.integers(0, 6, grid.size[::-1], dtype=np.uint8), grid)
    for number in (0, workers):
        stitch(tmp_path / str(number), grid, tiles, found, workers=number)
    names = [p.relative_to(tmp_path / "0") for p in (tmp_path / "0").rglob("*") if p.is_file()]
    assert len(names) == len([p for p in (tmp_path / str(workers)).rglob("*") if p.is_file()])
    for name in names:
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / str(workers) / name).read_bytes()


def test_a_strip_that_cannot_be_painted_fails_the_slide(tmp_path, monkeypatch):
    def fails(*_shapes, **_options):
        raise OSError("disk full")

    monkeypatch.setattr(store, "paint_nuclei", fails)
    with pytest.raises(OSError, match="disk full"):
        stitch(tmp_path / "p", GRID, [], nuclei(shapely.box(3, 4, 9, 8)), workers=2)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_older_one(tmp_path):
    def broken():
        yield 0, np.ones((32, 32), np.uint8)
        raise KeyboardInterrupt

    stitch(tmp_path / "p", GRID, [(0, np.full((32, 32), 3, np.uint8))])
    with pytest.raises(KeyboardInterrupt):
        stitch(tmp_path / "p", GRID, broken())
    assert (open_panoptic(tmp_path / "p").regions[0][:32, :32] == 3).all()
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20))
def test_blocks_cover_the_plane_once(width, height, side):
    count = np.zeros((height, width), int)
    for block in blocks(Window(0, 0, width, height), side):
        count[block.slices] += 1
    assert (count == 1).all()


def test_a_coarse_region_map_keeps_its_mpp_and_its_classes(tmp_path):
    plane = np.ones((64, 96), np.uint8)
    plane[:, 48:] = 3
    arrays = stitch(tmp_path / "p", GRID, cut(plane, GRID))
    for asked, mpp, shape in [(0.5, 0.5, (64, 96)), (2.0, 2.0, (16, 24)), (3.0, 4.0, (8, 12)), (0.1, 0.5, (64, 96))]:
        found, found_mpp = region_map(arrays, asked)
        assert (found_mpp, found.shape) == (mpp, shape)
        assert (found[:, : shape[1] // 2] == 1).all()
        assert (found[:, shape[1] // 2 :] == 3).all()
