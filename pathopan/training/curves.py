"""Reliability curves as a picture for the model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pathopan.errors import MissingExtra
from pathopan.metrics.reliability import Reliability


def draw_reliability(curves: Mapping[str, Reliability], path: Path) -> None:
    """Draw claimed against observed, before and after calibration; a point's size tells how many nuclei it stands for.

    Parameters
    ----------
    curves : mapping of str to Reliability
        ``class before``, ``class after``, ``detection before``, ``detection after``.
    path : Path
        PNG to write.

    Raises
    ------
    MissingExtra
        If Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "curves need Matplotlib: pip install 'pathopan[train]'"
        raise MissingExtra(msg) from error
    figure = Figure(figsize=(8, 4), layout="constrained")
    panels = {"class": "Is the likeliest class right?", "detection": "Is a detection a nucleus?"}
    for axes, (kind, title) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for when, colour in (("before", "#D55E00"), ("after", "#0072B2")):
            curve = curves[f"{kind} {when}"]
            share = curve.count / max(1, curve.count.sum())
            label = f"{when}: ECE {curve.ece:.3f}"
            axes.plot(curve.claimed, curve.observed, color=colour, linewidth=1)
            axes.scatter(curve.claimed, curve.observed, s=8 + 300 * share, color=colour, label=label)
        axes.set(title=title, xlabel="claimed probability", ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left", frameon=False)
    figure.savefig(path, dpi=100)
