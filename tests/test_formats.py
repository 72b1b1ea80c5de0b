"""Each format is read back by its own ecosystem's reader and says what the run says."""

import gzip
import json
import shutil
import subprocess
import sys

import geopandas as gpd
import numpy as np
import ome_zarr_models
import pandas as pd
import pytest
import shapely

from pathopan.config import Config, Format, load_config
from pathopan.errors import MissingExtra, ResultError
from pathopan.export.geojson import find_piece_paths
from pathopan.export.qupath import check_geojson
from pathopan.rescore import export_run
from pathopan.result import open_result
from pathopan.verify import verify_path, verify_run


@pytest.fixture(scope="module")
def out(truth_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats") / "run"
    shutil.copytree(truth_run, folder)
    return folder


@pytest.fixture(scope="module")
def slide(out):
    return open_result(out).slide("S-1")


def export(out, *formats, config=None, **given):
    return list(export_run(out, config or Config(), formats=[Format(name) for name in formats], **given))


def test_csv_has_every_row_and_column_but_the_shapes(out, slide, tmp_path):
    nuclei, regions = export(out, "csv", to=tmp_path)
    assert (nuclei, regions) == (tmp_path / "csv" / "S-1.nuclei.csv", tmp_path / "csv" / "S-1.regions.csv")
    read = pd.read_csv(nuclei)
    pd.testing.assert_frame_equal(
        read, pd.DataFrame(slide.nuclei.drop(columns="geometry")), check_dtype=False, check_exact=False
    )
    assert len(pd.read_csv(regions)) == len(slide.regions)


def test_geoparquet_of_all_slides_is_one_data_set(out, slide):
    export(out, "geoparquet")
    nuclei = gpd.read_parquet(out / "exports" / "geoparquet" / "nuclei")
    assert list(nuclei.columns[:2]) == ["slide_id", "nucleus_id"]
    assert set(nuclei["slide_id"]) == {"S-1"}
    assert nuclei.crs is None
    assert shapely.equals(nuclei.geometry.to_numpy(), slide.nuclei.geometry.to_numpy()).all()
    assert len(gpd.read_parquet(out / "exports" / "geoparquet" / "regions" / "S-1.parquet")) == len(slide.regions)


@pytest.mark.parametrize(("version", "model"), [("0.4", ome_zarr_models.v04.Image), ("0.5", ome_zarr_models.v05.Image)])
def test_ome_zarr_is_copied_to_either_version(out, slide, tmp_path, version, model):
    import zarr

    config = load_config(overrides=[f"export.ngff='{version}'"])
    (target,) = export(out, "ome-zarr", config=config, to=tmp_path)
    group = zarr.open_group(str(target), mode="r")
    assert group.metadata.zarr_format == {"0.4": 2, "0.5": 3}[version]
    assert model.from_zarr(group)
    for number, level in enumerate(slide.panoptic.arrays.nuclei):
        assert np.array_equal(group[f"labels/nuclei/{number}"][:], level[:])
    assert np.array_equal(group["labels/regions/0"][:], slide.panoptic.region[:])
    assert np.array_equal(group["0"][:], slide.panoptic.arrays.image[0][:])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_spatialdata_is_read_back_with_its_tables_and_in_micrometres(out, slide, tmp_path):
    import spatialdata

    (target,) = export(out, "spatialdata", to=tmp_path)
    read = spatialdata.read_zarr(target)
    assert set(read.shapes) == {"nuclei", "regions"}
    assert set(read.tables) == {"nuclei_table", "regions_table"}
    table, nuclei = read["nuclei_table"], slide.nuclei
    assert table.shape[0] == len(nuclei)
    assert table.uns["spatialdata_attrs"]["region"] == "nuclei"
    assert table.obs["class"].astype(str).tolist() == nuclei["class"].tolist()
    assert table.to_df()["area_um2"].to_numpy() == pytest.approx(nuclei["area_um2"], rel=1e-6)
    assert json.loads(table.uns["pathopan"]["score"])["headline"] == slide.score["headline"]
    in_um = spatialdata.transform(read["nuclei"], to_coordinate_system="global")
    centres = in_um.geometry.centroid
    assert np.abs(centres.x.to_numpy() - nuclei["x_um"].to_numpy()).max() < 0.01
    assert in_um.index.tolist() == table.obs["instance_id"].tolist() == nuclei["nucleus_id"].tolist()
    shapes, rows = spatialdata.match_element_to_table(read, "regions", "regions_table")
    assert len(shapes["regions"]) == rows.shape[0] == len(slide.regions)
    assert not read.images


def test_spatialdata_that_is_not_installed_is_asked_for(out, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'pathopan\[spatialdata\]'"):
        export(out, "spatialdata", to=tmp_path)


def test_histomicsui_gets_polylines_of_the_whole_file(out, slide, tmp_path):
    record = json.loads((out / "slides" / "S-1" / "record.json").read_text())
    moved = tmp_path / "moved"
    shutil.copytree(out, moved)
    record["slide"]["bounds_l0"] = [1000, 500, *record["slide"]["bounds_l0"][2:]]
    (moved / "slides" / "S-1" / "record.json").write_text(json.dumps(record))
    regions, nuclei = (json.loads(path.read_text()) for path in export(moved, "histomicsui", to=tmp_path))
    assert set(regions) == {"name", "description", "elements"}
    allowed = {"type", "closed", "points", "holes", "user", "group", "label", "lineColor", "lineWidth", "fillColor"}
    for element in (*regions["elements"], *nuclei["elements"]):
        assert set(element) <= allowed
        assert (element["type"], element["closed"]) == ("polyline", True)
        assert all(len(point) == 3 and point[2] == 0 for point in element["points"])
    assert len(nuclei["elements"]) == len(slide.nuclei)
    first, row = nuclei["elements"][0], slide.nuclei.iloc[0]
    centre = shapely.Polygon([point[:2] for point in first["points"]]).centroid
    assert centre.x == pytest.approx(row.geometry.centroid.x + 1000, abs=0.5)
    assert centre.y == pytest.approx(row.geometry.centroid.y + 500, abs=0.5)
    assert first["label"]["value"] == row["class"]
    assert first["user"]["nucleus_id"] == row["nucleus_id"]
    area = sum(
        shapely.Polygon([p[:2] for p in e["points"]], [[p[:2] for p in hole] for hole in e.get("holes", [])]).area
        for e in regions["elements"]
    )
    assert area * 0.25e-6 == pytest.approx(slide.regions["area_mm2"].sum(), rel=0.01)


def test_a_qupath_project_is_told_the_slides_paths_and_scores(out, slide, tmp_path):
    (script,) = export(out, "qupath-project", to=tmp_path)
    text = script.read_text()
    assert slide.record["slide"]["path"] in text
    assert f"('sTIL %'): '{slide.score['headline']['stil_percent']:.4g}'" in text
    assert "def addsSlides = true" in text
    config = load_config(overrides=["export.anonymous=true"])
    (script,) = export(out, "qupath-project", config=config, to=tmp_path)
    assert slide.record["slide"]["path"] not in script.read_text()


def test_without_a_format_qupaths_files_and_the_page_are_written(out):
    paths = export(out)
    assert {path.name for path in paths} == {"S-1.regions.geojson", "S-1.nuclei.geojson.gz", "report.html"}
    assert export(out, "geojson", slides=["S-1"]) == paths


def test_qupaths_own_count_in_each_region_equals_ours(out):
    export(out)
    folder = out / "slides" / "S-1"
    regions = json.loads((folder / "S-1.regions.geojson").read_text())["features"]
    nuclei = json.loads(gzip.decompress((folder / "S-1.nuclei.geojson.gz").read_bytes()))["features"]
    centroids = shapely.centroid([shapely.geometry.shape(feature["geometry"]) for feature in nuclei])
    for feature in regions:  # QuPath counts a detection in the annotation that holds its centroid
        found = int(shapely.contains(shapely.geometry.shape(feature["geometry"]), centroids).sum())
        assert found == feature["properties"]["measurements"]["Num nuclei"], feature["properties"]["name"]


def test_a_large_slide_has_a_file_for_each_piece_and_verify_reads_them(out, tmp_path):
    import cv2

    run = tmp_path / "run"
    shutil.copytree(out, run)
    folder = run / "slides" / "S-1"
    tissue = cv2.imread(str(folder / "tissue.png"), cv2.IMREAD_GRAYSCALE)
    tissue[:, tissue.shape[1] // 2 - 3 : tissue.shape[1] // 2 + 3] = 0
    cv2.imwrite(str(folder / "tissue.png"), tissue)
    paths = export(run, config=load_config(overrides=["export.piece_nuclei=100"]))
    pieces = find_piece_paths(folder / "S-1.nuclei.geojson.gz")
    assert len(pieces) == 2
    assert set(pieces) <= set(paths)
    assert [problem for path in pieces for problem in check_geojson(path)] == []
    assert verify_run(run) == []
    pieces[1].unlink()
    assert "S-1.nuclei.piece-01.geojson.gz: holds" in "\n".join(verify_run(run))


def test_an_unknown_slide_is_told(out):
    with pytest.raises(ResultError, match="has no slide 'S-2'; it has S-1"):
        export(out, "csv", slides=["S-2"])


def test_verify_takes_any_geojson(out, tmp_path):
    path = out / "slides" / "S-1" / "S-1.nuclei.geojson.gz"
    assert verify_path(path) == []
    bad = tmp_path / "bad.geojson"
    feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}
    bad.write_text(json.dumps({"type": "FeatureCollection", "features": [feature] * 60}))
    problems = verify_path(bad)
    assert problems[0].startswith(f"{bad}: feature 0: properties.objectType is missing")
    assert problems[-1] == f"{bad}: 10 more problems"


@pytest.mark.data
def test_verify_accepts_a_real_qupath_export_and_says_what_another_file_lacks(shared_data):
    assert verify_path(shared_data / "qupath_geojson" / "qupath05.geojson") == []
    (problem,) = verify_path(shared_data / "qupath_geojson" / "103S.json")
    assert "neither a FeatureCollection" in problem


def test_formats_need_no_torch(out, tmp_path):
    script = (
        "import sys; from pathlib import Path; from pathopan.config import Config;"
        "from pathopan.rescore import export_run;"
        f"list(export_run(Path({str(out)!r}), Config(), formats=['csv', 'histomicsui'], to=Path({str(tmp_path)!r})));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
