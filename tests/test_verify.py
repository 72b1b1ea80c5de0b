"""Whatever is tampered with in a finished run, `pathopan verify` says so, and says nothing of a sound one."""

import gzip
import json
import shutil

import pandas as pd
import pytest
import zarr

from pathopan.classes import BREAST
from pathopan.export.agree import MOST_TOLD, Expected, compare_geojson
from pathopan.export.geoparquet import read_geoparquet, read_table, write_table
from pathopan.verify import verify_run


@pytest.fixture
def out(truth_run, tmp_path):
    shutil.copytree(truth_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def slide(out):
    return out / "slides" / "S-1"


def told(out):
    return "\n".join(verify_run(out))


def rewrite(path, change):
    """Change a GeoParquet file without any check."""
    table = read_geoparquet(path)
    change(table).to_parquet(path, index=False)


def set_value(column, value, row=0):
    def change(table):
        table.loc[table.index[row], column] = value
        return table

    return change


def rewrite_json(path, change):
    """Change the features of a GeoJSON file."""
    packed = path.suffix == ".gz"
    root = json.loads(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    change(root["features"])
    raw = json.dumps(root).encode()
    path.write_bytes(gzip.compress(raw) if packed else raw)


def test_a_sound_run_agrees(out):
    assert verify_run(out) == []


@pytest.mark.parametrize("name", ["nuclei", "regions"])
def test_a_table_without_a_column_is_told(out, slide, name):
    rewrite(slide / f"{name}.parquet", lambda table: table.drop(columns="class_id"))
    assert f"table '{name}' lacks the columns ['class_id']" in told(out)


def test_tiles_of_another_kind_are_told(out, slide):
    tiles = pd.read_parquet(slide / "tiles.parquet")
    tiles.assign(tissue_fraction="much").to_parquet(slide / "tiles.parquet")
    assert "table 'tiles': column 'tissue_fraction' must hold float values" in told(out)
    (slide / "tiles.parquet").unlink()
    assert "tiles.parquet is missing" in told(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value("class_id", 9), "1 nuclei have no class that the taxonomy knows; nucleus 1 is"),
        (set_value("class", "plasma"), "is 'plasma' with id"),
        (set_value("nucleus_id", 2), "nucleus ids are not unique: 2 stands twice"),
        (set_value("nucleus_id", 100_000), "1 nuclei have no pixel in labels/nuclei, such as nucleus 100000"),
        (lambda table: table.iloc[1:], "1 ids of labels/nuclei are not in nuclei.parquet, such as 1"),
        (set_value("area_um2", 1.0), "'Area um^2' of nucleus 1 is"),
    ],
)
def test_a_changed_nucleus_is_told(out, slide, change, message):
    rewrite(slide / "nuclei.parquet", change)
    assert message in told(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value("n_til", 999), "n_til differs in 1 regions"),
        (set_value("area_mm2", 0.5), "of the label map,"),
        (set_value("class_id", 4), "region 1 is"),
        (set_value("til_density_per_mm2", 7.0), "'TIL density per mm^2' of region 1 is"),
        (lambda table: table.iloc[1:], "which the table of regions lacks"),
    ],
)
def test_a_changed_region_is_told(out, slide, change, message):
    rewrite(slide / "regions.parquet", change)
    assert message in told(out)


def test_a_changed_label_map_is_told(out, slide):
    group = zarr.open_group(str(slide / "panoptic.ome.zarr"), mode="r+")
    nuclei, regions = group["labels/nuclei/0"], group["labels/regions/0"]
    nuclei[0, 0] = 4_000_000_000
    regions[0, 0] = 77
    coarse = group["labels/regions/1"]  # 1 um/px; scores look at that, halved once more
    block = coarse[:]
    block[300:400, 200:400] = 1
    coarse[:] = block
    text = told(out)
    assert "1 ids of labels/nuclei are not in nuclei.parquet, such as 4000000000" in text
    assert "labels/regions holds the values [77], which the taxonomy does not know" in text
    assert "tumor covers" in text
    assert "of the label map," in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop(), "objects and 0 were dropped, but the table has"),
        (lambda f: f[0]["properties"]["measurements"].update({"Num TILs": 999}), "'Num TILs' of region 1 is 999"),
        (lambda f: f[0]["properties"]["measurements"].update({"Area mm^2": 9.9}), "'Area mm^2' of region 1 is 9.9"),
        (lambda f: f[0]["properties"]["measurements"].pop("Num nuclei"), "'Num nuclei' of region 1 is None"),
        (lambda f: f[0]["properties"]["classification"].update(name="Vessel"), "region 1 is 'Vessel', the table says"),
        (lambda f: f[0].update(id=f[1]["id"]), "is not unique in the file"),
        (lambda f: f[0].update(id="7491219e-8f8f-5272-a510-46fc11a0e70e"), "of another object"),
        (lambda f: f[0]["properties"].update(name="seven"), "1 objects are not in the table, such as region 0"),
        (lambda f: f[0]["geometry"].update(type="Polygon", coordinates=[[[0, 0], [9, 0], [9, 9], [0, 0]]]), "encloses"),
        (lambda f: f[0]["properties"].pop("objectType"), "feature 0: properties.objectType is missing"),
    ],
)
def test_changed_regions_in_geojson_are_told(out, slide, change, message):
    rewrite_json(slide / "S-1.regions.geojson", change)
    text = told(out)
    assert "S-1: S-1.regions.geojson: " in text
    assert message in text


def test_changed_nuclei_in_geojson_are_told_and_not_by_the_thousand(out, slide):
    def grow(features):
        for feature in features:
            feature["properties"]["measurements"]["Area um^2"] += 1

    rewrite_json(slide / "S-1.nuclei.geojson.gz", grow)
    lines = verify_run(out)
    assert len(lines) == MOST_TOLD + 1
    assert lines[0].startswith("S-1: S-1.nuclei.geojson.gz: 'Area um^2' of nucleus 1 is ")
    assert lines[-1].endswith("more problems")


@pytest.mark.parametrize("end", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["S-1.regions.geojson", "S-1.nuclei.geojson.gz"])
def test_a_truncated_geojson_is_told(out, slide, name, end):
    raw = (slide / name).read_bytes()
    (slide / name).write_bytes(raw[: int(len(raw) * end)])
    assert f"{name}: " in told(out)


def test_text_after_the_end_and_keys_that_stand_twice_are_told(out, slide):
    path = slide / "S-1.regions.geojson"
    raw = path.read_text()
    path.write_text(raw + "more")
    assert "goes on after its end" in told(out)
    path.write_text(raw.replace('"objectType":"annotation"', '"objectType":"annotation","objectType":"annotation"', 1))
    assert "key 'objectType' stands twice" in told(out)


def test_an_empty_table_agrees_with_an_empty_file(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text('{"type":"FeatureCollection","features":[\n\n]}\n')
    expected = Expected(pd.DataFrame({"region_id": [], "class_id": []}), "region", BREAST, "a", 1.0)
    assert compare_geojson([path], expected) == []


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_a_changed_row_of_the_runs_scores_is_told(out, name):
    table = read_table(out / name)
    write_table(out / name, table.assign(stil_percent=3.0))
    assert f"S-1: stil_percent is 3.0 in {name}," in told(out)


def test_changed_tables_of_the_run_are_told(out):
    scores = read_table(out / "scores.parquet")
    write_table(out / "scores.csv", pd.concat([scores, scores]))
    assert "scores.csv has 2 slides, scores.parquet 1" in told(out)
    (out / "scores.csv").unlink()
    assert "scores.csv: cannot be read" in told(out)
    write_table(out / "scores.parquet", scores.drop(columns="stil_percent"))
    assert "table 'scores' lacks the columns ['stil_percent']" in told(out)


def test_the_runs_regions_must_be_those_of_its_slides(out):
    rewrite(out / "regions.parquet", lambda table: table.iloc[1:])
    assert "S-1: regions.parquet of the run has" in told(out)


def test_slides_with_odd_names_agree(out, slide):
    """CSV is read back as text: 007 is no number, NA is no empty cell, and a formula has its guard."""
    scores = read_table(out / "scores.parquet")
    for name in ("007", "NA", "=1+1"):
        renamed = scores.assign(slide_id=name)
        for suffix in ("csv", "parquet"):
            write_table(out / f"scores.{suffix}", renamed)
        assert "slide_id" not in told(out)


def test_an_edit_that_is_told_in_one_place_only_is_told(out, slide):
    record = json.loads((slide / "record.json").read_text())
    score = json.loads((slide / "score.json").read_text())
    score["edit"] = {"sha256": "0", "headline": {"stil_percent": {"original": 1.0}}}
    (slide / "score.json").write_text(json.dumps(score))
    text = told(out)
    assert "record.json says that regions were not edited, score.json the opposite" in text
    assert "score.original.json is missing or damaged" in text
    (slide / "score.original.json").write_text(json.dumps(score))
    assert "score.json says that stil_percent was 1.0 originally, score.original.json" in told(out)
    shutil.copy(slide / "S-1.regions.geojson", slide / "regions.edited.geojson")
    record["regions_edited"] = {"sha256": "1", "size_l0": record["slide"]["size_l0"]}
    (slide / "record.json").write_text(json.dumps(record))
    assert "score.json is of another edit than record.json" in told(out)


def test_a_score_of_another_version_is_told(out, slide):
    (slide / "score.json").write_text('{"slide_id": "S-1", "status": "scored", "headline": {}}')
    assert "S-1: score.json lacks phenotype, compartments, exclusions, settings" in told(out)
