"""The bench of accuracy against speed: networks are what they are called, and runs are the recipe's, shorter."""

import pytest
from bench.tradeoff import VARIANTS, draw, shorten

from pathopan.classes import BREAST
from pathopan.training.recipe import read_recipe
from pathopan.training.train import describe


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_differ_in_their_network_only(name: str) -> None:
    recipe = read_recipe("breast-he-3")
    short = shorten(recipe, name, 1000)
    assert (short.steps, short.outline_step, short.shares) == (1000, 300, recipe.shares)
    weights = sum(p.numel() for p in describe(short, BREAST).build().parameters())
    ships = sum(p.numel() for p in describe(recipe, BREAST).build().parameters())
    assert (weights > ships, weights < ships) == (False, name != "lite2, as it ships")


def test_the_picture_is_written(tmp_path) -> None:
    keys = ("BRCA-M2C class_f1 mean", "BRCA-M2C detection_f1 all", "CoNSeP pq all")
    rows = [
        {"network": name, "mirrored": mirrored, "ms_per_tile": 40 + 120 * mirrored, **dict.fromkeys(keys, 0.7)}
        for name in VARIANTS
        for mirrored in (False, True)
    ]
    draw(rows, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
