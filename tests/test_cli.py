"""Every command once, through its door; every wrong use with its exit code and its message."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import tifffile
from oracle import OracleRuntime, tiny_bundle, tiny_net

from pathopan import cli
from pathopan.datasets.synthetic import write_pyramid
from pathopan.network.bundle import save_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "truth"
    description = tiny_bundle(step=512, halo=64)
    save_bundle(folder, description, tiny_net(description))
    return folder


@pytest.fixture
def pathopan(monkeypatch, capsys):
    """Run the command line; gives the exit code, and what it wrote."""
    monkeypatch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: OracleRuntime())

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["pathopan", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        written = capsys.readouterr()
        return stop.value.code or 0, written.out, written.err

    return call


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, bundle, synthetic_slide):
    out = tmp_path_factory.mktemp("cli") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: OracleRuntime())
        patch.setattr(sys, "argv", ["pathopan", "run", str(synthetic_slide.path), "-o", str(out), "-b", str(bundle)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code
    return out


def commands(app):
    """List the names of all commands, those of added rooms too."""
    own = [command.name or command.callback.__name__ for command in app.registered_commands]
    return own + [name for group in app.registered_groups for name in commands(group.typer_instance)]


@pytest.mark.parametrize("command", commands(cli.app))
def test_every_help_has_an_example(pathopan, command):
    code, out, _ = pathopan(command, "--help")
    assert code == 0
    assert f"Example: pathopan {command}" in " ".join(out.split())


def test_the_help_of_all_has_an_example_and_lists_every_command(pathopan):
    code, out, _ = pathopan("--help")
    assert code == 0
    assert "Example: pathopan run slides/ --out results" in " ".join(out.split())


def test_dictionary_prints_what_columns_mean(pathopan, run_folder):
    for words in ([], [run_folder]):
        code, out, _ = pathopan("dictionary", *words)
        assert code == 0
        assert "| `stil_percent` | number | % |" in out


def test_run_exits_1_and_names_the_slide_that_failed(pathopan, tmp_path, bundle, synthetic_slide):
    (tmp_path / "bad.svs").write_bytes(b"nothing")
    code, out, err = pathopan("run", tmp_path / "bad.svs", synthetic_slide.path, "-o", tmp_path / "out", "-b", bundle)
    assert code == 1
    assert "1 done, 0 complete already, 1 failed" in out
    assert "FAILED bad (open)" in out.splitlines()[-1]
    assert "[2/2] synthetic: done" in err
    assert "Traceback" not in out + err


def test_run_again_skips_and_exits_0(pathopan, run_folder, bundle, synthetic_slide):
    code, out, _ = pathopan("run", synthetic_slide.path, "-o", run_folder, "-b", bundle)
    assert (code, out.split(":")[0]) == (0, "0 done, 1 complete already, 0 failed")


def test_overwrite_does_it_again(pathopan, run_folder, bundle, synthetic_slide):
    code, out, _ = pathopan("run", synthetic_slide.path, "-o", run_folder, "-b", bundle, "--overwrite")
    assert (code, out.split(":")[0]) == (0, "1 done, 0 complete already, 0 failed")


def test_dry_run_lists_and_writes_nothing(pathopan, tmp_path, synthetic_slide):
    code, out, _ = pathopan("run", synthetic_slide.path, "-o", tmp_path / "out", "--dry-run")
    assert code == 0
    assert out.startswith("synthetic\t")
    assert not (tmp_path / "out").exists()


def test_slide_mpp_and_tissue_are_used(pathopan, tmp_path, bundle):
    tifffile.imwrite(tmp_path / "slide.tif", np.full((512, 512, 3), 180, np.uint8), photometric="rgb", tile=(256, 256))
    ring = [[0, 0], [200, 0], [200, 200], [0, 200], [0, 0]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    drawn = tmp_path / "tissue.geojson"
    drawn.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    words = ["-o", tmp_path / "out", "-b", bundle, "--slide-mpp", "0.4", "--tissue", drawn]
    code, _, _ = pathopan("run", tmp_path / "slide.tif", *words)
    assert code == 0
    record = json.loads((tmp_path / "out" / "slides" / "slide" / "record.json").read_text())
    assert record["slide"]["mpp_l0"] == [0.4, 0.4]
    assert record["stages"]["tile"]["tissue_mm2"] == pytest.approx((200 * 0.4) ** 2 / 1e6, rel=0.05)


def test_slide_mpp_is_for_slides_that_do_not_say(pathopan, tmp_path, bundle):
    """One slide of many without mpp must not make the areas of all others wrong, nor have finished ones done again."""
    (tmp_path / "in").mkdir()
    pixels = np.full((512, 512, 3), 180, np.uint8)
    write_pyramid(tmp_path / "in" / "says.tif", pixels, 0.5)
    tifffile.imwrite(tmp_path / "in" / "silent.tif", pixels, photometric="rgb", tile=(256, 256))
    words = ["run", tmp_path / "in", "-o", tmp_path / "out", "-b", bundle]
    assert pathopan(*words)[0] == 1
    code, out, _ = pathopan(*words, "--slide-mpp", "0.4")
    assert code == 0
    assert "1 done, 1 complete already" in out
    for name, mpp in (("says", 0.5), ("silent", 0.4)):
        record = json.loads((tmp_path / "out" / "slides" / name / "record.json").read_text())
        assert record["slide"]["mpp_l0"] == pytest.approx([mpp, mpp])


def test_what_is_wrong_for_all_slides_stops_before_the_first(pathopan, tmp_path, bundle, synthetic_slide):
    words = ["run", synthetic_slide.path, "-o", tmp_path / "out", "-b", bundle]
    for more, told in (
        (["--tissue", tmp_path / "nope.geojson"], "no such file"),
        (["--device", "cuda"], "torch sees none"),
        (["--slide-mpp", "0"], "positive number"),
    ):
        code, _, err = pathopan(*words, *more)
        assert (code, told in err) == (2, True), err
        assert not (tmp_path / "out" / "slides").exists()
    (tmp_path / "mask.geojson").write_text("{}")
    write_pyramid(tmp_path / "other.tif", np.full((64, 64, 3), 180, np.uint8), 0.5)
    code, _, err = pathopan(*words, tmp_path / "other.tif", "--tissue", tmp_path / "mask.geojson")
    assert (code, "the tissue of one slide" in err) == (2, True)


def test_info_tells_and_exits_1_for_a_bad_one(pathopan, tmp_path, synthetic_slide):
    code, out, _ = pathopan("info", synthetic_slide.path)
    assert code == 0
    assert "2048x1536 px\t0.5 x 0.5 um/px" in out
    (tmp_path / "bad.svs").write_bytes(b"")
    assert pathopan("info", tmp_path)[0] == 1


def test_score_prints_what_changed(pathopan, run_folder):
    code, out, _ = pathopan("score", run_folder, "--set", "scores.til_footprint_um2=128")
    assert code == 0
    assert "synthetic\tstil_percent\t" in out
    assert pathopan("score", run_folder)[1] == "no headline score changed\n"


def test_score_takes_edited_regions_and_returns_to_the_networks(pathopan, run_folder, tmp_path):
    path = tmp_path / "edited.geojson"
    path.write_bytes((run_folder / "slides" / "synthetic" / "synthetic.regions.geojson").read_bytes())
    code, out, _ = pathopan("score", run_folder, "--regions", path, "--stability")
    assert code == 0
    assert out.startswith("synthetic\tscore\tnetwork -> edited\tdifference\n")
    assert "synthetic\tstil_percent\t" in out
    assert "over TIL probability x 0.9 to 1.1" in out
    assert "synthetic\tnote\tscored on regions that a person edited" in out
    assert pathopan("verify", run_folder)[0] == 0
    code, out, _ = pathopan("score", run_folder, "--original", "--slide", "synthetic")
    assert (code, out.splitlines()[0]) == (0, "synthetic\tscore\tedited -> network\tdifference")
    assert pathopan("score", run_folder)[1] == "no headline score changed\n"


def test_export_writes_points_and_csv(pathopan, run_folder):
    code, out, _ = pathopan(
        "export", run_folder, "-f", "csv", "-f", "geojson", "--nuclei", "points", "--qupath-project"
    )
    assert code == 0
    slide = run_folder / "slides" / "synthetic"
    csv = run_folder / "exports" / "csv" / "synthetic.nuclei.csv"
    assert str(csv) in out
    assert "make_qupath_project.groovy" in out
    table = pd.read_csv(csv)
    assert len(table) == len(pd.read_parquet(slide / "nuclei.parquet"))


def test_verify_says_what_disagrees(pathopan, run_folder):
    assert pathopan("verify", run_folder)[:2] == (0, "everything agrees\n")
    path = run_folder / "slides" / "synthetic" / "score.json"
    kept = path.read_text()
    score = json.loads(kept)
    score["compartments"]["tumor"]["n_til"] += 1
    path.write_text(json.dumps(score))
    code, out, _ = pathopan("verify", run_folder)
    path.write_text(kept)
    assert code == 1
    assert "synthetic: " in out
    assert "n_til" in out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "nowhere", "-o", "out"], "nowhere: no such file or folder"),
        (["run", ".", "-o", "out", "-b", "unknown"], "no slides found"),
        (["score", "nowhere"], "is no folder"),
        (["verify", "nowhere"], "is no folder"),
        (["calibrate", "nowhere", "--visual", "x.csv"], "is no folder"),
        (["evaluate", "brca", "nowhere"], "brca_m2c"),
        (["train", "unknown", "--data", ".", "-o", "out"], "unknown"),
    ],
)
def test_wrong_use_exits_2_with_one_line(pathopan, tmp_path, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    code, _, err = pathopan(*words)
    assert code == 2
    assert text in err
    assert len(err.strip().splitlines()) == 1


def test_unknown_bundle_lists_the_known_ones(pathopan, tmp_path, synthetic_slide):
    code, _, err = pathopan("run", synthetic_slide.path, "-o", tmp_path, "-b", "nope")
    assert code == 2
    assert "no bundle 'nope'" in err


def test_unknown_setting_names_the_nearest(pathopan, tmp_path, synthetic_slide):
    code, _, err = pathopan("run", synthetic_slide.path, "-o", tmp_path, "--set", "scores.field=500")
    assert code == 2
    assert "did you mean 'field_um'?" in err
