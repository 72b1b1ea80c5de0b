"""The figures: what stands on the axes is what the tables say."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import pathopan
from pathopan.classes import BREAST
from pathopan.errors import MissingExtra, SchemaError, ShapeMismatch
from pathopan.result import open_result

mpl.use("Agg")


@pytest.fixture(scope="module")
def slide(results_folder):
    return open_result(results_folder).slide("A")


@pytest.fixture(autouse=True)
def closed():
    from matplotlib import pyplot

    yield
    pyplot.close("all")


def labels(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_an_overlay_lies_on_its_micrometres_and_names_its_colors(slide):
    axis = pathopan.plot.overlay(slide, (200, 200, 300, 280), mpp=0.5)
    assert axis.images[0].get_array().shape == (160, 200, 3)
    assert axis.images[0].get_extent() == [200, 300, 280, 200]
    assert axis.get_xlabel() == "µm"
    assert labels(axis) == [kind.name for kind in (*BREAST.regions[:4], *BREAST.nuclei)]
    assert pathopan.plot.overlay(slide, layers=()).get_legend() is None


def test_a_given_axis_is_drawn_on(slide):
    from matplotlib import pyplot

    _, axes = pyplot.subplots(1, 2)
    assert pathopan.plot.overlay(slide, axis=axes[1]) is axes[1]
    assert not axes[0].images


def test_density_is_high_where_tils_are(slide):
    axis = pathopan.plot.density(slide, sigma_um=30)
    per_mm2 = axis.images[1].get_array().filled(np.nan)
    assert per_mm2[375, 725] > 3 * per_mm2[375, 300] > 0
    assert np.isnan(per_mm2[20, 20])


def test_bands_show_the_bed_and_each_width(slide):
    told = labels(pathopan.plot.bands(slide))
    assert told[0].startswith("tumor core, > 50 µm")
    assert told[-1] == "border of the tumor bed"


def test_regions_are_ordered_by_density_with_their_intervals(slide):
    axis = pathopan.plot.region_densities(slide)
    table = slide.regions.sort_values("til_density_per_mm2")
    assert [bar.get_width() for bar in axis.patches] == pytest.approx(table["til_density_per_mm2"].tolist())
    assert [text.get_text().split(" (")[0] for text in axis.get_yticklabels()] == [
        f"{name} {number}" for name, number in zip(table["class"], table["region_id"], strict=True)
    ]


def test_a_distribution_leaves_empty_scores_out_and_says_so():
    scores = pd.DataFrame(
        {
            "stil_percent": [5.0, np.nan, 1.0, 9.0],
            "stil_percent_ci_low": [4.0, np.nan, np.nan, 8.0],
            "stil_percent_ci_high": [6.0, np.nan, np.nan, 10.0],
            "phenotype": ["desert", None, "desert", "inflamed"],
        }
    )
    axis = pathopan.plot.distribution(scores, by="phenotype")
    assert axis.get_title() == "3 of 4 slides have it"
    assert labels(axis) == ["desert (2)", "inflamed (1)", "median 5"]
    assert axis.lines[0].get_xydata().tolist() == [[1, 1], [2, 5]]
    with pytest.raises(SchemaError, match="no column 'x'"):
        pathopan.plot.distribution(scores, "x")


def test_a_distribution_takes_the_result_itself(results_folder):
    assert pathopan.plot.distribution(pathopan.open_result(results_folder)).get_title() == "2 of 3 slides have it"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_survival_counts_those_at_risk():
    years, event = [1.0, 2, 3, 4, 1, 2, 3, 10], [1, 1, 1, 0, 0, 0, 0, 0]
    axis = pathopan.plot.survival(years, event, ["low"] * 4 + ["high"] * 4)
    assert labels(axis)[0] == "low (4, 3 events)"
    texts = [text.get_text() for text in axis.texts]
    assert texts[:6] == ["4", "3", "1", "0", "0", "0"]
    assert axis.get_legend().get_title().get_text().startswith("log-rank p = 0.")
    assert pathopan.plot.survival(years, event, ["all"] * 8, ticks=[0, 4]).get_xlim() == (0, 4)
    with pytest.raises(ShapeMismatch, match="found 2, 1 and 2"):
        pathopan.plot.survival([1, 2], [1], ["a", "b"])


def test_without_matplotlib_it_says_what_to_install(slide, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'pathopan\[notebook\]'"):
        pathopan.plot.overlay(slide)
