"""No path, no file name, no label and no macro of a slide in what is written; no formula in a table."""

import gzip
import json
import shutil
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
from oracle import OracleRuntime, tiny_bundle, tiny_net

from pathopan import cli
from pathopan.network.bundle import save_bundle
from pathopan.slide import open_slide
from pathopan.slide.base import read_overview

SECRET = "Doe-Jane-1961"
MAGIC = (1, 250, 3)


@pytest.fixture
def pathopan(monkeypatch, capsys):
    monkeypatch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: OracleRuntime())

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["pathopan", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, capsys.readouterr()

    return call


@pytest.fixture
def job(tmp_path, synthetic_slide):
    """A manifest of a good and a bad slide whose files are named after patients, and a bundle."""
    folder = tmp_path / f"clinic {SECRET}"
    folder.mkdir()
    shutil.copy(synthetic_slide.path, folder / f"{SECRET}.tif")
    (folder / f"{SECRET}-2.svs").write_bytes(b"no slide")
    (folder / "slides.csv").write_text(f"slide_id,path\nS-1,{SECRET}.tif\nS-2,{SECRET}-2.svs\n")
    description = tiny_bundle(step=512, halo=64)
    save_bundle(tmp_path / "bundle", description, tiny_net(description))
    return ["run", folder / "slides.csv", "-o", tmp_path / "out", "-b", tmp_path / "bundle"]


def tells(path):
    """Whether a file holds the secret, also where it is compressed."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if path.suffix == ".parquet":
        raw += pq.read_table(path).to_pandas().to_csv().encode()
    return SECRET.encode() in raw or SECRET in path.name


def told(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and tells(path))


def test_an_anonymous_run_names_no_file(pathopan, job, tmp_path):
    out = tmp_path / "out"
    assert pathopan(*job, "--anonymous")[0] == 1
    assert told(out) == []
    failures = pd.read_csv(out / "failures.csv")
    assert failures["slide_id"].tolist() == ["S-2"]
    assert failures["message"].iloc[0].startswith("S-2: unknown format")
    assert pathopan(*job, "--anonymous")[0] == 1
    assert told(out) == []


def test_a_finished_run_is_made_anonymous(pathopan, job, tmp_path):
    out = tmp_path / "out"
    pathopan(*job)
    assert pathopan("export", out, "--format", "qupath-project")[0] == 0
    assert any(name.startswith("exports/") for name in told(out))
    assert {"run.json", "slides/S-1/record.json", "failures.csv", "slides/S-1/report.html"} <= set(told(out))
    assert pathopan("export", out, "--anonymous")[0] == 0
    assert told(out) == []
    assert pathopan("verify", out)[0] == 0


def test_labels_and_macros_are_never_read(tmp_path, synthetic_slide):
    path = tmp_path / "labelled.tif"
    scan = tifffile.imread(synthetic_slide.path, key=0)
    label = np.full((3000, 4000, 3), MAGIC, np.uint8)
    with tifffile.TiffWriter(path, ome=True) as writer:
        written = {"photometric": "rgb", "compression": "deflate", "tile": (256, 256)}
        um = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeXUnit": "um", "PhysicalSizeYUnit": "um"}
        writer.write(label, metadata={"Name": "label image"}, **written)
        writer.write(scan, metadata={"Name": "scan", **um}, **written)
    with open_slide(path) as slide:
        assert slide.info.size_l0 == (scan.shape[1], scan.shape[0])
        assert not (read_overview(slide, 2.0) == MAGIC).all(axis=2).any()


def test_no_code_reads_associated_images():
    import pathopan as package

    folder = cli.Path(package.__file__).parent
    assert not [path for path in folder.rglob("*.py") if "associated_images" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("start", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_a_table_is_a_formula(tmp_path, start):
    from pathopan.export.geoparquet import write_table

    write_table(tmp_path / "t.csv", pd.DataFrame([{"slide_id": start, start: 1}]))
    head, row = pd.read_csv(tmp_path / "t.csv", header=None, dtype=str).to_numpy().tolist()
    assert head[1].startswith("'")
    assert row[0].startswith("'")


def test_the_record_of_an_anonymous_slide_still_resumes(pathopan, job, tmp_path):
    pathopan(*job, "--anonymous")
    path = tmp_path / "out" / "slides" / "S-1" / "record.json"
    before = json.loads(path.read_text())["stages"]
    code, written = pathopan(*job, "--anonymous")
    assert (code, written.out.splitlines()[0].split(":")[0]) == (1, "0 done, 1 complete already, 1 failed")
    assert json.loads(path.read_text())["stages"] == before
