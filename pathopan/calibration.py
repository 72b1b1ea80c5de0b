"""Calibration to visual scores: fitted from a run and a table of readings, written to a file, applied in the open.

A calibration is a straight line with its interval. Nothing is calibrated unless a file was given with
``pathopan score --calibration``; a copy then lies in the run's folder, and every score says which line made it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pathopan.config import Config
from pathopan.errors import ConfigError, ShapeMismatch
from pathopan.files import atomic_path, check_regular, remove
from pathopan.record import command_line, now, read_json, replacing, write_json
from pathopan.result import Result, open_result
from pathopan.scores import Calibration, apply_calibration, fit_calibration
from pathopan.scores.summary import CALIBRATED

APPLIED = "calibration.applied.json"
"""In a run's folder: the calibration that its scores follow."""

FORMAT = "pathopan-calibration-1"

SCORES = ("stil_percent", "stil_area_fraction", "stil_dense_percent", "stil_density_per_mm2")
"""Scores that a calibration may start from."""

_WITHOUT_EFFECT = ("bootstrap", "seed", "inflamed_stil_percent", "inflamed_itil_per_mm2")


@dataclass(frozen=True)
class StoredCalibration:
    """A calibration as its file holds it."""

    line: Calibration
    score: str  # which score it starts from
    computed: tuple[float, float]  # least and greatest computed score that it was fitted on
    made: Mapping[str, Any]  # from which run and readings, when, with which settings
    sha256: str  # of the file


def fit_visual(out: Path, visual: Path, *, score: str = "stil_percent") -> dict[str, Any]:
    """Fit visual scores on computed ones.

    Parameters
    ----------
    out : Path
        Folder of a run.
    visual : Path
        CSV with the columns ``slide_id, stil_percent``: one reading a slide, in per cent.
    score : str
        Which computed score to start from.

    Returns
    -------
    dict
        What `write_calibration` writes: the line, its intervals, the pairs, and where all came from.

    Raises
    ------
    ConfigError
        If the table cannot be used, names a slide that the run does not have, or too few pairs are left.
    ResultError
        If the folder holds no run.
    """
    result = open_result(out)
    if score not in SCORES:
        msg = f"--score {score!r}: a calibration starts from one of {', '.join(SCORES)}"
        raise ConfigError(msg)
    readings = read_visual(visual)
    computed = result.scores.set_index(result.scores["slide_id"].astype(str))[score]
    unmatched = [name for name in readings.index if name not in computed.index]
    if unmatched:
        names = ", ".join(unmatched[:5]) + (f" and {len(unmatched) - 5} more" if len(unmatched) > 5 else "")
        msg = f"{visual}: no slide of {out} is called {names}; it has {', '.join(map(str, computed.index[:5]))} ..."
        raise ConfigError(msg)
    pairs = pd.DataFrame({"visual": readings, "computed": computed.reindex(readings.index).astype("float64")})
    known = pairs.dropna()
    try:
        line = fit_calibration(known["computed"].to_numpy(), known["visual"].to_numpy())
    except ShapeMismatch as error:
        msg = f"{visual}: {error} (of {len(readings)} readings, {len(pairs) - len(known)} have no computed score)"
        raise ConfigError(msg) from error
    return {
        "format": FORMAT,
        "score": score,
        **line.to_dict(),
        "pearson_r": float(known["computed"].corr(known["visual"])) if known["visual"].nunique() > 1 else None,
        "computed": [float(known["computed"].min()), float(known["computed"].max())],
        "made": {**_provenance(result, visual), "without_score": pairs.index[pairs["computed"].isna()].tolist()},
        "pairs": [{"slide_id": str(name), **row} for name, row in known.to_dict("index").items()],
    }


def _provenance(result: Result, visual: Path) -> dict[str, Any]:
    settings = _read_settings(result.path / "config.yaml")
    return {
        "time": now(),
        "command": command_line(),
        "run": str(result.path.resolve()),
        "visual": str(visual.resolve()),
        "visual_sha256": hashlib.sha256(visual.read_bytes()).hexdigest(),
        "bundle": result.run.get("bundle", {}),
        "settings": {room: settings.get(room, {}) for room in ("objects", "scores")},
    }


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}  # the calibration then cannot warn of other settings, and is as good
    return found if isinstance(found, dict) else {}


def read_visual(path: Path) -> pd.Series:
    """Read a table of visual scores.

    Returns
    -------
    Series
        Per cent, by slide.

    Raises
    ------
    ConfigError
        If it cannot be read, lacks a column, names a slide twice, or holds what is no number in 0..100.
    """
    try:
        check_regular(path)
        table = pd.read_csv(path, dtype="str", keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError, pd.errors.ParserError) as error:
        msg = f"{path}: cannot be read as CSV: {error}"
        raise ConfigError(msg) from error
    missing = [name for name in ("slide_id", "stil_percent") if name not in table.columns]
    if missing:
        msg = f"{path}: lacks the columns {missing}; it has {list(table.columns)}"
        raise ConfigError(msg)
    names, texts = table["slide_id"].str.strip(), table["stil_percent"].str.strip()
    values = pd.to_numeric(texts, errors="coerce")
    for name, text, value in zip(names, texts, values, strict=True):
        if not 0 <= value <= 100:  # NaN is neither
            msg = f"{path}: the reading of slide {name!r} is {text!r}; it must be a number in 0..100"
            raise ConfigError(msg)
    if names.duplicated().any():
        twice = names[names.duplicated()].iloc[0]
        msg = f"{path}: slide {twice!r} stands there twice; give one reading a slide, such as the readers' mean"
        raise ConfigError(msg)
    return pd.Series(values.to_numpy(), index=names.tolist(), dtype="float64")


def write_calibration(path: Path, fitted: Mapping[str, Any]) -> None:
    """Write what `fit_visual` gave."""
    write_json(path, fitted)


def describe_calibration(fitted: Mapping[str, Any]) -> list[str]:
    """Say in lines what was fitted."""
    left = fitted["made"]["without_score"]
    lines = [f"visual sTIL % = slope x {fitted['score']} + intercept, from {fitted['n']} slides"]
    for name in ("slope", "intercept"):
        low, high = fitted[f"{name}_ci"]
        lines.append(f"{name}\t{fitted[name]:.4g} ({low:.4g} to {high:.4g})")
    lines.append(f"residual_sd\t{fitted['residual_sd']:.4g} %")
    return lines + ([f"left out, without a computed score\t{', '.join(left)}"] if left else [])


def read_calibration(path: Path) -> StoredCalibration:
    """Read a calibration.

    Raises
    ------
    ConfigError
        If the file is missing or damaged, or of another format.
    """
    stored = read_json(path)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT or stored.get("score") not in SCORES:
        msg = f"{path}: no calibration of this version; make one with `pathopan calibrate`"
        raise ConfigError(msg)
    try:
        names = ("slope", "intercept", "residual_sd", "mean", "spread")
        plain = {name: float(stored[name]) for name in names}
        slope, intercept, computed = (_pair(stored[name]) for name in ("slope_ci", "intercept_ci", "computed"))
        line = Calibration(**plain, slope_ci=slope, intercept_ci=intercept, n=int(stored["n"]))
        sound = all(map(math.isfinite, (*plain.values(), *slope, *intercept, *computed)))
        sound = sound and line.n >= 3 and line.spread > 0 and isinstance(stored["made"], dict)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        msg = f"{path}: damaged ({error!r}); make it again with `pathopan calibrate`"
        raise ConfigError(msg) from error
    if not sound:
        msg = f"{path}: damaged (its numbers are no line through three points); make it again"
        raise ConfigError(msg)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return StoredCalibration(line, stored["score"], computed, stored["made"], digest)


def _pair(stored: Any) -> tuple[float, float]:
    low, high = stored
    return float(low), float(high)


def keep_calibration(path: Path, out: Path) -> None:
    """Copy a calibration into a run's folder, where it is applied from now on.

    Raises
    ------
    ConfigError
        If it is none.
    """
    read_calibration(path)
    raw = path.read_bytes()
    with replacing(out, APPLIED), atomic_path(out / APPLIED) as temporary:
        temporary.write_bytes(raw)


def drop_calibration(out: Path) -> None:
    """Apply no calibration any more."""
    with replacing(out, APPLIED):
        remove(out / APPLIED)


def applied_calibration(out: Path) -> StoredCalibration | None:
    """Read the calibration that a run's scores follow, if there is one."""
    return read_calibration(out / APPLIED) if (out / APPLIED).is_file() else None


def calibrated(headline: Mapping[str, Any], stored: StoredCalibration, config: Config) -> dict[str, Any]:
    """Give the section ``calibration`` of a score: the visual score that the line predicts, and the line itself.

    Parameters
    ----------
    headline : mapping
        ``headline`` of a slide's score.
    stored : StoredCalibration
        The line.
    config : Config
        Settings that the score was computed with; those that differ from the calibration's are told.
    """
    line, name = stored.line, stored.score
    value = headline.get(name)
    found: list[float | None] = [None, None, None]
    if value is not None:
        found = [float(part) for part in apply_calibration(line, value)]
    reason = headline.get("reasons", {}).get(name, "the slide has no such score")
    section = {
        **dict(zip(CALIBRATED, found, strict=True)),
        "calibrated_from": name,
        "slope": line.slope,
        "slope_ci_low": line.slope_ci[0],
        "slope_ci_high": line.slope_ci[1],
        "intercept": line.intercept,
        "intercept_ci_low": line.intercept_ci[0],
        "intercept_ci_high": line.intercept_ci[1],
        "residual_sd": line.residual_sd,
        "n_pairs": line.n,
        "computed_range": list(stored.computed),
        "extrapolated": value is not None and not stored.computed[0] <= value <= stored.computed[1],
        "other_settings": "; ".join(differing_settings(stored, config)),
        "fitted": stored.made.get("time", ""),
        "readings": stored.made.get("visual", ""),
        "readings_sha256": stored.made.get("visual_sha256", ""),
        "calibration_sha256": stored.sha256,
    }
    return section | ({"reasons": dict.fromkeys(CALIBRATED, reason)} if value is None else {})


def differing_settings(stored: StoredCalibration, config: Config) -> list[str]:
    """List settings that change scores and were others when the calibration was fitted."""
    then, today = stored.made.get("settings", {}), config.to_dict()
    return [
        f"{room}.{name} was {then[room][name]}, is {value}"
        for room in ("objects", "scores")
        for name, value in today[room].items()
        if name not in _WITHOUT_EFFECT and name in (then.get(room) or {}) and then[room][name] != value
    ]
