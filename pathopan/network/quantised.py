"""A bundle's network in 8 bits, as OpenVINO reads it: two files beside the weights, verified before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pathopan.errors import RuntimeUnavailable
from pathopan.network.bundle import Bundle, find_bundle, read_bundle, read_verified

INT8_FILES = ("int8.xml", "int8.bin")
"""OpenVINO's form of a network: its layers, and the numbers that they hold."""


class Quantised(NamedTuple):
    """A bundle's network in 8 bits, verified."""

    model: bytes  # of int8.xml
    weights: bytes  # of int8.bin
    crop: int  # pixels at each side of a tile that it answers not for


def find_quantised(name_or_path: str | Path) -> Quantised:
    """Read a bundle's network in 8 bits, and verify it.

    Parameters
    ----------
    name_or_path : str or Path
        Of a bundle.

    Raises
    ------
    RuntimeUnavailable
        If the bundle has none, or one of earlier weights.
    ChecksumMismatch
        If the files are not those that ``bundle.json`` promises.
    IncompatibleBundle
        If one cannot be read.
    """
    folder, bundle = find_bundle(name_or_path), read_bundle(name_or_path)
    told = quantised_entry(bundle)
    if told is None:
        msg = (
            f"bundle {bundle.name!r} has no network in 8 bits of its weights; use another inference.precision, or make "
            f"one: pathopan quantise {name_or_path} --data DATA"
        )
        raise RuntimeUnavailable(msg)
    model, weights = (read_verified(folder / name, told["sha256"].get(name)) for name in INT8_FILES)
    return Quantised(model, weights, told["crop"])


def quantised_entry(bundle: Bundle) -> dict[str, Any] | None:
    """Give what a bundle's card tells of its network in 8 bits, if there is one of the weights that it has."""
    told = bundle.card.get("int8")
    if not isinstance(told, dict) or told.get("weights") != bundle.sha256:
        return None
    return told if isinstance(told.get("sha256"), dict) and isinstance(told.get("crop"), int) else None
