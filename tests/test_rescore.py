"""Scores on regions that a pathologist edited: nothing is lost, nothing is silent, and no network is needed."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import shapely
from oracle import OracleRuntime

from pathopan import open_result
from pathopan.batch import RunSettings
from pathopan.classes import BREAST
from pathopan.cohort import write_cohort_tables
from pathopan.config import Config, load_config
from pathopan.console import LineWatcher
from pathopan.edits import Edit, edit_map, read_edit
from pathopan.errors import ConfigError, ResultError
from pathopan.manifest import SlideEntry
from pathopan.objects import Annotation
from pathopan.pipeline import run_cohort
from pathopan.rescore import Given, rescore_run
from pathopan.scores import fit_calibration
from pathopan.verify import verify_run

TUMOR, STROMA, TILS, OTHER, GLASS = 1, 2, 3, 4, 5


@pytest.fixture
def out_with_pages(truth_run, tmp_path):
    shutil.copytree(truth_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def out(out_with_pages, monkeypatch):
    """A run whose pages are not drawn, which takes most of the time and is tested elsewhere."""
    monkeypatch.setattr("pathopan.outputs.slide_page", lambda *_args, **_kwargs: None)
    monkeypatch.setattr("pathopan.outputs.write_slide_report", lambda path, _page: path.write_text("a page"))
    monkeypatch.setattr("pathopan.cohort.cohort_page", lambda *_args, **_kwargs: None)
    monkeypatch.setattr("pathopan.cohort.write_cohort_report", lambda path, _page: path.write_text("a page"))
    return out_with_pages


def slide_of(out):
    return out / "slides" / "S-1"


def score_of(out, name="score.json"):
    return json.loads((slide_of(out) / name).read_text())


def exported(out):
    """Features as the run exported them: what QuPath gives back if nobody touches them."""
    return json.loads((slide_of(out) / "S-1.regions.geojson").read_text())["features"]


def annotation(shape, *, kind=None, name=None):
    """An annotation as QuPath writes one that a person drew."""
    properties = {"objectType": "annotation"}
    if kind:
        properties["classification"] = {"name": kind, "color": [9, 9, 9]}
    if name:
        properties["name"] = name
    return {"type": "Feature", "geometry": shapely.geometry.mapping(shape), "properties": properties}


def save(tmp_path, features, name="edited.geojson"):
    path = tmp_path / name
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def edit(out, tmp_path, features, **options):
    path = save(tmp_path, features)
    return rescore_run(out, Config(), Given(regions=path, **options))


def class_of(feature):
    return feature["properties"]["classification"]["name"]


def test_an_export_that_nobody_touched_changes_nothing(out, tmp_path):
    before = score_of(out)
    lines = edit(out, tmp_path, exported(out))
    after = score_of(out)
    told = after.pop("edit")
    assert after == before == score_of(out, "score.original.json")
    assert told["tissue_in_no_region_mm2"] == 0
    assert all(row["difference"] in (0, None) for row in told["headline"].values())
    assert "S-1\tscore\tnetwork -> edited\tdifference" in lines
    assert sum(line.startswith("S-1\tstil_percent\t") and line.endswith("+0") for line in lines) == 1
    assert verify_run(out) == []


def test_deleted_regions_are_not_scored_and_both_versions_are_kept(out, tmp_path):
    before, features = score_of(out), exported(out)
    nest = min(
        (f for f in features if class_of(f) == "Tumor"), key=lambda f: f["properties"]["measurements"]["Area mm^2"]
    )
    kept = [f for f in features if class_of(f) != "Immune cells" and f is not nest]
    dense = before["compartments"]["stroma_dense"]["area_mm2"]
    gone = dense + nest["properties"]["measurements"]["Area mm^2"]
    lines = edit(out, tmp_path, kept)
    after = score_of(out)
    assert dense > 0 == after["compartments"]["stroma_dense"]["area_mm2"]
    left = after["exclusions"]["other"]["area_mm2"] - before["exclusions"]["other"]["area_mm2"]
    assert left == pytest.approx(gone, rel=1e-5)
    assert after["compartments"]["tissue"]["area_mm2"] == before["compartments"]["tissue"]["area_mm2"]
    assert after["edit"]["tissue_in_no_region_mm2"] == pytest.approx(gone, rel=1e-5)
    assert f"S-1\ttissue in no region of the file, so not scored\t{gone:.4g} mm2" in lines
    assert score_of(out, "score.original.json") == before
    row = after["edit"]["headline"]["stil_percent"]
    assert row["original"] == before["headline"]["stil_percent"]
    assert row["edited"] == after["headline"]["stil_percent"] != row["original"]
    assert row["difference"] == row["edited"] - row["original"]
    assert verify_run(out) == []


def test_the_record_the_tables_and_the_page_say_whose_regions_were_scored(out_with_pages, tmp_path):
    out = out_with_pages
    assert open_result(out).scores["regions_from"].tolist() == ["network"]
    given = len(exported(out)) - 1
    edit(out, tmp_path, exported(out)[1:])
    path = tmp_path / "edited.geojson"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = json.loads((slide_of(out) / "record.json").read_text())
    assert record["regions_edited"]["file"] == str(path)
    assert record["regions_edited"]["sha256"] == digest == score_of(out)["edit"]["sha256"]
    assert sum(record["regions_edited"]["annotations"].values()) == given
    assert [entry["done"] for entry in record["region_edits"]] == ["edited"]
    assert (slide_of(out) / "regions.edited.geojson").read_bytes() == path.read_bytes()
    assert open_result(out).scores["regions_from"].tolist() == ["edited"]
    assert "scored on regions that a person edited" in (slide_of(out) / "report.html").read_text()


def test_reclassified_regions_count_as_what_they_are_now(out, tmp_path):
    before, features = score_of(out)["compartments"], exported(out)
    for feature in features:
        if class_of(feature) == "Tumor":
            feature["properties"]["classification"] = {"name": "Stroma", "color": [1, 2, 3]}
    edit(out, tmp_path, features)
    after = score_of(out)
    whole = before["tumor"]["area_mm2"] + before["stroma"]["area_mm2"]
    assert after["compartments"]["stroma"]["area_mm2"] == pytest.approx(whole)
    assert after["compartments"]["stroma"]["n_til"] == before["tumor"]["n_til"] + before["stroma"]["n_til"]
    assert after["compartments"]["tumor"]["area_mm2"] == 0
    assert after["headline"]["stil_percent"] is None
    assert after["edit"]["headline"]["stil_percent"]["difference"] is None
    assert verify_run(out) == []


@pytest.mark.parametrize(
    "called", [{"kind": "Ignore*"}, {"kind": "Exclude"}, {"name": "exclude"}, {"kind": "Tumor", "name": "Exclude"}]
)
def test_an_exclusion_lies_over_the_networks_regions(out, tmp_path, called):
    before, shape = score_of(out), shapely.box(0, 0, 1024, 1536)  # the left half, 512 x 768 um
    lines = edit(out, tmp_path, [annotation(shape, **called)])
    after = score_of(out)
    out_mm2 = after["exclusions"]["by_hand"]["area_mm2"]
    assert 0 < out_mm2 <= 0.512 * 0.768
    lost = sum(before["compartments"][name]["area_mm2"] - after["compartments"][name]["area_mm2"]
               for name in ("tumor", "stroma", "other"))  # fmt: skip
    assert lost == pytest.approx(out_mm2)
    assert not after["edit"]["replaces_all_regions"]
    assert after["edit"]["n_exclude_annotations"] == 1
    assert any(line.startswith("S-1\tstil_area_mm2\t") for line in lines)
    assert verify_run(out) == []


@pytest.mark.parametrize("called", [{"kind": "Tumor bed"}, {"name": "tumour bed"}])
def test_a_drawn_bed_replaces_the_computed_one(out, tmp_path, called):
    before = score_of(out)["compartments"]
    edit(out, tmp_path, [*exported(out), annotation(shapely.box(-5, -5, 3000, 2000), **called)])
    after = score_of(out)["compartments"]
    assert after["stroma_in_bed"]["area_mm2"] == before["stroma"]["area_mm2"] > before["stroma_in_bed"]["area_mm2"]
    assert after["stroma_outside_bed"]["area_mm2"] == 0
    assert verify_run(out) == []


def test_giving_regions_again_replaces_and_original_returns(out, tmp_path):
    before = (slide_of(out) / "score.json").read_bytes()
    tables = [pd.read_parquet(slide_of(out) / f"{name}.parquet") for name in ("nuclei", "regions")]
    edit(out, tmp_path, [f for f in exported(out) if class_of(f) != "Tumor"])
    edit(out, tmp_path, [annotation(shapely.box(0, 0, 2048, 1536), kind="Stroma")])
    assert score_of(out)["compartments"]["tumor"]["area_mm2"] == 0
    assert score_of(out)["edit"]["n_stroma_annotations"] == 1
    lines = rescore_run(out, Config(), Given(original=True))
    assert lines[0] == "S-1\tscore\tedited -> network\tdifference"
    assert (slide_of(out) / "score.json").read_bytes() == before
    for name, table in zip(("nuclei", "regions"), tables, strict=True):
        pd.testing.assert_frame_equal(pd.read_parquet(slide_of(out) / f"{name}.parquet"), table)
    names = {path.name for path in slide_of(out).iterdir()}
    assert "regions.set-aside.geojson" in names
    assert not names & {"regions.edited.geojson", "score.original.json"}
    record = json.loads((slide_of(out) / "record.json").read_text())
    assert len(record["region_edits"]) == 3
    assert "regions_edited" not in record
    assert open_result(out).scores["regions_from"].tolist() == ["network"]
    assert verify_run(out) == []


@pytest.fixture
def run_again(out, truth_run, synthetic_slide, monkeypatch, tmp_path):
    monkeypatch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: OracleRuntime())

    def run(**changes):
        settings = RunSettings(out, truth_run.parent / "bundle", changes.pop("config", Config()), **changes)
        with (tmp_path / "log.txt").open("w") as log:
            return run_cohort([SlideEntry("S-1", synthetic_slide.path)], settings, LineWatcher(log))

    return run


def test_a_later_run_keeps_the_edit(out, tmp_path, run_again):
    edit(out, tmp_path, [f for f in exported(out) if class_of(f) != "Immune cells"])
    edited = score_of(out)
    assert run_again().skipped == 1
    assert score_of(out) == edited
    outcome = run_again(config=load_config(overrides=["scores.til_footprint_um2=32"]))
    assert outcome.done == 1
    for name, told in (("score.json", "edited"), ("score.original.json", "original")):
        halved = edited["edit"]["headline"]["stil_percent"][told] / 2
        assert score_of(out, name)["headline"]["stil_percent"] == pytest.approx(halved)
    assert run_again(overwrite=True).done == 1
    after = score_of(out)
    assert after["headline"] == edited["headline"]
    assert after["edit"]["sha256"] == edited["edit"]["sha256"]
    assert verify_run(out) == []


def test_an_edit_never_vanishes_quietly(out, tmp_path, run_again):
    edit(out, tmp_path, exported(out)[1:])
    (slide_of(out) / "regions.edited.geojson").unlink()
    with pytest.raises(ResultError, match=r"regions.edited.geojson is missing.*--original"):
        rescore_run(out, Config())
    failure = run_again().failures[0]
    assert "is missing, and record.json says that these regions were edited" in failure.message
    assert any("is missing" in line for line in verify_run(out))
    rescore_run(out, Config(), Given(original=True))
    assert verify_run(out) == []


def test_an_edit_of_another_slide_is_refused(out, tmp_path):
    edit(out, tmp_path, exported(out))
    path = slide_of(out) / "record.json"
    record = json.loads(path.read_text())
    record["slide"]["size_l0"] = [100, 100]
    path.write_text(json.dumps(record))
    with pytest.raises(
        ResultError, match=r"was drawn on a slide of \[2048, 1536\] pixels, and this one has \[100, 100\]"
    ):
        rescore_run(out, Config())


def test_what_is_shown_follows_the_edit(out, tmp_path):
    slide = open_result(out).slide("S-1")
    whole = (0.0, 0.0, 1024.0, 768.0)
    network = slide.region_map(whole, 2.0)
    edit(out, tmp_path, [annotation(shapely.box(200, 200, 600, 400), kind="tumor")])
    slide = open_result(out).slide("S-1")
    shown = slide.region_map(whole, 2.0)
    box = np.zeros(shown.shape, bool)
    box[50:100, 50:150] = True
    analysed = network > 0
    assert (shown[box & analysed] == TUMOR).all()
    bare = np.isin(network, (0, GLASS))
    assert (shown[~box & ~bare] == OTHER).mean() > 0.99
    assert (shown[bare & ~box] == network[bare & ~box]).mean() > 0.99
    np.testing.assert_array_equal(slide.region_map((100, 100, 300, 200), 2.0), shown[50:100, 50:150])
    assert (np.asarray(slide.panoptic.region[:]) == TILS).any()  # the network's own map is never changed


def look(classes, annotations, *, least=100.0, scale=1.0):
    return edit_map(
        np.asarray(classes, np.uint8),
        Edit(tuple(annotations), ""),
        taxonomy=BREAST,
        mpp=2.0,
        scale_l0=(scale, scale),
        min_region_um2=least,
    )


def test_what_a_person_drew_stays_however_small_and_gaps_close():
    classes = np.full((20, 20), STROMA)
    classes[:, :2], classes[:2] = GLASS, 0
    drawn = [
        Annotation(shapely.box(0, 0, 20, 10), "stroma"),
        Annotation(shapely.box(0, 11, 20, 20), "stroma"),  # leaves a gap of a row between them
        Annotation(shapely.box(5, 5, 7, 7), "tumor"),  # 16 um2
    ]
    found = look(classes, drawn)
    expected = np.full((20, 20), STROMA)
    expected[5:7, 5:7], expected[:2] = TUMOR, 0
    np.testing.assert_array_equal(found.classes, expected)
    assert found.unscored_px == 0


def test_tissue_in_no_region_is_other_and_is_told():
    classes = np.full((20, 20), STROMA)
    classes[:5] = GLASS
    found = look(classes, [Annotation(shapely.box(0, 0, 20, 10), "tumor")])
    expected = np.full((20, 20), OTHER)
    expected[:10] = TUMOR
    np.testing.assert_array_equal(found.classes, expected)
    assert found.unscored_px == 200
    drawn_as_other = [Annotation(shapely.box(0, 0, 20, 10), "tumor"), Annotation(shapely.box(0, 10, 20, 20), "other")]
    np.testing.assert_array_equal(look(classes, drawn_as_other).classes, expected)
    assert look(classes, drawn_as_other).unscored_px == 0


def test_rescoring_imports_no_network(out, tmp_path):
    path = save(tmp_path, exported(out)[1:])
    code = (
        "import sys; from pathopan.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "found = [m for m in ('torch', 'torchvision', 'timm', 'openvino') if m in sys.modules]\n"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    for words in (["score", out, "--regions", path, "--stability"], ["score", out, "--original"]):
        call = [sys.executable, "-c", code, *map(str, words)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "edited -> network" in done.stdout


def test_stability_writes_a_range_beside_each_headline_score(out):
    before = score_of(out)
    lines = rescore_run(out, Config(), Given(stability=True))
    after = score_of(out)
    stability = after.pop("stability")
    assert after == before
    for name in ("stil_percent", "stil_density_per_mm2", "stil_area_fraction", "itil_per_mm2"):
        row = stability["ranges"][name]
        assert row["value"] == before["headline"][name]
        assert row["low"] <= row["value"] <= row["high"]
        assert any(line.startswith(f"S-1\t{name}\t") and "over TIL probability x 0.9 to 1.1" in line for line in lines)
    assert set(stability["class_threshold"]) == {"til_prob_x0.9", "til_prob_x1", "til_prob_x1.1"}
    assert set(stability["field_shift"]) == {"none", "x", "y", "both"}
    shifted = [part["stil_density_ci_low"] for part in stability["field_shift"].values()]
    assert stability["ranges"]["stil_density_ci_low"]["low"] == min(shifted)
    assert rescore_run(out, Config()) == []
    assert "stability" in score_of(out)  # still true of these settings
    rescore_run(out, load_config(overrides=["scores.til_footprint_um2=32"]))
    assert "stability" not in score_of(out)  # no longer
    assert verify_run(out) == []


def two_slides(out):
    """Add a copy of the slide under another name."""
    shutil.copytree(slide_of(out), out / "slides" / "S-2")
    for path in (out / "slides" / "S-2").glob("S-1.*"):
        path.rename(path.with_name(path.name.replace("S-1", "S-2")))
    for name in ("record.json", "score.json"):
        path = out / "slides" / "S-2" / name
        path.write_text(path.read_text().replace('"S-1"', '"S-2"'))
    for _ in range(2):  # the first only finds it
        rescore_run(out, load_config(overrides=["scores.bootstrap=50"]))


def test_slides_scored_by_different_settings_are_named(out):
    two_slides(out)
    assert verify_run(out) == []
    for name, um in (("S-2", 80.0), ("S-1", 90.0)):
        path = out / "slides" / name / "score.json"
        score = json.loads(path.read_text())
        score["settings"]["objects"]["near_um"] = um
        path.write_text(json.dumps(score))
    told = write_cohort_tables(out, taxonomy=BREAST)
    assert "by other settings than most slides" in told[0]
    assert "are the same file" in told[1]
    assert any("by other settings than most slides" in text for text in verify_run(out))


def test_a_slide_that_failed_when_it_was_exported_is_done_once_it_is_scored_again(out):
    path = slide_of(out) / "record.json"
    record = json.loads(path.read_text())
    record["failure"] = {"slide_id": "S-1", "stage": "export", "error": "OSError", "message": "disk full"}
    path.write_text(json.dumps(record))
    write_cohort_tables(out, taxonomy=BREAST)
    assert open_result(out).scores["status"].tolist() == ["failed"]
    rescore_run(out, load_config(overrides=["scores.bootstrap=50"]))
    assert open_result(out).scores["status"].tolist() == ["scored"]
    assert "failure" not in json.loads(path.read_text())


def test_the_slide_is_found_by_the_ids_or_the_files_name(out, tmp_path):
    two_slides(out)
    config = load_config(overrides=["scores.bootstrap=50"])
    second = json.loads((out / "slides" / "S-2" / "S-2.regions.geojson").read_text())["features"]
    rescore_run(out, config, Given(regions=save(tmp_path, second[1:])))
    assert open_result(out).scores["regions_from"].tolist() == ["network", "edited"]
    bare = [annotation(shapely.box(0, 0, 900, 900), kind="Stroma")]
    with pytest.raises(ConfigError, match="does not tell its slide; name the slide with --slide, one of S-1, S-2"):
        rescore_run(out, config, Given(regions=save(tmp_path, bare)))
    with pytest.raises(ConfigError, match="holds regions of S-1, S-2"):
        rescore_run(out, config, Given(regions=save(tmp_path, [*exported(out), *second])))
    rescore_run(out, config, Given(regions=save(tmp_path, bare, "S-1.geojson")))
    assert open_result(out).scores["regions_from"].tolist() == ["edited", "edited"]
    with pytest.raises(ConfigError, match="edited are S-1, S-2; name one with --slide"):
        rescore_run(out, config, Given(original=True))
    rescore_run(out, config, Given(original=True, slide="S-2"))
    assert open_result(out).scores["regions_from"].tolist() == ["edited", "network"]
    assert verify_run(out) == []


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "holds no annotation that encloses anything"),
        ([annotation(shapely.box(0, 0, 9, 9))], "annotations of no class; set one of"),
        ([annotation(shapely.box(0, 0, 9, 9), kind="Vessel")], "edited.geojson: annotations of 'Vessel'; set one of"),
        ([annotation(shapely.box(9000, 0, 9100, 9), kind="Tumor")], "nothing in it lies on slide S-1, which has 2048"),
    ],
)
def test_files_that_cannot_be_used_change_nothing(out, tmp_path, features, message):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=message):
        edit(out, tmp_path, features)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"regions": "x", "original": True}, "--regions and --original exclude each other"),
        ({"calibration": "x", "no_calibration": True}, "--calibration and --no-calibration exclude each other"),
        ({"slide": "S-1"}, "--slide names the slide of --regions or --original"),
    ],
)
def test_options_that_exclude_each_other_are_told(given, message):
    with pytest.raises(ConfigError, match=message):
        Given(**given)


def test_nothing_to_return_from_is_told(out):
    with pytest.raises(ConfigError, match="--original: no slide has edited regions"):
        rescore_run(out, Config(), Given(original=True))


def test_names_are_read_in_any_case_and_nuclei_are_left_out(tmp_path):
    nucleus = annotation(shapely.box(0, 0, 5, 5), kind="Tumor")
    nucleus["properties"]["objectType"] = "detection"
    drawn = [annotation(shapely.box(0, 0, 9, 9), kind="IMMUNE CELLS"), annotation(shapely.box(1, 1, 2, 2), kind="tils")]
    found = read_edit(save(tmp_path, [nucleus, *drawn, annotation(shapely.box(0, 0, 3, 3), kind="tumour BED")]), BREAST)
    assert found.counts == {"tils": 2, "tumor bed": 1}
    assert found.replaces


def test_an_empty_score_has_no_range(out, tmp_path):
    features = exported(out)
    for feature in features:
        feature["properties"]["classification"] = {"name": "Stroma", "color": [1, 2, 3]}
    lines = edit(out, tmp_path, features, stability=True)
    assert "S-1\tstil_percent\tempty" in lines
    assert score_of(out)["stability"]["ranges"]["stil_density_ci_high"] == {"value": None, "low": None, "high": None}


def test_a_later_run_keeps_the_calibration(out, tmp_path, run_again):
    line = fit_calibration([0, 10, 20], [1, 21, 40]).to_dict()
    stored = {"format": "pathopan-calibration-1", "score": "stil_percent", **line, "computed": [0, 20], "made": {}}
    (tmp_path / "c.json").write_text(json.dumps(stored))
    rescore_run(out, Config(), Given(calibration=tmp_path / "c.json"))
    value = score_of(out)["calibration"]["stil_percent_calibrated"]
    assert run_again().skipped == 1
    assert run_again(overwrite=True).done == 1
    assert score_of(out)["calibration"]["stil_percent_calibrated"] == value
