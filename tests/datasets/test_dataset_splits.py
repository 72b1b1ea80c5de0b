"""Splits never part a patient, do not depend on order, and balance sizes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathopan.datasets import brca_m2c
from pathopan.datasets.splits import assign_folds, find_leaks, split_folds, split_holdout

cohorts = st.lists(st.integers(0, 12).map(lambda i: f"P{i}"), min_size=6, max_size=60).filter(
    lambda groups: len(set(groups)) >= 3
)


@settings(max_examples=60, deadline=None)
@given(cohorts, st.integers(2, 3), st.integers(0, 5))
def test_folds_cover_everything_and_part_nobody(groups, folds, seed):
    held = []
    for train, validation in split_folds(groups, folds=folds, seed=seed):
        assert sorted(train + validation) == list(range(len(groups)))
        assert not find_leaks([groups[i] for i in train], [groups[i] for i in validation])
        assert validation
        held += validation
    assert sorted(held) == list(range(len(groups)))


@settings(max_examples=60, deadline=None)
@given(cohorts, st.randoms())
def test_the_order_of_samples_does_not_matter(groups, random):
    shuffled = list(groups)
    random.shuffle(shuffled)
    assert assign_folds(groups, folds=3) == assign_folds(shuffled, folds=3)
    train, held = split_holdout(groups)
    _, held_shuffled = split_holdout(shuffled)
    assert {groups[i] for i in held} == {shuffled[i] for i in held_shuffled}
    assert train
    assert held
    assert not find_leaks([groups[i] for i in train], [groups[i] for i in held])


@settings(max_examples=60, deadline=None)
@given(cohorts)
def test_no_fold_exceeds_the_smallest_by_more_than_the_largest_patient(groups):
    assigned = assign_folds(groups, folds=3)
    sizes = Counter(assigned[g] for g in groups)
    assert max(sizes.values()) - min(sizes.values()) <= max(Counter(groups).values())


def test_seeds_differ_and_the_split_is_the_same_on_every_machine():
    groups = [f"P{i}" for i in range(20)]
    assert assign_folds(groups, folds=4) != assign_folds(groups, folds=4, seed=1)
    train, held = split_holdout(groups, fraction=0.2)
    assert len(held) == 4
    assert [groups[i] for i in held] == ["P2", "P6", "P10", "P13"]
    assert len(train) == 16


def test_what_cannot_be_split_is_said():
    with pytest.raises(ValueError, match="1 patients cannot be split into 2 folds"):
        assign_folds(["a", "a"], folds=2)
    with pytest.raises(ValueError, match=r"cannot hold out 0.2 of the samples of 1 patients"):
        split_holdout(["a", "a"])


@pytest.mark.data
def test_the_published_split_of_brca_m2c_leaks_two_patients_and_ours_none():
    root = Path(__file__).resolve().parents[3] / "shared" / "data" / "brca_m2c"
    if not root.is_dir():
        pytest.skip("the shared data folder is absent")
    train, val = ([s.group for s in brca_m2c.read(root, subset=name)] for name in ("train", "val"))
    assert find_leaks(train, val) == {"TCGA-A7-A0DB", "TCGA-A7-A13G"}
    groups = train + val
    folds = split_folds(groups, folds=5)
    assert all(not find_leaks([groups[i] for i in a], [groups[i] for i in b]) for a, b in folds)
    assert [len(b) for _, b in folds] == [18] * 5
