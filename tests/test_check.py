"""Before a batch: slides are looked at, and the installation is."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from oracle import OracleRuntime, tiny_bundle, tiny_net

from pathopan import check, doctor
from pathopan.check import CheckSettings, Machine, SlideCheck, check_slide, describe_checks, probes, shortages
from pathopan.config import Config
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import save_bundle
from pathopan.pipeline import InLine
from pathopan.slide import open_slide
from pathopan.stages import Engine

MACHINE = Machine("truth on cpu, float32", 2.0, 1e9, free_disk_bytes=1e12, free_memory_bytes=8e9)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check") / "bundle"
    description = tiny_bundle(step=512, halo=64)
    save_bundle(folder, description, tiny_net(description))
    return CheckSettings(folder, Config(), workers=0)


@pytest.fixture
def engine(settings):
    return Engine(settings.bundle, settings.config, runtime=OracleRuntime())


def test_every_level_is_probed_at_both_ends_and_between(synthetic_slide):
    with open_slide(synthetic_slide.path) as slide:
        found = list(probes(slide))
        levels = {round(mpp / 0.5) for _, mpp in found}
        assert levels == {round(d) for d in slide.info.downsamples}
        for mpp in {mpp for _, mpp in found}:
            corners = [(w.x, w.y) for w, level in found if level == mpp]
            width, height = slide.info.size_px(mpp)
            assert (0, 0) in corners
            assert (max(0, width - 256), max(0, height - 256)) in corners
        assert [w for w, _ in found] == [w for w, _ in probes(slide)]


def test_a_sound_slide_and_what_it_will_take(synthetic_slide, engine, settings):
    found = check_slide(SlideEntry("S-1", synthetic_slide.path), engine, settings)
    assert (found.problem, found.size_l0, found.mpp, found.tiles) == ("", (2048, 1536), 0.5, 12)
    assert found.tissue_mm2 == pytest.approx(0.5, abs=0.15)
    lines = describe_checks([found], MACHINE)
    assert lines[0].split()[:2] == ["slide_id", "ok"]
    assert lines[1].split()[:4] == ["S-1", "yes", "2048x1536", "0.5"]
    assert lines[0].index("levels") == lines[1].index(f" {found.levels} ") + 1  # columns stand below one another
    assert any(line.startswith("  time    about 30 s: 2.00 s a tile") for line in lines)  # 12 tiles, and a quarter
    assert any(line.startswith("1 slides: 1 ok, 0 cannot be scored; looked at in") for line in lines)
    assert shortages([found], MACHINE) == []
    assert shortages([found], replace(MACHINE, free_disk_bytes=1e3)) == [
        "disk: too little is free; choose another --out"
    ]


def test_a_slide_that_is_damaged_inside_is_found(tmp_path, synthetic_slide, engine, settings):
    raw = bytearray(synthetic_slide.path.read_bytes())
    with tifffile.TiffFile(synthetic_slide.path) as file:
        page = file.pages[0]
        place = page.dataoffsets[-1]
    raw[place : place + 60] = bytes(60)
    (tmp_path / "damaged.tif").write_bytes(raw)
    found = check_slide(SlideEntry("S-1", tmp_path / "damaged.tif"), engine, settings)
    assert "cannot be read at" in found.problem
    assert "copy or export the file again" in found.remedy
    lines = describe_checks([found], None)
    assert lines[1].split()[:2] == ["S-1", "NO"]
    assert lines[3:6] == ["cannot be scored:", f"  S-1: {found.problem}", f"    -> {found.remedy}"]
    assert "1 slides: 0 ok, 1 cannot be scored" in lines[7]
    assert "was not measured" in lines[8]


def test_a_slide_without_mpp_and_one_without_tissue(tmp_path, engine, settings):
    tifffile.imwrite(tmp_path / "silent.tif", np.full((64, 64, 3), 200, np.uint8), photometric="rgb")
    silent = check_slide(SlideEntry("S-1", tmp_path / "silent.tif"), engine, settings)
    assert "--slide-mpp" in silent.remedy
    tifffile.imwrite(tmp_path / "glass.tif", np.full((600, 700, 3), 243, np.uint8), photometric="rgb")
    glass = check_slide(SlideEntry("S-2", tmp_path / "glass.tif", 0.5), engine, settings)
    assert (glass.problem, glass.tiles) == ("", 0)
    assert any(text.startswith("no tissue: ") for text in glass.warnings)
    lines = describe_checks([silent, glass], MACHINE)
    assert lines[2].split()[:2] == ["S-2", "empty"]
    assert lines[4:6] == ["worth a look:", f"  S-2: {'; '.join(glass.warnings)}"]
    assert "2 slides: 0 ok, 1 without tissue, 1 cannot be scored" in "\n".join(lines)


def test_a_check_tells_of_each_window_so_that_a_slow_slide_is_not_given_up(synthetic_slide, engine, settings):
    told = []
    check_slide(SlideEntry("S-1", synthetic_slide.path), engine, settings, lambda *what: told.append(what))
    with open_slide(synthetic_slide.path) as slide:
        assert len(told) == len(list(probes(slide)))


def test_all_slides_are_looked_at_and_the_machine_is_measured(tmp_path, synthetic_slide, settings, monkeypatch):
    shutil.copy(synthetic_slide.path, tmp_path / "a.tif")
    (tmp_path / "b.svs").write_bytes(b"")
    monkeypatch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: OracleRuntime())
    monkeypatch.setattr(check, "Child", lambda start, patience_s: InLine(start))
    told = []
    entries = [SlideEntry(path.stem, path) for path in (tmp_path / "a.tif", tmp_path / "b.svs")]
    checks, machine = check.check_slides(entries, settings, tmp_path / "out" / "new", told.append)
    assert told == checks
    assert [bool(one.problem) for one in checks] == [False, True]
    assert machine.runtime == "oracle on cpu, float32"
    assert 0 < machine.seconds_per_tile < 60
    assert machine.free_disk_bytes > 0


def test_a_slide_that_kills_the_check_is_a_bad_one(tmp_path):
    from pathopan.errors import ProcessDied

    class Dying:
        def ask(self, _request, _hear):
            raise ProcessDied("its process crashed in native code (SIGSEGV)")

    found = check._ask(Dying(), SlideEntry("S-1", tmp_path / "x.svs"))
    assert "SIGSEGV" in found.problem
    assert math.isnan(SlideCheck("S-1", tmp_path).mpp)


def test_the_self_test_knows_the_truth_and_sees_what_differs(tmp_path):
    assert doctor.compare_with_truth(tmp_path) == []
    score = json.loads((tmp_path / "out" / "slides" / "truth" / "score.json").read_text())
    truth = doctor.make_slide(tmp_path / "again.tif", size_px=doctor.SIZE_PX)
    score["compartments"]["tumor"]["n_til"] += 1
    score["compartments"]["stroma"]["area_mm2"] *= 1.1
    assert len(list(doctor._differences(score, truth))) == 2


def test_the_doctor_says_when_the_disk_is_too_small(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10**8})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _folder: usage)
    disk = doctor._disk(tmp_path)
    assert not disk.sound
    assert disk.text == f"0.1 GB free under {tmp_path}, which is too little: choose another --out"


def test_the_doctor_names_what_is_unsound(tmp_path):
    assert doctor._openslide().sound
    disk = doctor._disk(tmp_path / "new")
    assert disk.sound
    assert "GB free" in disk.text
    network = doctor._network(tmp_path / "gone", "cpu")
    assert not network.sound
    assert "no bundle" in network.text
