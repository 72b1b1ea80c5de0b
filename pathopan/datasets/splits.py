"""Splits by patient: deterministic, balanced in size, and never one patient on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence


def assign_folds(groups: Sequence[str], *, folds: int, seed: int = 0) -> dict[str, int]:
    """Give each patient a fold, so that folds hold about as many samples.

    Patients with many samples are placed first, each into the fold that has the fewest so far; among patients with
    equally many, and between equally full folds, a hash of the patient's name decides. The result depends on the set
    of samples and the seed, never on their order.

    Parameters
    ----------
    groups : sequence of str
        Patient of each sample.
    folds : int
        How many folds.
    seed : int
        Another seed, another split.

    Returns
    -------
    dict of str to int
        Patient -> fold, from 0.

    Raises
    ------
    ValueError
        If there are fewer patients than folds, or fewer than two folds.

    Examples
    --------
    >>> assign_folds(["a", "a", "b", "c"], folds=2)["b"] == assign_folds(["c", "b", "a", "a"], folds=2)["c"]
    True
    """
    sizes = Counter(groups)
    if not 2 <= folds <= len(sizes):
        msg = f"{len(sizes)} patients cannot be split into {folds} folds; at least two folds with a patient each"
        raise ValueError(msg)
    filled = [0] * folds
    assigned = {}
    for group in sorted(sizes, key=lambda g: (-sizes[g], _rank(g, seed))):
        fold = min(range(folds), key=lambda f: (filled[f], _rank(f"{group}/{f}", seed)))
        assigned[group] = fold
        filled[fold] += sizes[group]
    return assigned


def split_folds(groups: Sequence[str], *, folds: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """List, fold by fold, the positions of the samples to train on and of those to validate on.

    Raises
    ------
    ValueError
        As :func:`assign_folds`.
    """
    assigned = assign_folds(groups, folds=folds, seed=seed)
    return [
        (
            [i for i, group in enumerate(groups) if assigned[group] != fold],
            [i for i, group in enumerate(groups) if assigned[group] == fold],
        )
        for fold in range(folds)
    ]


def split_holdout(groups: Sequence[str], *, fraction: float = 0.2, seed: int = 0) -> tuple[list[int], list[int]]:
    """Set patients aside, in the order of a hash of their names, until the fraction of samples is reached or nearest.

    A patient's place in that order does not depend on the others, so that adding samples moves few patients.

    Parameters
    ----------
    groups : sequence of str
        Patient of each sample.
    fraction : float
        Of the samples, to hold out; at least one patient stays on each side.
    seed : int
        Another seed, another split.

    Returns
    -------
    train, held_out : list of int
        Positions of samples.

    Raises
    ------
    ValueError
        If there are fewer than two patients or the fraction is not between 0 and 1.
    """
    sizes = Counter(groups)
    if len(sizes) < 2 or not 0 < fraction < 1:
        msg = f"cannot hold out {fraction} of the samples of {len(sizes)} patients"
        raise ValueError(msg)
    wanted = fraction * len(groups)
    held: set[str] = set()
    taken = 0
    for group in sorted(sizes, key=lambda g: _rank(g, seed))[:-1]:
        if held and abs(taken + sizes[group] - wanted) > abs(taken - wanted):
            break
        held.add(group)
        taken += sizes[group]
    return (
        [i for i, group in enumerate(groups) if group not in held],
        [i for i, group in enumerate(groups) if group in held],
    )


def find_leaks(*parts: Sequence[str]) -> set[str]:
    """Find patients that stand in more than one part of a published split.

    Examples
    --------
    >>> find_leaks(["a", "b"], ["b", "c"])
    {'b'}
    """
    seen = Counter(group for part in parts for group in set(part))
    return {group for group, times in seen.items() if times > 1}


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
