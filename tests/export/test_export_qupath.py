import copy
import json
import re
from pathlib import Path

import pytest

from pathopan.classes import BREAST
from pathopan.export.qupath import check_geojson, qupath_color

SHARED = Path(__file__).parents[3] / "shared" / "data" / "qupath_geojson" / "qupath05.geojson"
GOOD = {
    "type": "Feature",
    "id": "6423a977-ffff-48db-affc-cd11632010f0",
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]},
    "properties": {
        "objectType": "annotation",
        "name": "1",
        "isLocked": True,
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
        "measurements": {"Area": 1.5},
        "metadata": {"a": "b"},
    },
}


def check(tmp_path, *features, root=None):
    path = tmp_path / "x.geojson"
    path.write_text(json.dumps(root if root is not None else {"type": "FeatureCollection", "features": features}))
    return check_geojson(path)


def changed(where, value):
    """Copy GOOD with the value at a dotted place replaced (or removed, with ``...``)."""
    feature = copy.deepcopy(GOOD)
    *parents, last = where.split(".")
    target = feature
    for name in parents:
        target = target[name]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return feature


def test_a_good_file_has_no_problem(tmp_path):
    assert check(tmp_path, GOOD) == []
    assert check(tmp_path, root=GOOD) == []
    assert check(tmp_path, root=GOOD["geometry"]) == [
        "feature 0: properties.objectType is missing: QuPath would make it an annotation"
    ]


@pytest.mark.data
def test_a_real_qupath_export_has_no_problem():
    if not SHARED.exists():
        pytest.skip("shared data folder is absent")
    assert check_geojson(SHARED) == []


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("type", "feature", "not a Feature"),
        ("id", "object_0", "is not a UUID, so QuPath ignores it"),
        ("id", 7, "is not a UUID"),
        ("objectType", "detection", "at the Feature's root is ignored"),
        ("properties", None, "has no properties"),
        ("properties.objectType", ..., "objectType is missing"),
        ("properties.objectType", "nucleus", "objectType 'nucleus' is unknown"),
        ("properties.type", "Tumor", "is read as an object type"),
        ("properties.object_type", "annotation", "QuPath 0.3's name"),
        ("properties.name", 5, "name 5 must be a string"),
        ("properties.isLocked", "yes", "must be true or false"),
        ("properties.color", [1, 2], "must be \\[r, g, b\\]"),
        ("properties.metadata", {"a": [1]}, "must map names to plain values"),
        ("properties.classification", 3, "must be a string or an object"),
        ("properties.classification", {"name": "Tumor"}, "has no color"),
        ("properties.classification", {"color": [1, 2, 3]}, "needs a name"),
        ("properties.classification", {"name": "Tumor", "color": [1, 2]}, "must be 0, 1, 3 or 4 integers"),
        ("properties.classification", {"name": "Tumor", "color": [1, 2, 300]}, "must be 0, 1, 3 or 4 integers"),
        ("properties.measurements", 3, "must be an object"),
        ("properties.measurements", [3], "a list of {name, value}"),
        ("properties.measurements", {"a": None}, "must be a finite number, found None"),
        ("properties.measurements", {"a": "NaN"}, "QuPath 0.4 refuses it"),
        ("properties.measurements", {"a": True}, "must be a finite number"),
        ("properties.childObjects", [{"type": "x"}], "child: not a Feature"),
        ("geometry", None, "has no geometry"),
        ("geometry.type", "GeometryCollection", "cannot be read"),
        ("geometry.coordinates", [[0, 0]], "are not those of a Polygon"),
        ("geometry.coordinates", [[[0, 0], [9, 0], [9, 9], [0, 1]]], "must be closed"),
        ("geometry.coordinates", [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]], "refuse the whole file"),
        ("geometry.coordinates", [[[0, 0], [0.003, 0], [0, 0.003], [0, 0]]], "vanishes on QuPath's grid"),
        ("nucleusGeometry", GOOD["geometry"], "only for objectType 'cell'"),
    ],
)
def test_each_rule_is_noticed(tmp_path, where, value, message):
    problems = check(tmp_path, changed(where, value))
    assert any(re.search(message, text) for text in problems), problems


def test_a_lone_member_repeats_and_lists(tmp_path):
    alone = changed("geometry", {"type": "MultiPolygon", "coordinates": [GOOD["geometry"]["coordinates"]]})
    assert check(tmp_path, alone) == ["feature 0: a MultiPolygon of one member: write a Polygon"]
    assert check(tmp_path, GOOD, GOOD) == [f"feature 1: id {GOOD['id']!r} is not unique in the file"]
    assert "a bare list" in check(tmp_path, root=[GOOD])[0]
    assert "neither a FeatureCollection" in check(tmp_path, root={"type": "FeatureCollection"})[0]


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("x.txt", b"{}", "QuPath opens .geojson"),
        ("x.geojson", b"[1,]", "cannot be read"),
        ("x.geojson", b'{"a": NaN}', "NaN is not JSON"),
        ("x.geojson", b'{"a": 1, "a": 2}', "key 'a' stands twice"),
        ("x.geojson", b"\xff", "cannot be read"),
        ("x.geojson.gz", b"{}", "cannot be read"),
        ("x.geojson.gz", b"\x1f\x8b\x08\x00", "cannot be read"),
    ],
)
def test_files_that_are_no_json_are_told(tmp_path, name, raw, message):
    (tmp_path / name).write_bytes(raw)
    (problem,) = check_geojson(tmp_path / name)
    assert message in problem


def test_standard_classes_keep_qupaths_colors():
    assert qupath_color(BREAST.nucleus("til")) == (160, 90, 160)
    assert qupath_color(BREAST.region("stroma")) == (150, 200, 150)
