from dataclasses import replace

import pytest

from pathopan.classes import BREAST, RegionClass, Taxonomy
from pathopan.errors import IncompatibleBundle


def test_the_shipped_taxonomy_survives_storage():
    assert Taxonomy.from_dict(BREAST.to_dict()) == BREAST


def test_classes_are_found_by_id_and_name():
    assert BREAST.region("stroma") is BREAST.region(2)
    assert BREAST.nucleus("til") is BREAST.nucleus(3)


def test_classes_are_chosen_by_role():
    assert BREAST.region_ids("stroma", "dense") == (2, 3)
    assert BREAST.nucleus_ids("til") == (3,)


def test_an_unknown_class_is_a_key_error():
    with pytest.raises(KeyError, match="bone"):
        BREAST.region("bone")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": 1}, "must each be unique"),
        ({"name": "tumor"}, "must each be unique"),
        ({"id": 256}, "must lie in 1..255"),
        ({"id": 0}, "must lie in 1..255"),
        ({"role": "muscle"}, "unknown region roles"),
    ],
)
def test_ambiguous_taxonomies_are_refused(changes, message):
    odd = replace(RegionClass(9, "new", "other", (1, 2, 3), "New"), **changes)
    with pytest.raises(IncompatibleBundle, match=message):
        Taxonomy("odd", (*BREAST.regions, odd), BREAST.nuclei)


@pytest.mark.parametrize("damage", ["name", "regions"])
def test_an_incomplete_stored_taxonomy_is_refused(damage):
    stored = BREAST.to_dict()
    del stored[damage]
    with pytest.raises(IncompatibleBundle, match="cannot be read"):
        Taxonomy.from_dict(stored)


def test_a_stored_class_with_an_unknown_field_is_refused():
    stored = BREAST.to_dict()
    stored["nuclei"][0]["shape"] = "round"
    with pytest.raises(IncompatibleBundle, match="shape"):
        Taxonomy.from_dict(stored)
