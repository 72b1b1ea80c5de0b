"""Figures of a run for notebooks and papers: each draws on an axis, yours or a new one, and gives it back.

>>> import pathopan                                                        # doctest: +SKIP
>>> slide = pathopan.open_result("results").slide("S-0417")                # doctest: +SKIP
>>> pathopan.plot.overlay(slide); pathopan.plot.region_densities(slide)    # doctest: +SKIP

Colors are the classes' own, or of Paul Tol's schemes for color-blind eyes. Needs ``pip install 'pathopan[notebook]'``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.classes import NucleusClass, RegionClass
from pathopan.errors import MissingExtra, SchemaError, ShapeMismatch
from pathopan.export.bands import bands_layer, bands_legend, find_bands
from pathopan.export.geoparquet import Bounds
from pathopan.export.overlay import HEAT_STOPS, density_map
from pathopan.objects import CompartmentRules
from pathopan.result import Layer, Result, SlideResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BRIGHT: Sequence[str] = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Paul Tol's *bright* scheme: told apart by color-blind eyes."""

_PIXELS = 1_500  # of a picture's longer side, where nothing else is asked for
_MM_FROM_UM = 2_000.0  # wider pictures are labelled in mm
_BAND_OPACITY = 0.65


def overlay(
    slide: SlideResult,
    bounds_um: Bounds | None = None,
    *,
    mpp: float | None = None,
    layers: Sequence[Layer] = ("regions", "nuclei"),
    opacity: float = 0.35,
    axis: Axes | None = None,
) -> Axes:
    """Show a slide, or a rectangle of it, with region colors, nucleus outlines, a scale in um or mm, and a legend.

    Parameters
    ----------
    slide : SlideResult
        From ``result.slide(...)``.
    bounds_um : (float, float, float, float), optional
        ``x0, y0, x1, y1`` in micrometres from the slide's corner; without it, the whole slide.
    mpp : float, optional
        Micrometres per pixel; without it, so that the picture is about 1,500 pixels wide.
    layers : sequence of {"regions", "nuclei"}
        What to draw.
    opacity : float
        Of the region colors, 0 to 1.
    axis : Axes, optional
        Where to draw.

    Raises
    ------
    MissingExtra
        If Matplotlib is not installed.
    """
    axis = _axis(axis)
    bounds = bounds_um or _whole(slide)
    scale = mpp or max(0.25, max(bounds[2] - bounds[0], bounds[3] - bounds[1]) / _PIXELS)
    _picture(axis, slide.overlay(bounds, mpp=scale, layers=layers, opacity=opacity), bounds)
    kinds: list[tuple[str, RegionClass | NucleusClass]] = []
    if "regions" in layers:
        kinds += [("s", kind) for kind in slide.taxonomy.regions if kind.role != "background"]
    if "nuclei" in layers:
        kinds += [("o", kind) for kind in slide.taxonomy.nuclei]
    for marker, kind in kinds:
        face = _rgb(kind.color) if marker == "s" else "none"
        axis.plot([], [], marker, color=_rgb(kind.color), markerfacecolor=face, label=kind.name)
    if kinds:
        axis.legend(loc="lower right", framealpha=0.9, fontsize="small", ncols=2 if len(layers) > 1 else 1)
    return axis


def density(slide: SlideResult, *, role: str = "til", sigma_um: float = 100.0, axis: Axes | None = None) -> Axes:
    """Show where nuclei of a role are dense on the tissue: a picture to look at, not a score.

    Parameters
    ----------
    slide : SlideResult
        From ``result.slide(...)``.
    role : {"til", "tumor", "stromal", "other"}
        Which nuclei.
    sigma_um : float
        Width of the Gaussian that smooths them.
    axis : Axes, optional
        Where to draw.
    """
    axis = _axis(axis)
    bounds = _whole(slide)
    mpp = max(slide.panoptic.mpp, max(bounds) / _PIXELS)
    tissue = np.isin(slide.region_map(bounds, mpp), [c.id for c in slide.taxonomy.regions if c.role != "background"])
    chosen = slide.nuclei[slide.nuclei["class_id"].isin(slide.taxonomy.nucleus_ids(role))]  # type: ignore[arg-type]
    points = chosen[["x_um", "y_um"]].to_numpy(np.float64) / mpp
    per_mm2 = density_map(points, tissue, mpp=mpp, sigma_um=sigma_um)
    _picture(axis, slide.overlay(bounds, mpp=mpp, layers=()), bounds)
    colors = importlib.import_module("matplotlib.colors").LinearSegmentedColormap.from_list(
        "cividis", [_rgb(stop) for stop in HEAT_STOPS]
    )
    top = float(np.nanquantile(per_mm2, 0.995)) if np.isfinite(per_mm2).any() else 1.0
    drawn = axis.imshow(per_mm2, extent=_extent(bounds), cmap=colors, vmin=0, vmax=top or 1.0, alpha=0.8)
    axis.figure.colorbar(drawn, ax=axis, shrink=0.7, label=f"{role} nuclei per mm²")
    return axis


def bands(slide: SlideResult, *, axis: Axes | None = None) -> Axes:
    """Show distance bands around tumor and the border of the tumor bed, with each band's TIL density in the legend.

    Parameters
    ----------
    slide : SlideResult
        From ``result.slide(...)``; its settings give the widths.
    axis : Axes, optional
        Where to draw.
    """
    axis = _axis(axis)
    bounds = _whole(slide)
    mpp = max(slide.panoptic.mpp, max(bounds) / _PIXELS)
    rules = CompartmentRules(**slide.score.get("settings", {}).get("objects", {}))
    found = find_bands(slide.region_map(bounds, mpp), taxonomy=slide.taxonomy, mpp=mpp, rules=rules)
    _picture(axis, slide.overlay(bounds, mpp=mpp, layers=()), bounds)
    layer = bands_layer(found).astype(np.float64) / 255
    layer[..., 3] *= _BAND_OPACITY
    axis.imshow(layer, extent=_extent(bounds))
    for band in bands_legend(found, slide.score):
        value = band["density_per_mm2"]
        told = f"{band['title']}: {value:,.0f} TILs/mm²" if value is not None else band["title"]
        axis.plot([], [], "s", color=_rgb(band["color"]), label=told)
    axis.plot([], [], color="black", label="border of the tumor bed")
    axis.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize="small")
    return axis


def region_densities(slide: SlideResult, *, largest: int = 15, axis: Axes | None = None) -> Axes:
    """Draw the TIL density of a slide's largest regions with its 95 % interval, colored by class.

    Parameters
    ----------
    slide : SlideResult
        From ``result.slide(...)``.
    largest : int
        How many regions, at most; those too small to bear a ratio are left out.
    axis : Axes, optional
        Where to draw.
    """
    axis = _axis(axis)
    table = slide.regions.dropna(subset="til_density_per_mm2").nlargest(largest, "area_mm2")
    table = table.sort_values("til_density_per_mm2", kind="stable")
    value = table["til_density_per_mm2"].to_numpy(np.float64)
    low, high = (_reach(value, table[f"til_density_ci_{end}"]) for end in ("low", "high"))
    names = [
        f"{name} {number} ({area:.2g} mm²)" for name, number, area in table[["class", "region_id", "area_mm2"]].values
    ]
    colors = [_rgb(slide.taxonomy.region(int(number)).color) for number in table["class_id"]]
    axis.barh(names, value, xerr=[low, high], color=colors, ecolor="0.25", capsize=3)
    axis.set(xlabel="TILs per mm² (95 % interval)", xlim=(0, None))
    return _bare(axis)


def distribution(
    scores: pd.DataFrame | Result, column: str = "stil_percent", *, by: str | None = None, axis: Axes | None = None
) -> Axes:
    """Draw a score of many slides: a dot for each with its 95 % interval where the table has one, and the median.

    Parameters
    ----------
    scores : DataFrame or Result
        ``result.scores``, some rows of it, or the result; the title counts slides without the score.
    column : str
        The score.
    by : str, optional
        A column whose values get a color each, such as ``phenotype``.
    axis : Axes, optional
        Where to draw.

    Raises
    ------
    SchemaError
        If the table lacks the column.
    """
    scores = scores.scores if isinstance(scores, Result) else scores
    missing = [name for name in (column, by) if name and name not in scores.columns]
    if missing:
        msg = f"the table has no column {', '.join(map(repr, missing))}"
        raise SchemaError(msg)
    axis = _axis(axis)
    known = scores[scores[column].notna()].sort_values(column, kind="stable")
    rank, value = np.arange(1, len(known) + 1), known[column].to_numpy(np.float64)
    stem = next((s for s in (column, column.removesuffix("_per_mm2")) if f"{s}_ci_low" in known.columns), None)
    groups = known[by].astype(str).to_numpy() if by else np.full(len(known), "")
    for color, name in zip(BRIGHT, dict.fromkeys(sorted(groups)), strict=False):
        own = groups == name
        if stem:
            ends = [known.loc[own, f"{stem}_ci_{end}"].to_numpy(np.float64, na_value=np.nan) for end in ("low", "high")]
            axis.vlines(rank[own], *ends, color=color, alpha=0.5, linewidth=1.5)
        axis.plot(rank[own], value[own], "o", color=color, markersize=5, label=f"{name} ({own.sum()})" if by else None)
    if len(value):
        axis.axhline(np.median(value), color="0.3", linestyle="--", linewidth=1, label=f"median {np.median(value):.3g}")
        axis.legend(frameon=False, loc="upper left")
    axis.set(xlabel="slides, by rank", ylabel=column, title=f"{len(known)} of {len(scores)} slides have it")
    return _bare(axis)


def survival(
    years: npt.ArrayLike,
    event: npt.ArrayLike,
    groups: Sequence[Any],
    *,
    ticks: Sequence[float] | None = None,
    axis: Axes | None = None,
) -> Axes:
    """Draw Kaplan-Meier curves of groups with 95 % bands, censoring marks, numbers at risk and the log-rank test.

    Parameters
    ----------
    years : (N,) float
        Follow-up of each patient.
    event : (N,) bool or int
        Whether it ended in the event (1) or was censored (0).
    groups : sequence of N names
        The group of each patient; choose it without a look at the outcomes.
    ticks : sequence of float, optional
        Years at which those at risk are counted; the figure ends with the last.
    axis : Axes, optional
        Where to draw.

    Raises
    ------
    MissingExtra
        If lifelines or Matplotlib is not installed.
    ShapeMismatch
        If the three are not of one length.

    Notes
    -----
    Kaplan & Meier, J Am Stat Assoc 53:457 (1958), with Greenwood's interval on the log(-log) scale; the log-rank test
    compares all groups at once.
    """
    axis = _axis(axis)
    _require("lifelines")
    lifelines, statistics = (importlib.import_module(f"lifelines{name}") for name in ("", ".statistics"))
    time, ended, names = np.asarray(years, np.float64), np.asarray(event, np.float64), np.asarray(groups, object)
    if not len(time) == len(ended) == len(names):
        msg = f"years, event and groups must have one length, found {len(time)}, {len(ended)} and {len(names)}"
        raise ShapeMismatch(msg)
    marks = np.unique(np.round(np.linspace(0, time.max(initial=1), 6))) if ticks is None else np.asarray(ticks, float)
    for row, (color, name) in enumerate(zip(BRIGHT, dict.fromkeys(names.tolist()), strict=False)):
        own = names == name
        fit = lifelines.KaplanMeierFitter().fit(
            time[own], ended[own], label=f"{name} ({own.sum()}, {ended[own].sum():.0f} events)"
        )
        fit.plot_survival_function(
            ax=axis, color=color, show_censors=True, censor_styles={"ms": 5, "marker": "|"}, linewidth=2
        )
        for tick in marks:
            axis.text(
                tick, -0.25 - 0.08 * row, str((time[own] >= tick).sum()),
                color=color, ha="center", transform=axis.get_xaxis_transform(),
            )  # fmt: skip
    axis.text(0, -0.18, "at risk", transform=axis.get_xaxis_transform(), fontsize=9, color="0.35")
    title = None
    if len(set(names.tolist())) > 1:
        p = statistics.multivariate_logrank_test(time, names.astype(str), ended).p_value
        title = f"log-rank p = {p:.3f}"
    axis.set(ylim=(0, 1.02), xlim=(0, marks[-1]), xticks=marks, xlabel="years", ylabel="free of event")
    axis.legend(title=title, alignment="left", frameon=False, loc="lower left", fontsize="small")
    return _bare(axis)


def _axis(axis: Axes | None) -> Axes:
    """Give the axis, or make one in a figure of its own."""
    if axis is not None:
        return axis
    _require("matplotlib")
    pyplot = importlib.import_module("matplotlib.pyplot")
    return pyplot.subplots(figsize=(7, 5), layout="constrained")[1]


def _require(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        msg = f"this figure needs {library}: pip install 'pathopan[notebook]'"
        raise MissingExtra(msg)


def _whole(slide: SlideResult) -> Bounds:
    height, width = slide.panoptic.region.shape
    return 0.0, 0.0, width * slide.panoptic.mpp, height * slide.panoptic.mpp


def _extent(bounds: Bounds) -> tuple[float, float, float, float]:
    """Give what Matplotlib calls an extent: um, or mm where the picture is wide."""
    unit = _unit(bounds)[0]
    return bounds[0] / unit, bounds[2] / unit, bounds[3] / unit, bounds[1] / unit


def _unit(bounds: Bounds) -> tuple[float, str]:
    wide = max(bounds[2] - bounds[0], bounds[3] - bounds[1]) >= _MM_FROM_UM
    return (1_000.0, "mm") if wide else (1.0, "µm")


def _picture(axis: Axes, image: npt.NDArray[np.uint8], bounds: Bounds) -> None:
    axis.imshow(image, extent=_extent(bounds), interpolation="antialiased")
    axis.set(xlabel=_unit(bounds)[1], ylabel=_unit(bounds)[1])


def _reach(value: npt.NDArray[np.float64], end: pd.Series) -> npt.NDArray[np.float64]:
    """Give how far an interval's end lies from its value; 0 where there is none."""
    return np.nan_to_num(np.abs(end.to_numpy(np.float64, na_value=np.nan) - value))


def _rgb(color: Sequence[int]) -> tuple[float, ...]:
    return tuple(part / 255 for part in color)


def _bare(axis: Axes) -> Axes:
    axis.spines[["top", "right"]].set_visible(False)
    return axis
