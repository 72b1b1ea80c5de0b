"""Divide without lying: an empty value and a reason where there is nothing to divide by, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Number = float | int


class Ratio(NamedTuple):
    """A value, or why there is none."""

    value: float | None
    reason: str = ""

    def times(self, factor: float) -> Ratio:
        """Give the value in another unit."""
        return self if self.value is None else Ratio(self.value * factor)


def divide(numerator: Number, denominator: Number, *, what: str, least: float = 0.0, unit: str = "") -> Ratio:
    """Divide, unless the denominator is 0 or too small to bear a ratio.

    Parameters
    ----------
    numerator, denominator : float
        Both are reported beside the ratio by the caller.
    what : str
        What the denominator counts, for the reason.
    least : float
        A smaller denominator bears no ratio.
    unit : str
        Of the denominator, for the reason.

    Examples
    --------
    >>> divide(3, 2, what="stroma")
    Ratio(value=1.5, reason='')
    >>> divide(3, 0, what="stroma")
    Ratio(value=None, reason='no stroma')
    >>> divide(3, 0.004, what="stroma", least=0.01, unit="mm2").reason
    '0.004 mm2 of stroma is below the least of 0.01 mm2'
    """
    if denominator <= 0:
        return Ratio(None, f"no {what}")
    if denominator < least:
        return Ratio(None, f"{denominator:.3g} {unit} of {what} is below the least of {least:.3g} {unit}")
    return Ratio(float(numerator) / float(denominator))


def record(values: Mapping[str, Ratio | Number | str]) -> dict[str, Any]:
    """Lay values out for JSON: plain numbers, None where empty, and the reasons for those.

    Examples
    --------
    >>> record({"n": 3, "share": Ratio(None, "no nuclei")})
    {'n': 3, 'share': None, 'reasons': {'share': 'no nuclei'}}
    """
    plain = {name: value.value if isinstance(value, Ratio) else value for name, value in values.items()}
    reasons = {name: value.reason for name, value in values.items() if isinstance(value, Ratio) and value.value is None}
    return {**plain, "reasons": reasons} if reasons else plain
