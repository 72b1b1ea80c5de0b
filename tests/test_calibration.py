"""Calibration to visual scores: fitted from a table, told in full, applied in the open, never hidden."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pathopan import open_result
from pathopan.calibration import (
    applied_calibration,
    calibrated,
    describe_calibration,
    differing_settings,
    fit_visual,
    read_calibration,
    write_calibration,
)
from pathopan.cli import app
from pathopan.config import Config, load_config
from pathopan.errors import ConfigError
from pathopan.rescore import Given, rescore_run
from pathopan.verify import verify_run

COMPUTED = {"A": 1.0, "B": 2.0, "C": 3.0, "D": 4.0, "E": np.nan}


@pytest.fixture
def cohort(tmp_path):
    """A run of which only the table of scores matters."""
    out = tmp_path / "cohort"
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"bundle": {"name": "truth", "sha256": "0"}}))
    (out / "config.yaml").write_text("scores: {til_footprint_um2: 64.0}\nobjects: {near_um: 50.0}\n")
    scores = pd.DataFrame({"slide_id": list(COMPUTED), "stil_percent": list(COMPUTED.values())})
    scores.assign(stil_density_per_mm2=scores["stil_percent"] * 100).to_parquet(out / "scores.parquet")
    return out


def visual(tmp_path, text):
    path = tmp_path / "visual.csv"
    path.write_text("slide_id,stil_percent\n" + text)
    return path


@pytest.fixture
def line(cohort, tmp_path):
    """visual = 10 x computed - 1, with a little noise: 9, 20, 28, 39."""
    fitted = fit_visual(cohort, visual(tmp_path, "A,9\nB,20\nC,28\nD,39\nE,50\n"))
    write_calibration(tmp_path / "calibration.json", fitted)
    return tmp_path / "calibration.json"


def test_the_line_is_that_of_a_hand_calculation(cohort, line, tmp_path):
    # x mean 2.5, y mean 24; Sxx 5, Sxy 49; residuals -0.3, 0.9, -0.9, 0.3: their squares sum to 1.8, so s2 is 0.9.
    stored = json.loads(line.read_text())
    assert stored["slope"] == pytest.approx(9.8)
    assert stored["intercept"] == pytest.approx(-0.5)
    assert stored["residual_sd"] == pytest.approx(0.9**0.5)
    t = 4.302652729911275  # Student, 2 degrees of freedom, 97.5 %
    assert stored["slope_ci"] == pytest.approx([9.8 - t * (0.9 / 5) ** 0.5, 9.8 + t * (0.9 / 5) ** 0.5])
    assert stored["n"] == 4
    assert stored["score"] == "stil_percent"
    assert stored["computed"] == [1.0, 4.0]
    assert stored["pairs"][1] == {"slide_id": "B", "visual": 20.0, "computed": 2.0}
    assert stored["made"]["without_score"] == ["E"]
    assert stored["made"]["visual"] == str(tmp_path / "visual.csv")
    assert stored["made"]["settings"]["scores"] == {"til_footprint_um2": 64.0}
    lines = describe_calibration(stored)
    assert lines[0] == "visual sTIL % = slope x stil_percent + intercept, from 4 slides"
    assert lines[1].startswith("slope\t9.8 (")
    assert lines[-1] == "left out, without a computed score\tE"


def test_the_interval_is_that_of_one_new_reading(line):
    stored = read_calibration(line)
    section = calibrated({"stil_percent": 3.0}, stored, Config())
    assert section["stil_percent_calibrated"] == pytest.approx(28.9)
    half = 4.302652729911275 * (0.9 * (1 + 1 / 4 + 0.25 / 5)) ** 0.5
    assert section["stil_percent_calibrated_ci_high"] == pytest.approx(28.9 + half)
    assert section["stil_percent_calibrated_ci_low"] == pytest.approx(28.9 - half)
    assert (section["slope"], section["n_pairs"], section["calibrated_from"]) == (stored.line.slope, 4, "stil_percent")
    assert not section["extrapolated"]
    assert section["other_settings"] == ""


def test_what_cannot_be_trusted_is_told(line):
    stored = read_calibration(line)
    assert calibrated({"stil_percent": 4.5}, stored, Config())["extrapolated"]
    changed = load_config(overrides=["scores.til_footprint_um2=32", "scores.seed=4"])
    assert differing_settings(stored, changed) == ["scores.til_footprint_um2 was 64.0, is 32.0"]


def test_an_empty_score_stays_empty_with_its_reason(line):
    headline = {"stil_percent": None, "reasons": {"stil_percent": "no stroma inside the tumor bed"}}
    section = calibrated(headline, read_calibration(line), Config())
    assert section["stil_percent_calibrated"] is None
    assert section["reasons"]["stil_percent_calibrated"] == "no stroma inside the tumor bed"
    assert not section["extrapolated"]


def test_another_score_can_be_the_start(cohort, tmp_path):
    readings = visual(tmp_path, "A,9\nB,20\nC,28\nD,39\n")
    assert fit_visual(cohort, readings, score="stil_density_per_mm2")["slope"] == pytest.approx(0.098)
    with pytest.raises(ConfigError, match="--score 'itil': a calibration starts from one of stil_percent"):
        fit_visual(cohort, readings, score="itil")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A,9\nB,20\nX,28\nY,1\n", "no slide of .* is called X, Y; it has A, B"),
        ("A,9\nB,20\n", "needs three pairs with different computed scores; there are 2"),
        ("A,9\nB,20\nE,3\n", r"there are 2 \(of 3 readings, 1 have no computed score\)"),
        ("A,9\nB,many\nC,2\n", "the reading of slide 'B' is 'many'; it must be a number in 0..100"),
        ("A,9\nB,\nC,2\n", "the reading of slide 'B' is ''"),
        ("A,9\nB,nan\nC,2\n", "the reading of slide 'B' is 'nan'"),
        ("A,9\nB,101\nC,2\n", "the reading of slide 'B' is '101'"),
        ("A,9\nB,-1\nC,2\n", "the reading of slide 'B' is '-1'"),
        ("A,9\nA,10\nC,2\n", "slide 'A' stands there twice; give one reading a slide"),
    ],
)
def test_tables_that_cannot_be_used_say_why(cohort, tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        fit_visual(cohort, visual(tmp_path, text))


def test_files_that_are_no_table_or_no_calibration_say_so(cohort, tmp_path):
    (tmp_path / "bad.csv").write_text("slide;stil_percent\nA;9\n")
    with pytest.raises(ConfigError, match=r"lacks the columns \['slide_id', 'stil_percent'\]"):
        fit_visual(cohort, tmp_path / "bad.csv")
    with pytest.raises(ConfigError, match="cannot be read as CSV"):
        fit_visual(cohort, tmp_path / "none.csv")
    for text in ("", "[]", "{}", '{"format": "pathopan-calibration-1", "score": "x"}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ConfigError, match="no calibration of this version"):
            read_calibration(tmp_path / "bad.json")


@pytest.mark.parametrize("change", [{"slope": "x"}, {"slope_ci": [1]}, {"n": 2}, {"spread": 0}, {"intercept": None}])
def test_damaged_calibrations_are_refused(line, change):
    line.write_text(json.dumps(json.loads(line.read_text()) | change))
    with pytest.raises(ConfigError, match=r"damaged \("):
        read_calibration(line)


def test_the_door(cohort, tmp_path):
    words = [
        "calibrate",
        str(cohort),
        "--visual",
        str(visual(tmp_path, "A,9\nB,20\nC,28\n")),
        "-o",
        str(tmp_path / "c.json"),
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert done.output.splitlines()[0] == "visual sTIL % = slope x stil_percent + intercept, from 3 slides"
    assert read_calibration(tmp_path / "c.json").line.n == 3


def test_a_run_follows_a_calibration_until_told_otherwise(truth_run, tmp_path, line):
    out = tmp_path / "run"
    shutil.copytree(truth_run, out)
    score_json = out / "slides" / "S-1" / "score.json"
    plain = score_json.read_text()
    assert open_result(out).scores["stil_percent_calibrated"].isna().all()
    lines = rescore_run(out, Config(), Given(calibration=line))
    score = json.loads(score_json.read_text())
    value = score["headline"]["stil_percent"]
    assert score["calibration"]["stil_percent_calibrated"] == pytest.approx(9.8 * value - 0.5)
    assert f"S-1\tstil_percent_calibrated\tempty -> {9.8 * value - 0.5:.4g}" in lines
    row = open_result(out).scores.iloc[0]
    for name in ("stil_percent_calibrated", "stil_percent_calibrated_ci_low", "stil_percent_calibrated_ci_high"):
        assert row[name] == score["calibration"][name]
    page = (out / "slides" / "S-1" / "report.html").read_text()
    for text in ("sTIL percent calibrated", "Slope", str(tmp_path / "visual.csv"), score["calibration"]["fitted"]):
        assert text in page
    assert verify_run(out) == []
    rescore_run(out, load_config(overrides=["scores.til_footprint_um2=32"]))  # stays in force
    again = json.loads(score_json.read_text())["calibration"]
    assert again["stil_percent_calibrated"] == pytest.approx(9.8 * value / 2 - 0.5)
    assert again["other_settings"] == "scores.til_footprint_um2 was 64.0, is 32.0"
    rescore_run(out, Config(), Given(no_calibration=True))
    assert score_json.read_text() == plain
    assert applied_calibration(out) is None


def test_a_file_that_is_no_calibration_changes_nothing(truth_run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(truth_run, out)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError, match="no calibration of this version"):
        rescore_run(out, Config(), Given(calibration=tmp_path / "bad.json"))
    assert applied_calibration(out) is None
