import gzip
import json
import uuid

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from pathopan.classes import BREAST
from pathopan.errors import ConfigError, SchemaError
from pathopan.export.annotations import match_region_classes, read_regions_geojson
from pathopan.export.geojson import (
    NAMESPACE,
    Ground,
    Written,
    find_piece_paths,
    object_uuid,
    object_uuids,
    write_nuclei_geojson,
    write_regions_geojson,
)
from pathopan.export.qupath import check_geojson

BOW_TIE = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
DOT = shapely.Polygon([(0, 0), (0.01, 0), (0, 0.01)])


def nuclei(*shapes):
    n = len(shapes)
    return gpd.GeoDataFrame(
        {
            "nucleus_id": np.arange(1, n + 1),
            "class_id": [1 + i % 4 for i in range(n)],
            "prob": np.linspace(0.5, 0.987654321, n),
            "area_um2": np.full(n, 31.23456789),
            "distance_to_tumor_um": [np.nan if i % 2 else -3.5 for i in range(n)],
        },
        geometry=list(shapes),
    )


def regions():
    return gpd.GeoDataFrame(
        {
            "region_id": [1, 2],
            "class_id": [1, 2],
            "area_mm2": [0.42, 0.01],
            "n_nuclei": [10, 0],
            "n_tumor": [4, 0],
            "n_til": [6, 0],
            "til_density_per_mm2": [812.4, np.nan],
            "til_area_percent": [9.1, np.inf],
        },
        geometry=[shapely.box(0, 0, 100, 50), shapely.MultiPolygon([shapely.box(0, 60, 9, 99)])],
    )


def read(path):
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)["features"]


def test_nuclei_are_detections_with_finite_measurements(tmp_path):
    path = tmp_path / "S.nuclei.geojson.gz"
    count = write_nuclei_geojson(path, nuclei(shapely.box(0, 0, 9.04, 9), BOW_TIE, DOT), taxonomy=BREAST, slide_id="S")
    assert count == Written(objects=2, repaired=1, dropped=1)
    assert check_geojson(path) == []
    first, second = read(path)
    assert first == {
        "type": "Feature",
        "id": object_uuid("S", "nucleus", 1),
        "geometry": {"type": "Polygon", "coordinates": [[[9.0, 0.0], [9.0, 9.0], [0.0, 9.0], [0.0, 0.0], [9.0, 0.0]]]},
        "properties": {
            "objectType": "detection",
            "classification": {"name": "Tumor", "color": [200, 0, 0]},
            "measurements": {
                "Nucleus ID": 1,
                "Probability": 0.5,
                "Area um^2": 31.2346,
                "Distance to tumor um": -3.5,
            },
        },
    }
    assert uuid.UUID(second["id"]).version == 5
    assert "Distance to tumor um" not in second["properties"]["measurements"]


def test_bytes_depend_on_content_alone_not_on_the_parts_it_came_in(tmp_path):
    table = nuclei(*[shapely.box(i, 0, i + 3, 4) for i in range(50)])
    whole, parts = tmp_path / "a" / "S.nuclei.geojson.gz", tmp_path / "b" / "S.nuclei.geojson.gz"
    write_nuclei_geojson(whole, table, taxonomy=BREAST, slide_id="S")
    write_nuclei_geojson(parts, (table.iloc[i : i + 7] for i in range(0, 50, 7)), taxonomy=BREAST, slide_id="S")
    assert read(whole) == read(parts)
    write_nuclei_geojson(parts, table, taxonomy=BREAST, slide_id="S")
    assert whole.read_bytes() == parts.read_bytes()


def test_each_piece_of_tissue_has_a_file_of_its_own(tmp_path):
    path = tmp_path / "S.1.nuclei.geojson.gz"
    table = nuclei(*[shapely.box(i, 0, i + 3, 4) for i in range(40)], DOT)
    (tmp_path / "S.1.nuclei.piece-07.geojson.gz").write_bytes(b"of an earlier run")
    (tmp_path / "S.1.nuclei.piece-x.geojson.gz").write_bytes(b"a person's")

    def piece_of(rows):
        return 1 + (rows["nucleus_id"].to_numpy() % 3 == 0)

    count = write_nuclei_geojson(
        path, (table[:15], table[15:]), taxonomy=BREAST, slide_id="S.1", ground=Ground(piece_of)
    )
    assert (count.objects, count.dropped) == (40, 1)
    assert [p.name for p in find_piece_paths(path)] == [f"S.1.nuclei.piece-0{n}.geojson.gz" for n in (1, 2)]
    whole, (one, two) = read(path), (read(p) for p in find_piece_paths(path))
    assert [feature for feature in whole if feature["properties"]["measurements"]["Nucleus ID"] % 3] == one
    assert [feature for feature in whole if feature["properties"]["measurements"]["Nucleus ID"] % 3 == 0] == two
    assert [problem for p in find_piece_paths(path) for problem in check_geojson(p)] == []
    write_nuclei_geojson(path, table, taxonomy=BREAST, slide_id="S.1")
    assert find_piece_paths(path) == []
    assert read(path) == whole


def test_points_are_centroids(tmp_path):
    path = tmp_path / "S.nuclei.geojson"
    count = write_nuclei_geojson(
        path, nuclei(shapely.box(0, 0, 4, 2), DOT), taxonomy=BREAST, slide_id="S", form="points"
    )
    assert (count.objects, count.dropped) == (1, 1)
    assert [f["geometry"] for f in read(path)] == [{"type": "Point", "coordinates": [2.0, 1.0]}]
    assert check_geojson(path) == []


def test_none_removes_what_an_earlier_run_wrote(tmp_path):
    path = tmp_path / "S.nuclei.geojson.gz"
    write_nuclei_geojson(path, nuclei(DOT), taxonomy=BREAST, slide_id="S")
    assert write_nuclei_geojson(path, nuclei(DOT), taxonomy=BREAST, slide_id="S", form="none") == Written()
    assert not path.exists()


def test_no_nuclei_give_an_empty_collection(tmp_path):
    path = tmp_path / "S.nuclei.geojson.gz"
    table = nuclei(DOT).iloc[:0]
    assert write_nuclei_geojson(path, table, taxonomy=BREAST, slide_id="S") == Written()
    assert read(path) == []
    assert check_geojson(path) == []


def test_a_failed_write_leaves_nothing(tmp_path):
    table = nuclei(shapely.box(0, 0, 4, 2)).assign(class_id=9)
    with pytest.raises(SchemaError, match=r"class ids \[9\] are not in taxonomy 'breast-5-4'"):
        write_nuclei_geojson(tmp_path / "S.nuclei.geojson.gz", table, taxonomy=BREAST, slide_id="S")
    assert list(tmp_path.iterdir()) == []


def test_regions_are_locked_annotations_with_their_scores(tmp_path):
    path = tmp_path / "S.regions.geojson"
    assert write_regions_geojson(path, regions(), taxonomy=BREAST, slide_id="S") == Written(2)
    assert check_geojson(path) == []
    first, second = read(path)
    assert first["properties"] == {
        "objectType": "annotation",
        "name": "1",
        "isLocked": True,
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
        "measurements": {
            "Area mm^2": 0.42,
            "Num nuclei": 10,
            "Num TILs": 6,
            "TIL density per mm^2": 812.4,
            "TIL area %": 9.1,
            "Num tumor nuclei": 4,
        },
        "metadata": {"pathopan_region_id": "1", "pathopan_class": "tumor"},
    }
    assert second["geometry"]["type"] == "Polygon"
    assert set(second["properties"]["measurements"]) == {"Area mm^2", "Num nuclei", "Num TILs", "Num tumor nuclei"}


def test_geopandas_reads_what_we_write(tmp_path):
    path = tmp_path / "S.regions.geojson"
    write_regions_geojson(path, regions(), taxonomy=BREAST, slide_id="S")
    found = gpd.read_file(path).set_crs(None, allow_override=True)
    assert found.area.tolist() == [5000, 351]
    assert found["objectType"].tolist() == ["annotation", "annotation"]


def test_regions_come_back_from_qupath(tmp_path):
    path = tmp_path / "edited.geojson"
    write_regions_geojson(path, regions(), taxonomy=BREAST, slide_id="S")
    drawn = read_regions_geojson(path)
    assert drawn["class"].tolist() == ["Tumor", "Stroma"]
    assert drawn["object_type"].tolist() == ["annotation", "annotation"]
    assert drawn["locked"].tolist() == [True, True]
    assert drawn.area.tolist() == [5000, 351]
    assert drawn.crs is None
    matched = match_region_classes(drawn, BREAST)
    assert matched["class"].tolist() == ["tumor", "stroma"]
    assert matched["class_id"].tolist() == [1, 2]


def test_reading_takes_children_bow_ties_and_plain_classes_and_leaves_lines(tmp_path):
    path = tmp_path / "edited.geojson"
    child = {
        "type": "Feature",
        "geometry": shapely.geometry.mapping(BOW_TIE),
        "properties": {"objectType": "detection", "classification": "Immune cells: Lymphocyte"},
    }
    parent = {
        "type": "Feature",
        "geometry": shapely.geometry.mapping(shapely.box(0, 0, 3, 3)),
        "properties": {"classification": {"names": ["Tumor", "in situ"], "color": [1, 2, 3]}, "childObjects": [child]},
    }
    line = {"type": "Feature", "geometry": {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}, "properties": None}
    path.write_text(json.dumps([parent, line]))
    drawn = read_regions_geojson(path)
    assert drawn["class"].tolist() == ["Tumor: in situ", "Immune cells: Lymphocyte"]
    assert drawn.area.tolist() == [9, 50]
    assert drawn.is_valid.all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as GeoJSON"),
        ('{"type": "Topology"}', "not a GeoJSON FeatureCollection; in QuPath use"),
        ('[{"type": "Feature"}]', "feature 0 has no geometry"),
        (
            '[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, "x"]]]}}]',
            "feature 0: its coordinates are not those of a Polygon",
        ),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "bad.geojson"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_regions_geojson(path)


def test_a_missing_file_and_unknown_classes_are_told(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.geojson: cannot be read"):
        read_regions_geojson(tmp_path / "none.geojson")
    drawn = gpd.GeoDataFrame(
        {"object_type": ["annotation"] * 2, "class": ["", "Vessel"]}, geometry=[shapely.box(0, 0, 1, 1)] * 2
    )
    with pytest.raises(ConfigError, match="annotations of no class, 'Vessel'; set one of"):
        match_region_classes(drawn, BREAST)


@given(st.text(max_size=20), st.lists(st.integers(0, 2**40), max_size=20))
def test_ids_are_those_of_the_standard_library(slide_id, numbers):
    expected = [str(uuid.uuid5(NAMESPACE, f"{slide_id}/nucleus/{number}")) for number in numbers]
    assert list(object_uuids(slide_id, "nucleus", numbers)) == expected


def test_a_number_that_some_nuclei_lack_is_left_out_of_theirs_alone(tmp_path):
    two = nuclei(shapely.box(0, 0, 8, 8), shapely.box(20, 0, 28, 8))
    for distances, expected in (([1.5, np.nan], [True, False]), ([np.nan] * 2, [False] * 2), ([1.5, 2.5], [True] * 2)):
        path = tmp_path / "a.geojson.gz"
        write_nuclei_geojson(path, two.assign(distance_to_tumor_um=distances), taxonomy=BREAST, slide_id="S")
        measured = [feature["properties"]["measurements"] for feature in read(path)]
        assert ["Distance to tumor um" in one for one in measured] == expected
        assert all("Nucleus ID" in one for one in measured)
