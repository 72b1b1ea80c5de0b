import threading
import time

import numpy as np
import pytest
from oracle import Look, OracleRuntime, decode_task, merged, predict_all, region_plane

from pathopan.classes import BREAST
from pathopan.datasets.synthetic import COLORS, make_slide
from pathopan.errors import UnreadableSlide
from pathopan.geometry import Window
from pathopan.inference.predict import predict_tiles
from pathopan.inference.runtime import TileMaps
from pathopan.slide import ArraySlide, open_slide
from pathopan.slide.stain import hematoxylin_density
from pathopan.tiler.tissue import TissueMask


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return make_slide(tmp_path_factory.mktemp("small") / "small.tif", size_px=(640, 512), seed=1, discs_per_kind=1)


@pytest.fixture(scope="module")
def reader(truth):
    with open_slide(truth.path, slide_id="small") as slide:
        pixels = slide.read(Window(0, 0, 640, 512), 0.5)
    return lambda: ArraySlide(pixels, mpp=0.5, slide_id="small")


@pytest.fixture(scope="module")
def serial(reader):
    return predict_all(reader, OracleRuntime(), Look())


def home(found, truth):
    """The region that holds each centroid."""
    return truth.region[found.geometry.centroid.y.astype(int), found.geometry.centroid.x.astype(int)]


class Watched:
    """A slide that tells how it is used."""

    def __init__(self, inner: ArraySlide, log: list, fail_at: int | None = None) -> None:
        self._inner, self._log, self._fail_at = inner, log, fail_at
        self.thread, self.closed = threading.get_ident(), False
        log.append(self)
        self.info = inner.info

    def read(self, window: Window, mpp: float):
        time.sleep(0.01)
        assert not self.closed, "read after it was closed"
        assert self.thread == threading.get_ident(), "shared between threads"
        if self._fail_at is not None and window.x >= self._fail_at:
            raise UnreadableSlide(f"damaged at {window.x}")
        return self._inner.read(window, mpp)

    def close(self) -> None:
        self.closed = True


def test_regions_are_the_truth(serial, truth):
    plane = region_plane(*serial)
    agree = plane == truth.region
    assert agree.mean() > 0.999
    assert (plane > 0).all()


def test_every_nucleus_is_found_once_with_its_class(serial, truth):
    found = merged(*serial)
    assert len(found) == len(truth.nuclei)
    centre = np.stack([found.geometry.centroid.x, found.geometry.centroid.y], axis=1) * 0.5
    known = truth.nuclei[["x_um", "y_um"]].to_numpy()
    distance = np.linalg.norm(centre[:, None] - known[None], axis=2)
    nearest = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 0.5
    assert (found["class_id"].to_numpy() == truth.nuclei["class_id"].to_numpy()[nearest]).all()


def test_a_nucleus_carries_what_its_pixels_say(serial, truth):
    found = merged(*serial)
    probs = found[[f"prob_{kind.name}" for kind in BREAST.nuclei]].to_numpy()
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    assert (found["prob"] > 0.8).all()
    color = np.array([COLORS[c, r] for c, r in zip(found["class_id"], home(found, truth), strict=True)], np.uint8)
    np.testing.assert_allclose(found["hematoxylin_mean"], hematoxylin_density(color), atol=0.15)
    area = found.geometry.area.to_numpy() * 0.25
    radius = {kind: rows["radius_um"].iloc[0] for kind, rows in truth.nuclei.groupby("class_id")}
    expected = np.array([np.pi * radius[kind] ** 2 for kind in found["class_id"]])
    assert (np.abs(area / expected - 1) < 0.1).all()


class Unsure(OracleRuntime):
    """Says 0.6 where the truth is 1."""

    def _look(self, image):
        maps = super()._look(image)
        return maps._replace(shape=maps.shape * np.float32([1, 0.6, 1, 1])[:, None, None])


def test_outlines_run_between_pixels_where_the_foreground_says_so(reader, serial):
    def radii(found):
        return np.sort(np.sqrt(found.geometry.area.to_numpy() / np.pi))

    found = radii(merged(*predict_all(reader, Unsure(), Look())))
    # From 0.6 to 0 the level of 0.5 is passed a sixth of a pixel from the centre inside, from 1 to 0 half of one.
    np.testing.assert_allclose(radii(merged(*serial)) - found, 1 / 2 - 1 / 6, atol=0.07)


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 4), (2, 1), (2, 4), (3, 2)])
def test_workers_and_batches_change_nothing(reader, serial, workers, batch_size):
    _, expected = serial
    _, found = predict_all(reader, OracleRuntime(), Look(workers=workers, batch_size=batch_size))
    assert [p.tile for p in found] == [p.tile for p in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.region, other.region)
        assert one.nuclei.equals(other.nuclei)


class Middle(OracleRuntime):
    """Answers for the middle of the read window only."""

    def _look(self, image):
        return TileMaps(*(part[..., 10:-10, 10:-10] for part in super()._look(image)))


def test_maps_of_the_middle_of_the_read_window_are_enough(reader, serial):
    _, found = predict_all(reader, Middle(), Look())
    for one, other in zip(found, serial[1], strict=True):
        np.testing.assert_array_equal(one.region, other.region)
        assert one.nuclei.drop(columns="geometry").equals(other.nuclei.drop(columns="geometry"))
        assert one.nuclei.geom_equals_exact(other.nuclei.geometry, 1e-6).all()


def test_each_thread_has_a_handle_of_its_own_and_all_are_closed(reader):
    opened = []
    grid = Look(step=128).grid(reader())
    tiles = predict_tiles(lambda: Watched(reader(), opened), OracleRuntime(), grid, task=decode_task(grid), workers=2)
    assert len(list(tiles)) == len(grid)
    assert len(opened) == 2
    assert all(slide.closed for slide in opened)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_damaged_window_surfaces_at_its_tile(reader, workers):
    opened = []
    grid = Look(step=128).grid(reader())
    tiles = predict_tiles(
        lambda: Watched(reader(), opened, fail_at=300), OracleRuntime(), grid, task=decode_task(grid), workers=workers
    )
    whole = [tile.index for tile in grid if tile.read.x < 300 and tile.index < grid.shape[1]]
    assert [next(tiles).tile.index for _ in whole] == whole
    with pytest.raises(UnreadableSlide, match="damaged at"):
        next(tiles)
    assert all(slide.closed for slide in opened)


class Broken(OracleRuntime):
    """Fails after a few tiles, while readers are at work."""

    def run(self, image_BHW3):
        raise RuntimeError("out of memory")


def test_no_slide_is_read_after_an_error_closed_it(reader):
    opened, late = [], []

    class Late(Watched):
        def read(self, window, mpp):
            time.sleep(0.05)
            if self.closed:
                late.append(window)
            return self._inner.read(window, mpp)

    grid = Look(step=64).grid(reader())
    tiles = predict_tiles(lambda: Late(reader(), opened), Broken(), grid, task=decode_task(grid), workers=3)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="out of memory"):
        next(tiles)
    assert threading.active_count() == before, "threads are still at work"
    assert all(slide.closed for slide in opened)
    assert not late


def test_stopping_early_closes_everything(reader):
    opened = []
    grid = Look(step=128).grid(reader())
    before = threading.active_count()
    tiles = predict_tiles(lambda: Watched(reader(), opened), OracleRuntime(), grid, task=decode_task(grid), workers=2)
    next(tiles)
    tiles.close()
    assert threading.active_count() == before
    assert opened
    assert all(slide.closed for slide in opened)


def test_no_tiles(reader):
    grid = Look().grid(reader())
    assert list(predict_tiles(reader, OracleRuntime(), [], task=decode_task(grid), workers=2)) == []


def test_outside_tissue_nothing_is_said(reader):
    grid = Look().grid(reader())
    left_half = TissueMask(np.array([[True, False]] * 2), mpp=160.0)
    predictions = list(predict_tiles(reader, OracleRuntime(), grid, task=decode_task(grid, left_half), workers=0))
    plane = region_plane(grid, predictions)
    assert (plane[:, :320] > 0).all()
    assert (plane[:, 320:] == 0).all()
    found = merged(grid, predictions)
    assert len(found) > 0
    assert (found.geometry.centroid.x < 320).all()


def test_without_a_mask_pixel_there_is_no_tissue(reader):
    grid = Look().grid(reader())
    empty = TissueMask(np.zeros((0, 0), dtype=bool), mpp=8.0)
    predictions = list(predict_tiles(reader, OracleRuntime(), grid, task=decode_task(grid, empty), workers=0))
    assert not region_plane(grid, predictions).any()
    assert all(len(p.nuclei) == 0 for p in predictions)


class Nothing(OracleRuntime):
    """Sees stroma, and no nucleus."""

    def _look(self, image):
        shape = np.zeros((4, *image.shape[:2]), np.float32)
        return TileMaps(np.ones(image.shape[:2], np.uint8), np.zeros((4, *image.shape[:2]), np.float32), shape)


def test_tiles_without_nuclei_have_empty_tables_of_the_same_columns(reader, serial):
    grid, predictions = predict_all(reader, Nothing(), Look())
    seen = set(np.unique(region_plane(grid, predictions)))
    assert seen <= {BREAST.region("stroma").id, BREAST.region("background").id}
    empty, full = predictions[0].nuclei, next(p.nuclei for p in serial[1] if len(p.nuclei))
    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)
    assert [str(t) for t in empty.dtypes] == [str(t) for t in full.dtypes]


def test_bare_glass_is_the_same_wherever_the_grid_begins():
    """Cells that glass is judged in lie on a lattice of the slide: an odd shift of the grid must not move them."""
    image = np.random.default_rng(0).integers(120, 200, (300, 300, 3), dtype=np.uint8)
    image[100:181, 91:170] = 245
    slide = ArraySlide(image, mpp=0.5, slide_id="gap")
    looks = (Look(step=128, offset=offset) for offset in ((0, 0), (7, 13)))
    first, shifted = (region_plane(*predict_all(lambda: slide, Nothing(), look)) for look in looks)
    assert (first == BREAST.region("background").id).sum() > 4_000
    np.testing.assert_array_equal(first, shifted)
