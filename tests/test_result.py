import json
import shutil

import numpy as np
import pytest
from results_made_up import IMAGE_MPP, LABEL_MPP, region_map

from pathopan.errors import ResultError
from pathopan.result import open_result


@pytest.fixture
def copied(results_folder, tmp_path):
    return shutil.copytree(results_folder, tmp_path / "copy")


def test_tables_are_there(results_folder):
    result = open_result(results_folder)
    assert result.scores["slide_id"].tolist() == ["A", "B", "C"]
    assert set(result.regions["slide_id"]) == {"A", "B"}
    assert result.failures["remedy"].tolist() == ["pass --slide-mpp"]
    assert result.run["command"] == "pathopan run"
    assert [slide.slide_id for slide in result] == result.slide_ids == ["A", "B"]
    assert len(result) == 2


def test_a_run_without_failures_has_an_empty_table(copied):
    (copied / "failures.csv").unlink()
    failures = open_result(copied).failures
    assert (len(failures), list(failures)) == (0, ["slide_id", "path", "stage", "error", "message", "remedy"])


def test_a_slides_tables_maps_and_picture(results_folder):
    slide = open_result(results_folder).slide("B")
    assert slide.score["reasons"] == {"itil_per_mm2": "too little tumor"}
    assert slide.regions["class"].tolist() == ["tumor", "stroma", "tils"]
    assert (slide.panoptic.region[:] == region_map()).all()
    assert slide.panoptic.mpp == LABEL_MPP
    ids = np.unique(slide.panoptic.nucleus[:])
    assert ids[1:].tolist() == slide.nuclei["nucleus_id"].tolist()
    image, mpp = slide.thumbnail()
    assert (image.shape, mpp) == ((96, 128, 3), IMAGE_MPP)


def test_a_window_holds_its_nuclei_only(results_folder):
    slide = open_result(results_folder).slide("A")
    found = slide.nuclei_in((100, 100, 152, 122))
    assert found["x_um"].tolist() == [110, 130, 150]


@pytest.mark.parametrize("mpp", [0.5, 1.0, 2.0, 3.0])
def test_the_region_map_is_cut_at_any_mpp(results_folder, mpp):
    slide = open_result(results_folder).slide("A")
    found = slide.region_map((-60, 90, 240, 330), mpp)
    assert found.shape == (round(330 / mpp) - round(90 / mpp), round(240 / mpp) - round(-60 / mpp))
    y, x = (
        np.floor((start + np.arange(n) + 0.5) * mpp).astype(int)
        for start, n in zip((round(90 / mpp), round(-60 / mpp)), found.shape, strict=True)
    )
    expected = np.where(x >= 0, region_map()[np.ix_(y, np.maximum(x, 0))], 0)
    assert (found == expected).mean() > 0.97


def test_the_picture_comes_from_the_slide_or_from_the_store(results_folder):
    result = open_result(results_folder)
    bounds = (190.0, 190.0, 290.0, 240.0)
    near, stored = (result.slide(name).picture(bounds, 1.0) for name in "AB")
    assert near.shape == stored.shape == (50, 100, 3)
    assert near[30, 30].tolist() == stored[30, 30].tolist() == [150, 60, 140]
    assert near[7, 50].tolist() == [230, 160, 200]


def test_overlays_color_regions_and_outline_nuclei(results_folder):
    slide = open_result(results_folder).slide("A")
    bounds = (205.0, 205.0, 265.0, 265.0)
    plain = slide.overlay(bounds, mpp=0.5, layers=())
    colored = slide.overlay(bounds, mpp=0.5, layers=("regions",), opacity=1.0)
    outlined = slide.overlay(bounds, mpp=0.5, layers=("nuclei",))
    assert (colored == (200, 0, 0)).all()
    changed = (outlined != plain).any(axis=2)
    middle = [(x - 205) * 2 for x in (210, 230, 250)]
    assert not changed[np.ix_(middle, middle)].any()
    assert changed[middle[1], middle[1] + 7 : middle[1] + 9].any()
    assert slide.overlay().shape == (96, 128, 3)
    assert slide.overlay(mpp=4.0).shape == (192, 256, 3)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: shutil.rmtree(f), "is no folder; give the one that a run wrote"),
        (lambda f: (f / "run.json").unlink(), "run.json is missing; run again"),
        (lambda f: (f / "run.json").write_text("{"), "run.json is damaged"),
        (lambda f: (f / "run.json").write_text("[]"), "holds no JSON object"),
        (lambda f: (f / "run.json").write_text("{}"), "holds no usable taxonomy"),
        (lambda f: (f / "scores.parquet").unlink(), "scores.parquet is missing"),
        (lambda f: (f / "slides/A/nuclei.parquet").unlink(), "nuclei.parquet is missing"),
        (lambda f: (f / "slides/A/score.json").unlink(), "slide 'A' is not complete"),
        (lambda f: (f / "slides/A/record.json").write_text("{}"), "does not say slide.mpp_l0"),
        (lambda f: shutil.rmtree(f / "slides/A/panoptic.ome.zarr"), "no OME-Zarr group"),
    ],
)
def test_what_is_missing_is_told(copied, harm, message):
    harm(copied)
    with pytest.raises(ResultError, match=message):
        open_result(copied).slide("A").overlay((0, 0, 50, 50))


def test_slides_that_are_not_there_are_told(copied):
    result = open_result(copied)
    with pytest.raises(ResultError, match="slide 'C' failed: no mpp; pass --slide-mpp"):
        result.slide("C")
    with pytest.raises(ResultError, match="has no slide 'Z'; it has A, B"):
        result.slide("Z")
    assert json.loads((copied / "run.json").read_text())["pathopan"] == "0.1.0"


def test_nuclei_of_all_slides_are_read_when_asked_for(results_folder):
    result = open_result(results_folder)
    assert list(result.nuclei) == result.slide_ids
    one = result.nuclei[result.slide_ids[0]]
    assert len(one) == len(result.slide(result.slide_ids[0]).nuclei)
    everything = result.nuclei.load()
    assert everything.groupby("slide_id").size().to_dict() == {
        name: len(table) for name, table in result.nuclei.items()
    }
    with pytest.raises(KeyError):
        result.nuclei["no such slide"]


def test_a_notebook_shows_a_line_and_no_dump(results_folder):
    result = open_result(results_folder)
    assert repr(result) == f"Result(path={results_folder!r})"
    slide = next(iter(result))
    assert repr(slide) == f"SlideResult(slide_id={slide.slide_id!r}, path={slide.path!r})"
