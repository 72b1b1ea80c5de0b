import numpy as np
import pytest

from pathopan.geometry import Grid
from pathopan.stitcher.audit import audit_seams

# 1 um/px; one seam along x at 100 px and one along y at 100 px; a band of 10 um on either side.
GRID = Grid(mpp=1.0, step=100, halo=10, size=(200, 200), scale_l0=(1, 1))
BAND_UM2 = 200 * 20 * 2 - 20 * 20
ALL = np.ones((200, 200), bool)


def lattice(step: float = 2.0) -> np.ndarray:
    x, y = np.meshgrid(np.arange(step / 2, 200, step), np.arange(step / 2, 200, step))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def audit(points, analysed=ALL, grid=GRID, mpp=1.0, band=10.0):
    return audit_seams(np.asarray(points, float).reshape(-1, 2), analysed, grid, analysed_mpp=mpp, band_um=band)


def in_band(points: np.ndarray) -> np.ndarray:
    return (np.abs(points - 100) < 10).any(axis=1)


def test_an_even_lattice_shows_no_grid():
    found = audit(lattice())
    assert found.ratio == pytest.approx(1.0)
    assert found.area_seam_mm2 == pytest.approx(BAND_UM2 / 1e6)
    assert found.area_seam_mm2 + found.area_elsewhere_mm2 == pytest.approx(200 * 200 / 1e6)
    assert found.n_seam + found.n_elsewhere == 10_000


def test_nuclei_lost_at_seams_show():
    points = lattice()
    rows = np.flatnonzero(in_band(points))
    assert audit(np.delete(points, rows[::2], axis=0)).ratio == pytest.approx(0.5, abs=0.01)


def test_nuclei_doubled_at_seams_show():
    points = lattice()
    assert audit(np.concatenate([points, points[in_band(points)]])).ratio == pytest.approx(2.0)


def test_only_analysed_tissue_counts():
    analysed = ALL.copy()
    analysed[:, 100:] = False
    points = lattice()
    assert audit(points[points[:, 0] < 100], analysed).ratio == pytest.approx(1.0)


@pytest.mark.parametrize("mpp", [2.0, 5.0])
def test_a_coarser_map_gives_the_same(mpp):
    side = round(200 / mpp)
    assert audit(lattice(), np.ones((side, side), bool), mpp=mpp).ratio == pytest.approx(1.0)


def test_a_shifted_grid_has_its_seams_elsewhere():
    shifted = Grid(mpp=1.0, step=100, halo=10, size=(200, 200), scale_l0=(1, 1), offset=(30, 30))
    found = audit([(70, 50), (170, 50), (100, 50)], grid=shifted)
    assert (found.n_seam, found.n_elsewhere) == (2, 1)


def test_the_slides_border_is_no_seam():
    found = audit([(1, 50), (199, 50), (50, 1), (50, 199)])
    assert (found.n_seam, found.n_elsewhere) == (0, 4)


@pytest.mark.parametrize(
    ("points", "analysed", "step"),
    [([], ALL, 100), ([(50, 50)], ~ALL, 100), ([(50, 50)], ALL, 400), ([(100, 100)], ALL, 100)],
    ids=["no nuclei", "no tissue", "no seam", "none elsewhere"],
)
def test_what_cannot_be_compared_has_no_ratio(points, analysed, step):
    grid = Grid(mpp=1.0, step=step, halo=10, size=(200, 200), scale_l0=(1, 1))
    assert audit(points, analysed, grid).ratio is None


def test_the_record_can_be_stored():
    assert audit(lattice()).to_dict()["band_um"] == 10.0
