import numpy as np
import pytest

from pathopan.geometry import Grid
from pathopan.stitcher.audit import SeamCounter

# 1 um/px; one seam along x at 100 px and one along y at 100 px; a band of 10 um on either side.
GRID = Grid(mpp=1.0, step=100, halo=10, size=(200, 200), scale_l0=(1, 1))
ALL = np.ones((200, 200), bool)


def lattice(step: float = 2.0) -> np.ndarray:
    x, y = np.meshgrid(np.arange(step / 2, 200, step), np.arange(step / 2, 200, step))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def audit(points, analysed=ALL, grid=GRID, mpp=1.0, band=10.0):
    counter = SeamCounter(grid, band_um=band)
    counter.add(np.asarray(points, float).reshape(-1, 2))
    return counter.result(analysed, mpp)


def in_band(points: np.ndarray) -> np.ndarray:
    return (np.abs(points - 100) < 10).any(axis=1)


def test_an_even_lattice_shows_no_grid():
    found = audit(lattice())
    assert found.ratio == pytest.approx(1.0)
    assert found.area_seam_mm2 == pytest.approx(2 * 200 * 20 / 1e6), "of the seam across x, and of that across y"
    assert found.area_elsewhere_mm2 == pytest.approx(3.2 * found.area_seam_mm2), "32 um on either side of each"
    assert (found.n_seam, found.n_elsewhere) == (2000, 6400)


def test_nuclei_lost_at_seams_show():
    points = lattice()
    rows = np.flatnonzero(in_band(points))
    assert audit(np.delete(points, rows[::2], axis=0)).ratio == pytest.approx(0.5, abs=0.05)


def test_nuclei_doubled_at_seams_show():
    points = lattice()
    assert audit(np.concatenate([points, points[in_band(points)]])).ratio > 1.7


def test_only_analysed_tissue_counts():
    analysed = ALL.copy()
    analysed[:, 100:] = False
    points = lattice()
    assert audit(points[points[:, 0] < 100], analysed).ratio == pytest.approx(1.0)


@pytest.mark.parametrize("mpp", [1.0, 2.0])
def test_a_coarser_map_gives_the_same(mpp):
    side = round(200 / mpp)
    assert audit(lattice(), np.ones((side, side), bool), mpp=mpp).ratio == pytest.approx(1.0)


def test_a_shifted_grid_has_its_seams_elsewhere():
    shifted = Grid(mpp=1.0, step=100, halo=10, size=(200, 200), scale_l0=(1, 1), offset=(30, 30))
    found = audit([(70, 20), (170, 20), (85, 20), (120, 20)], grid=shifted)
    assert (found.n_seam, found.n_elsewhere) == (2, 1)


def test_the_slides_border_is_no_seam():
    found = audit([(1, 50), (199, 50), (50, 1), (50, 199)])
    assert (found.n_seam, found.n_elsewhere) == (0, 0)


@pytest.mark.parametrize(
    ("points", "analysed", "step"),
    [([], ALL, 100), ([(50, 50)], ~ALL, 100), ([(50, 50)], ALL, 400), ([(100, 50)], ALL, 100)],
    ids=["no nuclei", "no tissue", "no seam", "none beside it"],
)
def test_what_cannot_be_compared_has_no_ratio(points, analysed, step):
    grid = Grid(mpp=1.0, step=step, halo=10, size=(200, 200), scale_l0=(1, 1))
    assert audit(points, analysed, grid).ratio is None


def test_the_record_can_be_stored():
    assert audit(lattice()).to_dict()["band_um"] == 10.0


def test_tissue_that_changes_from_place_to_place_does_not_look_like_a_seam():
    """Dense tissue happens to lie away from the seams: over the whole slide the densities differ twofold."""
    grid = Grid(mpp=1.0, step=200, halo=10, size=(1000, 1000), scale_l0=(1, 1))
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1000, (40_000, 2))
    away = np.abs((points + 100) % 200 - 100).min(axis=1)
    thinned = points[rng.random(len(points)) < 0.5 + 0.5 * np.clip((away - 40) / 40, 0, 1)]
    found = audit(thinned, np.ones((1000, 1000), bool), grid)
    assert found.ratio_low < 1 < found.ratio_high
    assert found.ratio == pytest.approx(1, abs=0.04)


def test_the_interval_holds_one_where_the_grid_does_not_show_and_leaves_it_where_it_does():
    grid = Grid(mpp=1.0, step=100, halo=10, size=(800, 800), scale_l0=(1, 1))
    everywhere, rng = np.ones((800, 800), bool), np.random.default_rng(1)
    points = rng.uniform(0, 800, (30_000, 2))
    even = audit(points, everywhere, grid)
    near = (np.abs((points + 50) % 100 - 50) < 10).any(axis=1)
    lost = audit(points[~near | (rng.random(len(points)) < 0.8)], everywhere, grid)
    assert even.ratio_low < 1 < even.ratio_high < 1.08
    assert lost.ratio_high < 0.95


def test_parts_may_be_counted_one_after_the_other():
    points, counter = lattice(), SeamCounter(GRID, band_um=10.0)
    for part in np.array_split(points, 7):
        counter.add(part)
    assert counter.result(ALL, 1.0) == audit(points)
