import pytest

from pathopan.export.sections import cell, find_value, fold_intervals, head, sections


@pytest.mark.parametrize(
    ("name", "text", "unit"),
    [
        ("stil_percent", "sTIL", "%"),
        ("til_density_per_mm2", "TIL density", "per mm²"),
        ("itil_per_mm2", "iTIL", "per mm²"),
        ("area_mm2", "Area", "mm²"),
        ("n_til", "Number of TILs", ""),
        ("n_nuclei", "Number of nuclei", ""),
        ("til_density_ci_low", "TIL density, 95 % interval from", ""),
        ("mutils_a", "MuTILs a", ""),
        ("percent", "Percent", ""),
    ],
)
def test_names_become_titles(name, text, unit):
    assert (head(name).text, head(name).unit, head(name).name) == (text, unit, name)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (True, "yes"),
        (12345, "12,345"),
        (0.0, "0"),
        (12.345, "12.3"),
        (0.00001, "1.00e-05"),
        (float("inf"), "inf"),
        ([1, 2.5], "1 – 2.50"),
        ("inflamed", "inflamed"),
    ],
)
def test_values_have_the_digits_a_reader_uses(value, text):
    assert cell(value).text == text


def test_a_record_becomes_lists_and_tables():
    record = {
        "slide_id": "S",
        "stil_percent": None,
        "reasons": {"stil_percent": "no stroma"},
        "definitions": {"stil_percent": "TIL area over stroma area"},
        "compartments": {"tumor": {"area_mm2": 1.0}, "stroma": {"area_mm2": None, "reason": "none"}},
        "excluded": [{"class": "necrosis", "area_mm2": 0.1}],
        "deep": {"deeper": {"x": 1}, "y": 2},
    }
    top, compartments, excluded, deep, deeper = sections(record)
    assert [h.name for h, _ in top.rows] == ["slide_id", "stil_percent"]
    assert top.rows[1][1][0].note == "no stroma"
    assert top.rows[1][0].meaning == "TIL area over stroma area"
    assert (compartments.title, [h.name for h, _ in compartments.rows]) == ("Compartments", ["tumor", "stroma"])
    assert compartments.rows[1][1][0].note == "none"
    assert excluded.rows[0][1][0].text == "necrosis"
    assert (deep.title, deeper.title) == ("Deep", "Deep · Deeper")


def test_wide_tables_are_turned():
    record = {"bands": {"near": {f"m{i}": i for i in range(12)}, "far": {f"m{i}": i for i in range(12)}}}
    (section,) = sections(record)
    assert [h.name for h in section.heads] == ["near", "far"]
    assert len(section.rows) == 12


def test_intervals_stand_with_their_values():
    (section,) = sections({"a_per_mm2": 5.0, "a_ci_low": 4.0, "a_ci_high": 6.0, "b": 1})
    assert [h.name for h, _ in section.rows] == ["a_per_mm2", "b"]
    assert section.rows[0][1][0].interval == "4.00 – 6.00"
    assert fold_intervals(["lonely_ci_low"]) == (["lonely_ci_low"], {})


def test_a_name_that_is_left_out_has_its_reason():
    (section,) = sections({"phenotype": "", "reasons": {"phenotype": "no sTIL"}})
    shown = section.rows[0][1][0]
    assert (shown.text, shown.note) == ("–", "no sTIL")


def test_values_are_found_at_any_depth():
    record = {"a": {"b": {"c": 3}}, "d": {"e": None, "reasons": {"e": "why"}}}
    assert find_value(record, "c") == (3, "")
    assert find_value(record, "e") == (None, "why")
    assert find_value(record, "x") == (None, "")
