import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathopan import record
from pathopan.record import SlideRecord, command_line, fingerprint, read_json, versions, write_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_equal_things_have_equal_fingerprints(value):
    assert fingerprint(value) == fingerprint(json.loads(json.dumps(value)))
    assert len(fingerprint(value)) == 16


@pytest.mark.parametrize(
    ("first", "second"),
    [((1, 2), (2, 1)), (({"a": 1},), ({"a": 2},)), (("ab",), ("a", "b")), ((1,), ("1",)), ((), (None,))],
)
def test_different_things_have_different_fingerprints(first, second):
    assert fingerprint(*first) != fingerprint(*second)


def test_a_fingerprint_stays_the_same_on_every_machine():
    assert fingerprint("slide", {"mpp": 0.5}, [1, None]) == "2797a18e89265441"


def test_a_stage_is_current_only_with_its_fingerprint_and_its_files(tmp_path):
    output = tmp_path / "tiles.parquet"
    made = SlideRecord.open(tmp_path / "record.json")
    assert not made.is_current("tile", "abc", [output])
    made.finish("tile", "abc", seconds=1.23456, notes={"tiles": 3})
    assert not made.is_current("tile", "abc", [output]), "the file is missing"
    output.touch()
    assert not made.is_current("tile", "abc", [output]), "it is empty: the power failed"
    output.write_bytes(b"PAR1")
    again = SlideRecord.open(tmp_path / "record.json")
    assert again.is_current("tile", "abc", [output])
    assert not again.is_current("tile", "other", [output])
    assert not again.is_current("predict", "abc", [output])
    assert again.notes("tile")["tiles"] == 3
    assert again.notes("tile")["seconds"] == 1.235
    assert again.notes("predict") == {}


def test_stages_are_added_and_done_again_in_place(tmp_path):
    made = SlideRecord.open(tmp_path / "record.json")
    made.finish("tile", "a", seconds=1)
    made.finish("predict", "b", seconds=1)
    made.finish("tile", "c", seconds=1)
    stored = json.loads((tmp_path / "record.json").read_text())
    assert {stage: entry["fingerprint"] for stage, entry in stored["stages"].items()} == {"tile": "c", "predict": "b"}


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "null", '"x"', '{"stages": {"ti', '{"stages": []}', '{"stages": {"tile": 3}}']
)
def test_a_damaged_record_is_begun_anew(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    made = SlideRecord.open(path)
    assert not made.is_current("tile", "abc", [])
    assert made.notes("tile") == {}
    made.finish("tile", "abc", seconds=0)
    assert SlideRecord.open(path).is_current("tile", "abc", [])


def test_a_record_that_is_no_text(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(b"\xff\xfe\x00")
    assert read_json(path) is None
    assert read_json(tmp_path / "nothing.json") is None


def test_json_is_complete_whenever_it_exists(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {(1, 2): "keys must be text"})
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_versions_name_what_a_result_depends_on(monkeypatch):
    assert {"python", "platform", "pathopan", "numpy", "torch"} <= set(versions())
    monkeypatch.setattr(record, "PACKAGES", ("no-such-package",))
    assert set(versions()) == {"python", "platform"}


def test_the_command_does_not_tell_where_it_is_installed(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/somebody/bin/pathopan", "run", "a.svs"])
    assert command_line() == "pathopan run a.svs"
