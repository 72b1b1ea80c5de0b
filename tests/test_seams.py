"""The grid does not show: other steps, and grids shifted by about a third of a step, give the same slide."""

from itertools import combinations

import numpy as np
import pytest
import shapely
from bench.seams import Looker, compare
from oracle import OracleRuntime

from pathopan.datasets.synthetic import make_slide
from pathopan.geometry import Window
from pathopan.inference.runtime import open_runtime
from pathopan.network.bundle import DEFAULT_BUNDLE, load_bundle, read_bundle
from pathopan.slide import ArraySlide, open_slide


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return make_slide(tmp_path_factory.mktemp("seams") / "truth.tif", size_px=(1536, 1280), discs_per_kind=2)


@pytest.fixture(scope="module")
def synthetic(truth):
    looker = Looker(
        lambda: open_slide(truth.path, slide_id="truth"), read_bundle(DEFAULT_BUNDLE), lambda _bundle: OracleRuntime()
    )
    return {
        grid: looker.look(step=grid[0], halo=64, offset=grid[1])
        for grid in [(256, 0), (256, 96), (512, 160), (1024, 0)]
    }


def test_on_a_synthetic_slide_no_grid_shows(synthetic, truth):
    for first, second in combinations(synthetic.values(), 2):
        found = compare(first, second)
        assert found["nuclei_percent"] == 0
        assert found["region_percent"] < 0.01
        assert found["density_percent"] < 0.1
    assert {len(seen.nuclei) for seen in synthetic.values()} == {len(truth.nuclei)}
    assert max(seen.worst_overlap for seen in synthetic.values()) == 0


def test_a_nucleus_on_a_corner_of_four_tiles_appears_once(synthetic):
    seen = synthetic[256, 0]
    corners = [shapely.Point(x, y) for x in range(256, 1536, 256) for y in range(256, 1280, 256)]
    on_corner = [int(seen.nuclei.geometry.distance(corner).lt(12).sum()) for corner in corners]
    whole = synthetic[1024, 0].nuclei.geometry
    assert on_corner == [int(whole.distance(corner).lt(12).sum()) for corner in corners]
    assert sum(on_corner) > 3


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(280)
def test_on_a_real_slide_the_network_s_grid_hardly_shows(shared_data):
    """A part of the demo slide, by the bundle that ships, on its own halo."""
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs", slide_id="cmu") as slide:
        pixels = slide.read(Window(600, 900, 1024, 1024), 0.5)
    description, net = load_bundle(DEFAULT_BUNDLE)
    looker = Looker(
        lambda: ArraySlide(pixels, mpp=0.5, slide_id="part"),
        description,
        lambda bundle: open_runtime(net, bundle, device="cpu", precision="float32"),
        everywhere=True,
    )
    halo = description.halo
    one, *others = (looker.look(step, halo, offset) for step, offset in [(1024, 0), (512, 0), (512, 160)])
    for other in others:
        found = compare(one, other)
        assert found["nuclei_percent"] < 0.5
        assert found["region_percent"] < 0.3
        assert found["pooled_density_percent"] < 1
        assert other.worst_overlap <= 0.3
    assert np.isin(np.unique(one.region), [kind.id for kind in description.taxonomy.regions]).all()
