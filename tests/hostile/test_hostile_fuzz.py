"""The readers of our own formats on anything: pathopan's own errors, or a value; nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathopan.calibration import read_calibration, read_visual
from pathopan.classes import BREAST, Taxonomy
from pathopan.cohort import write_cohort_tables
from pathopan.config import load_config
from pathopan.edits import read_edit
from pathopan.errors import PathopanError, ResultError
from pathopan.export.qupath import check_geojson
from pathopan.manifest import read_manifest, safe_id
from pathopan.record import SlideRecord
from pathopan.result import SlideResult
from pathopan.status import describe_status, read_status

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
COORDINATES = st.recursive(
    st.floats() | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=5), max_leaves=20
)
QUPATH = ("classification", "objectType", "childObjects")
FEATURE = st.fixed_dictionaries(
    {"type": st.sampled_from(["Feature", "x"])},
    optional={
        "geometry": st.fixed_dictionaries(
            {"type": st.sampled_from(["Polygon", "MultiPolygon", "Point", "Blob"]), "coordinates": COORDINATES}
        )
        | JSON,
        "properties": st.fixed_dictionaries({}, optional=dict.fromkeys(QUPATH, JSON)) | JSON,
        "id": JSON,
    },
)
FILE = st.fixed_dictionaries({"type": st.just("FeatureCollection"), "features": st.lists(FEATURE, max_size=3)})
YAML = st.text(alphabet=st.sampled_from(list("scores:\n field_um1.-[]{}&*!%@`'\"<|>?")), max_size=60)
CSV = st.text(alphabet=st.sampled_from(list('abc,;"\n\r\t=\0\ufeff01.-/ ')), max_size=80)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file"


def tried(read, *given_to):
    try:
        return read(*given_to)
    except PathopanError as error:
        told = str(error)
    assert len(told) > 10
    return None


@given(JSON | FILE)
def test_annotations(path, stored):
    path.write_text(json.dumps(stored))
    edit = tried(read_edit, path, BREAST)
    assert edit is None or all(one.geometry.is_valid for one in edit.annotations)


@pytest.mark.parametrize(
    "stored",
    [
        {"features": 0, "type": {"": None}},
        [{"type": "Feature", "geometry": {"type": [], "coordinates": []}, "properties": {"childObjects": 5}}],
        [{"type": "Feature", "geometry": {"type": "Point", "coordinates": [10**400, 0]}, "properties": {}}],
        {"type": "Point", "coordinates": [float("nan"), 0]},
    ],
)
def test_what_fuzzing_found_in_annotations(tmp_path, stored):
    (tmp_path / "x.geojson").write_text(json.dumps(stored))
    tried(read_edit, tmp_path / "x.geojson", BREAST)
    assert check_geojson(tmp_path / "x.geojson")


@given(JSON | FILE)
def test_anyones_geojson(path, stored):
    file = path.with_suffix(".geojson")
    file.write_text(json.dumps(stored))
    assert isinstance(check_geojson(file), list)


@pytest.mark.parametrize("mpp", [None, [None, 1], ["x", 1], [1], 5, {}])
def test_a_record_with_an_odd_mpp_is_told(tmp_path, mpp):
    (tmp_path / "record.json").write_text(json.dumps({"slide": {"mpp_l0": mpp}}))
    with pytest.raises(ResultError, match=r"slide\.mpp_l0"):
        _ = SlideResult("S-1", tmp_path, BREAST).mpp_l0


def test_a_record_whose_path_is_no_text_stops_no_table(tmp_path):
    (tmp_path / "slides" / "S-1").mkdir(parents=True)
    record = {"path": 0.5, "failure": {"message": "no mpp"}}
    (tmp_path / "slides" / "S-1" / "record.json").write_text(json.dumps(record))
    (tmp_path / "run.json").write_text(json.dumps({"taxonomy": BREAST.to_dict()}))
    write_cohort_tables(tmp_path, taxonomy=BREAST)
    assert "S-1,failed," in (tmp_path / "scores.csv").read_text()


@given(st.binary(max_size=80) | CSV.map(lambda text: ("slide_id,path,mpp\n" + text).encode()))
def test_manifests(path, raw):
    path.write_bytes(raw)
    for entry in tried(read_manifest, path) or []:
        assert entry.slide_id == safe_id(entry.slide_id)
        assert entry.mpp is None or entry.mpp > 0


@given(st.binary(max_size=60) | YAML.map(str.encode))
def test_settings(path, raw):
    path.write_bytes(raw)
    tried(load_config, path)


@given(st.text(max_size=30))
def test_overrides(text):
    tried(lambda: load_config(overrides=[text]))
    tried(lambda: load_config(overrides=[f"scores.field_um={text}"]))


@given(JSON | st.dictionaries(st.sampled_from(["format", "score", "slope", "n", "made", "computed"]), JSON))
def test_calibrations(path, stored):
    path.write_text(json.dumps(stored))
    assert tried(read_calibration, path) is None


@given(st.binary(max_size=60) | CSV.map(lambda text: ("slide_id,stil_percent\n" + text).encode()))
def test_visual_scores(path, raw):
    path.write_bytes(raw)
    tried(read_visual, path)


@given(JSON)
def test_taxonomies(stored):
    tried(Taxonomy.from_dict, stored)


@given(run=JSON, progress=JSON, record=JSON)
def test_records_and_status(path, run, progress, record):
    out = path.parent / "out"
    (out / "slides" / "S-1").mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(run))
    (out / ".pathopan.progress.json").write_text(json.dumps(progress))
    (out / "slides" / "S-1" / "record.json").write_text(json.dumps(record))
    assert describe_status(read_status(out))
    opened = SlideRecord.open(out / "slides" / "S-1" / "record.json")
    opened.is_current("tile", "x", [])
    opened.notes("tile")
