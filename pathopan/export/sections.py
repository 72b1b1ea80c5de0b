"""Turn nested records into tables for people: names with units, few digits, reasons where empty. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

_UNITS: Sequence[tuple[str, str]] = (
    ("_per_mm2", "per mm²"),
    ("_mm2", "mm²"),
    ("_um2", "µm²"),
    ("_percent", "%"),
    ("_um", "µm"),
    ("_mpp", "µm/px"),
    ("_s", "s"),
)
_WORDS = {
    "til": "TIL", "tils": "TILs", "stil": "sTIL", "itil": "iTIL", "ci": "95 % interval", "cv": "CV", "iqr": "IQR",
    "n": "number of", "mutils": "MuTILs", "mpp": "µm/px", "id": "ID", "qc": "QC", "prob": "probability",
}  # fmt: skip
_RESERVED = ("reason", "reasons", "definition", "definitions", "unit", "units")
_INTERVAL_ENDS = {"_ci_low": "95 % interval from", "_ci_high": "95 % interval to"}
EMPTY = "–"


@dataclass(frozen=True)
class Cell:
    """One value as shown: ``sort`` orders a column, ``note`` is its full value or why it is empty."""

    text: str
    sort: float | str | None = None
    note: str = ""
    interval: str = ""


@dataclass(frozen=True)
class Head:
    """A column or row title: what is shown, its unit, its name in the files, and what it means."""

    text: str
    unit: str
    name: str
    meaning: str = ""


@dataclass(frozen=True)
class Section:
    """A table with a title."""

    title: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[Head, tuple[Cell, ...]], ...]


def head(name: str, definitions: Mapping[str, str] | None = None) -> Head:
    """Make a title of a name in the files.

    Examples
    --------
    >>> head("stil_density_per_mm2").text, head("stil_density_per_mm2").unit
    ('sTIL density', 'per mm²')
    """
    meaning = (definitions or {}).get(name, "")
    for suffix, shown in _INTERVAL_ENDS.items():
        if name.endswith(suffix):
            base = head(name.removesuffix(suffix))
            return Head(f"{base.text}, {shown}", base.unit, name, meaning)
    stem, unit = name, ""
    for suffix, shown in _UNITS:
        if name.endswith(suffix) and name != suffix:
            stem, unit = name.removesuffix(suffix), shown
            break
    stem = f"{stem}s" if stem == "n_til" else stem
    words = " ".join(_WORDS.get(word, word) for word in stem.split("_") if word)
    shown = words if words[1:2].isupper() else words[:1].upper() + words[1:]
    return Head(shown, unit, name, meaning)


def cell(value: Any, note: str = "") -> Cell:
    """Show a value with the digits that a reader can use.

    Examples
    --------
    >>> cell(1234567.0).text, cell(0.01234567).text
    ('1,234,567', '0.0123')
    >>> cell(None, "no stroma")
    Cell(text='–', sort=None, note='no stroma', interval='')
    """
    if is_empty(value):
        return Cell(EMPTY, None, note)
    if isinstance(value, bool):
        return Cell("yes" if value else "no", float(value), note)
    if isinstance(value, int):
        return Cell(f"{value:,}", float(value), note)
    if isinstance(value, float):
        return Cell(_short(value), value, note or repr(value))
    if isinstance(value, list | tuple) and len(value) <= 4:
        return Cell(" – ".join(cell(part).text for part in value), None, note)
    return Cell(str(value), str(value), note)


def is_empty(value: Any) -> bool:
    """Tell whether there is nothing to show: no number, or a name that is left out, such as of no phenotype."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _short(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size and size < 1e-3:
        return f"{value:.2e}"
    digits = max(0, 2 - math.floor(math.log10(size))) if size else 0
    return f"{value:.{min(digits, 4)}f}"


def sections(record: Mapping[str, Any], definitions: Mapping[str, str] | None = None, title: str = "") -> list[Section]:
    """Lay out a nested record: plain values as one list, a dict of like dicts as a table, a list of dicts as a table.

    Parameters
    ----------
    record : mapping
        Such as ``score.json``. ``reasons`` in any dict says why a value of that dict is empty.
    definitions : mapping of str to str, optional
        What a name means, shown on hover.
    title : str
        Of the plain values at the top.

    Returns
    -------
    list of Section
    """
    meanings = {**(definitions or {}), **_texts(record.get("definitions"))}
    reasons = _texts(record.get("reasons"))
    plain = {key: value for key, value in record.items() if _is_plain(value) and key not in _RESERVED}
    found = [_list(title, plain, reasons, meanings)] if plain else []
    for key, value in record.items():
        if key in _RESERVED or key in plain:
            continue
        shown = " · ".join(part for part in (title, head(key).text) if part)
        rows = _as_rows(value)
        if rows:
            found.append(_table(shown, rows, meanings))
        elif isinstance(value, Mapping):
            found += sections(value, meanings, shown)
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 4 and all(_is_plain(part) for part in value)
    return not isinstance(value, Mapping)


def _texts(value: Any) -> dict[str, str]:
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, Mapping) else {}


def _as_rows(value: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Give the rows of a dict of dicts, or of a list of dicts, whose values are plain; none if it is neither."""
    if isinstance(value, Mapping):
        pairs = [(str(key), row) for key, row in value.items() if key not in _RESERVED]
    elif isinstance(value, list | tuple):
        pairs = [(str(number), row) for number, row in enumerate(value, start=1)]
    else:
        return []
    flat = all(
        isinstance(row, Mapping) and all(_is_plain(v) for k, v in row.items() if k not in _RESERVED) for _, row in pairs
    )
    return pairs if flat else []


def _list(title: str, values: Mapping[str, Any], reasons: Mapping[str, str], meanings: Mapping[str, str]) -> Section:
    names, intervals = fold_intervals(values)
    rows = tuple(
        (head(name, meanings), (_with(values, name, reasons.get(name, ""), intervals.get(name)),)) for name in names
    )
    return Section(title, (), rows)


def interval_names(name: str) -> tuple[tuple[str, str], ...]:
    """Give the names that the ends of a value's interval may have: after the whole name, or the name without its unit.

    Examples
    --------
    >>> interval_names("a_per_mm2")[1]
    ('a_ci_low', 'a_ci_high')
    """
    stem = next((name.removesuffix(unit) for unit, _ in _UNITS if name.endswith(unit)), name)
    return tuple((f"{base}_ci_low", f"{base}_ci_high") for base in dict.fromkeys((name, stem)))


def fold_intervals(names: Iterable[str]) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """Set the ends of intervals apart from the values that they belong to.

    Parameters
    ----------
    names : iterable of str
        Such as ``a_per_mm2, a_per_mm2_ci_low, a_per_mm2_ci_high``; ``a_ci_low`` belongs to it as well.

    Returns
    -------
    names : list of str
        Without the ends that found their value.
    intervals : dict of str to (str, str)
        The names of a value's two ends.

    Examples
    --------
    >>> fold_intervals(["a_per_mm2", "a_ci_low", "a_ci_high", "b"])
    (['a_per_mm2', 'b'], {'a_per_mm2': ('a_ci_low', 'a_ci_high')})
    """
    known = list(names)
    intervals = {}
    for name in known:
        for ends in interval_names(name):
            if set(ends) <= set(known):
                intervals[name] = ends
                break
    folded = {end for ends in intervals.values() for end in ends}
    return [name for name in known if name not in folded], intervals


def _with(values: Mapping[str, Any], name: str, note: str, ends: tuple[str, str] | None) -> Cell:
    """Show a value and, where it has one, its interval."""
    shown = cell(values.get(name), note)
    low, high = (cell(values.get(end)) for end in ends) if ends else (Cell(EMPTY), Cell(EMPTY))
    if EMPTY in (shown.text, low.text, high.text):
        return shown
    return replace(shown, interval=f"{low.text} – {high.text}")


def row_cells(row: Mapping[str, Any], names: Iterable[str], intervals: Mapping[str, tuple[str, str]]) -> list[Cell]:
    """Show the named values of a row, with the reasons that it holds for empty ones."""
    reasons, reason = _texts(row.get("reasons")), str(row.get("reason") or "")
    shown = []
    for name in names:
        note = reasons.get(name, reason) if name in row and is_empty(row[name]) else ""
        shown.append(_with(row, name, note, intervals.get(name)))
    return shown


def _table(title: str, rows: Iterable[tuple[str, Mapping[str, Any]]], meanings: Mapping[str, str]) -> Section:
    """Lay out like rows; what is many goes along the page and what is few across it."""
    pairs = list(rows)
    known = dict.fromkeys(key for _, row in pairs for key in row if key not in _RESERVED)
    names, intervals = fold_intervals(known)
    heads = tuple(head(name, meanings) for name in names)
    sides = tuple(head(key, meanings) for key, _ in pairs)
    cells = [row_cells(row, names, intervals) for _, row in pairs]
    if len(names) > max(len(pairs), 8):
        columns = tuple(tuple(column) for column in zip(*cells, strict=True))
        return Section(title, sides, tuple(zip(heads, columns, strict=True)))
    return Section(title, heads, tuple((side, tuple(row)) for side, row in zip(sides, cells, strict=True)))


def find_value(record: Mapping[str, Any], name: str) -> tuple[Any, str]:
    """Find a value by its name at any depth, and the reason that stands beside it if it is empty.

    Examples
    --------
    >>> find_value({"headline": {"a": None, "reasons": {"a": "no stroma"}}}, "a")
    (None, 'no stroma')
    """
    if name in record and not isinstance(record[name], Mapping):
        return record[name], _texts(record.get("reasons")).get(name, str(record.get("reason") or ""))
    for key, value in record.items():
        if isinstance(value, Mapping) and key not in _RESERVED:
            found = find_value(value, name)
            if found != (None, ""):
                return found
    return None, ""
