"""Nothing that pathopan did not write is ever deleted: not by a run, not by ``--overwrite``, not in any folder."""

import contextlib
import gzip
import json
import shutil

import pytest
from oracle import OracleRuntime

from pathopan.batch import RunSettings
from pathopan.config import Config
from pathopan.console import LineWatcher
from pathopan.errors import ResultError
from pathopan.export.geojson import piece_path
from pathopan.files import atomic_path, remove_leftovers
from pathopan.inference.shards import remove_shards
from pathopan.manifest import SlideEntry
from pathopan.pipeline import run_cohort
from pathopan.record import LEDGER, RUN_FILES, SlideRecord, replacing
from pathopan.written import CLAIMED, checksum, claim, settle

NOTE = "a person's own"


@pytest.fixture
def overwrite(truth_run, synthetic_slide, monkeypatch, tmp_path):
    """Runs the slide again, everything anew, into a folder; without drawing pages."""
    monkeypatch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: OracleRuntime())
    for kind in ("slide", "cohort"):
        room = {"slide": "outputs", "cohort": "cohort"}[kind]
        monkeypatch.setattr(f"pathopan.{room}.{kind}_page", lambda *_args, **_kwargs: None)
        monkeypatch.setattr(f"pathopan.{room}.write_{kind}_report", lambda path, _page: path.write_text("a page"))

    def run(out, *, slide=synthetic_slide.path, name="S-1"):
        settings = RunSettings(out, truth_run.parent / "bundle", Config(), workers=0, overwrite=True)
        with (tmp_path / "log.txt").open("w") as log:
            return run_cohort([SlideEntry(name, slide)], settings, LineWatcher(log))

    return run


@pytest.fixture
def out(truth_run, tmp_path):
    shutil.copytree(truth_run, tmp_path / "run")
    return tmp_path / "run"


def files_in(folder):
    """Every file, followed through links, with its bytes."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def kept_in(folder):
    return sorted(path.name for path in folder.rglob("kept-*"))


def test_overwriting_what_nobody_touched_keeps_nothing_aside(out, overwrite):
    assert overwrite(out).done == 1
    assert overwrite(out).done == 1
    assert kept_in(out) == []
    assert "set_aside" not in SlideRecord.open(out / "slides" / "S-1" / "record.json").entries


def test_whatever_a_person_put_into_the_run_is_there_afterwards(out, overwrite):
    slide = out / "slides" / "S-1"
    overwrite(out)
    mine = [
        out / "notes.txt",
        out / ".notes.txt.tmp",
        out / ".draft.1234.tmp",
        out / "slides" / "notes.txt",
        out / "slides" / "S-2" / "photo.png",
        slide / "notes.txt",
        slide / ".a.1.tmp",
        slide / "shards" / "notes.txt",
        slide / "shards" / "mine" / "00001.parquet",
        slide / "shards" / f"{'a' * 16}-64" / "notes.parquet",
        slide / "S-1.nuclei.piece-01.mine.geojson.gz",
        slide / "regions.edited.mine.geojson",
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(NOTE)
    assert overwrite(out).done == 1
    assert [path for path in mine if not path.is_file() or path.read_text() != NOTE] == []
    assert kept_in(out) == []


def test_what_a_person_changed_is_kept_beside_what_replaces_it(out, overwrite):
    slide = out / "slides" / "S-1"
    overwrite(out)
    regions, piece = slide / "S-1.regions.geojson", piece_path(slide / "S-1.nuclei.geojson.gz", 1)
    edited = json.loads(regions.read_text())
    edited["features"].pop()
    regions.write_text(json.dumps(edited))
    (slide / "report.html").write_text(NOTE)
    piece.write_bytes(gzip.compress(NOTE.encode()))
    labels = slide / "panoptic.ome.zarr" / "labels" / "mine"
    labels.mkdir()
    (labels / "0").write_text(NOTE)
    (out / "scores.csv").write_text(NOTE)
    assert overwrite(out).done == 1
    assert json.loads((slide / "kept-1.S-1.regions.geojson").read_text()) == edited
    assert len(json.loads(regions.read_text())["features"]) == len(edited["features"]) + 1
    assert gzip.decompress((slide / f"kept-1.{piece.name}").read_bytes()).decode() == NOTE
    assert (slide / "kept-1.panoptic.ome.zarr" / "labels" / "mine" / "0").read_text() == NOTE
    assert not labels.exists()
    assert (slide / "kept-1.report.html").read_text() == (out / "kept-1.scores.csv").read_text() == NOTE
    told = SlideRecord.open(slide / "record.json").entries["set_aside"]
    assert "S-1.regions.geojson was not as pathopan wrote it, and is kept as kept-1.S-1.regions.geojson" in told
    assert len(told) == 4
    (out / "scores.csv").write_text("again")
    overwrite(out)
    assert ((out / "kept-1.scores.csv").read_text(), (out / "kept-2.scores.csv").read_text()) == (NOTE, "again")


def test_a_copy_of_a_run_is_still_pathopans_own(out, overwrite, tmp_path):
    overwrite(out)
    shutil.copytree(out, tmp_path / "copy", copy_function=shutil.copyfile)  # other times, same bytes
    overwrite(tmp_path / "copy")
    assert kept_in(tmp_path / "copy") == []


def test_a_run_of_an_earlier_version_is_taken_over_without_copies(out, overwrite):
    record = SlideRecord.open(out / "slides" / "S-1" / "record.json")
    del record.entries["written"]
    record.write()
    (out / LEDGER).unlink()
    overwrite(out)
    assert kept_in(out) == []


def test_a_folder_of_somebody_elses_files_is_refused_before_anything_is_changed(tmp_path, overwrite):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.yaml").write_text(NOTE)
    before = files_in(tmp_path / "home")
    with pytest.raises(ResultError, match=r"holds config.yaml, which pathopan did not write; choose another --out"):
        overwrite(tmp_path / "home")
    assert files_in(tmp_path / "home") == before


@pytest.mark.parametrize("name", RUN_FILES)
def test_every_file_of_a_run_is_looked_for(tmp_path, name):
    (tmp_path / name).write_text(NOTE)
    with pytest.raises(ResultError, match=f"holds {name}, which"), replacing(tmp_path, "run.json"):
        raise AssertionError
    assert files_in(tmp_path) == {tmp_path / name: NOTE.encode()}


def test_the_folder_of_the_slides_keeps_them_and_all_beside_them(tmp_path, overwrite, synthetic_slide):
    """Also where a slide of many files lies in ``slides/<name>``, which is where its results go."""
    home = tmp_path / "home"
    slide = home / "slides" / "S-1" / "S-1.tif"
    slide.parent.mkdir(parents=True)
    shutil.copyfile(synthetic_slide.path, slide)
    for name in ("S-1.tif", "notes.txt", ".bashrc", ".lock", ".config.tmp", "slides/S-1/series.dcm"):
        (home / name).write_text(NOTE)
    (slide.parent / "report.html").write_text(NOTE)
    before = files_in(home)
    assert overwrite(home, slide=slide).done == 1
    assert overwrite(home, slide=slide).done == 1
    after = files_in(home)
    before[slide.parent / "kept-1.report.html"] = before.pop(slide.parent / "report.html")
    assert {path: after.get(path) for path in before} == before
    assert kept_in(home) == ["kept-1.report.html"]


def test_what_links_lead_to_is_left_alone(out, overwrite, tmp_path):
    slide, elsewhere = out / "slides" / "S-1", tmp_path / "elsewhere"
    overwrite(out)
    elsewhere.mkdir()
    for name in ("panoptic.ome.zarr", "nuclei.parquet", "S-1.regions.geojson"):
        shutil.move(slide / name, elsewhere / name)
        (slide / name).symlink_to(elsewhere / name)
    (elsewhere / "shards").mkdir()
    (elsewhere / "shards" / "notes.txt").write_text(NOTE)
    (slide / "shards").symlink_to(elsewhere / "shards")
    before = files_in(elsewhere)
    assert overwrite(out).done == 1
    assert {path: data for path, data in files_in(elsewhere).items() if path in before} == before
    assert kept_in(slide) == [f"kept-1.{n}" for n in ("S-1.regions.geojson", "nuclei.parquet", "panoptic.ome.zarr")]
    assert not (slide / "nuclei.parquet").is_symlink()


def test_shards_go_and_what_only_looks_like_them_stays(tmp_path):
    ours, others = tmp_path / f"{'0' * 16}-64", tmp_path / f"{'1' * 16}-64"
    theirs = [tmp_path / "mine" / "00001.parquet", others / "table.parquet", others / "00001.parquet" / "a"]
    for path in (ours / "00001.parquet", ours / "00001.regions", others / "00002.regions", *theirs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(NOTE)
    remove_shards(tmp_path)
    assert sorted(files_in(tmp_path)) == sorted(theirs)
    assert not ours.exists()
    remove_shards(tmp_path / "nowhere")


def test_half_written_files_go_and_a_persons_temporary_files_stay(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.touch()
    (tmp_path / "a.txt").unlink()
    theirs = [".a.txt.1234.tmp", ".pathopan.tmp", ".a.pathopan.tmp", "a.txt.1.pathopan.tmp"]
    for each in (temporary.name, *theirs):
        (tmp_path / each).write_text(NOTE)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(theirs)


def test_what_a_killed_process_was_writing_is_pathopans_own(tmp_path):
    ledger = {}
    assert claim(tmp_path, ledger, ["a"]) == []
    (tmp_path / "a").write_text("half")
    assert ledger == {"a": CLAIMED}
    assert claim(tmp_path, ledger, ["a", "b"]) == []
    settle(tmp_path, ledger)
    assert ledger == {"a": checksum(tmp_path / "a")}


def test_a_file_stays_in_place_until_it_is_replaced(tmp_path):
    (tmp_path / "nuclei.parquet").write_text(NOTE)
    (kept,) = claim(tmp_path, {}, ["nuclei.parquet"])
    assert kept.endswith("kept as kept-1.nuclei.parquet")
    assert (tmp_path / "nuclei.parquet").read_text() == (tmp_path / "kept-1.nuclei.parquet").read_text() == NOTE


def test_a_checksum_tells_contents_names_and_links(tmp_path):
    def summed(make):
        folder = tmp_path / "one"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make(folder)
        return checksum(folder)

    sums = [
        summed(lambda f: None),
        summed(lambda f: (f / "a").write_text("1")),
        summed(lambda f: (f / "a").write_text("2")),
        summed(lambda f: (f / "b").write_text("1")),
        summed(lambda f: (f / "a").mkdir()),
        summed(lambda f: (f / "a").symlink_to("b")),
    ]
    assert len(set(sums)) == len(sums)
    assert summed(lambda f: (f / "a").write_text("1")) == sums[1]


def test_a_runs_folder_may_be_written_again_after_a_write_that_failed(tmp_path):
    with contextlib.suppress(OSError), replacing(tmp_path, "run.json"):
        (tmp_path / "run.json").write_text("half")
        raise OSError
    with replacing(tmp_path, "run.json"):
        (tmp_path / "run.json").write_text("whole")
    assert kept_in(tmp_path) == []
