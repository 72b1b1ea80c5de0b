"""The README's pictures from a finished run of the demo slide: ``python docs/make_pictures.py demo-out docs/pictures``.

``make pictures`` runs the demo first. The page's picture needs a Chromium and is left as it is without one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot
from PIL import Image

import pathopan

CLOSE_UP_UM = (420.0, 330.0, 680.0, 590.0)  # a nest, its border, and lymphocytes beside it
DPI = 110


def overlay(slide: object, target: Path) -> None:
    """Draw the whole slide, its distance bands, and a close-up with every nucleus."""
    figure, axes = pyplot.subplots(1, 3, figsize=(14, 5), layout="constrained", width_ratios=[1, 1.3, 1.6])
    pathopan.plot.overlay(slide, layers=("regions",), opacity=0.45, axis=axes[0]).set_title("Regions")
    pathopan.plot.overlay(slide, CLOSE_UP_UM, mpp=0.25, opacity=0.25, axis=axes[1]).set_title("Close up: every nucleus")
    pathopan.plot.bands(slide, axis=axes[2]).set_title("Distance bands and tumor bed")
    for axis in axes[1:]:
        axis.set_ylabel("")
    save(figure, target)


def save(figure: object, target: Path) -> None:
    """Save a figure as JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "figure.png"
        figure.savefig(raw, dpi=DPI)
        Image.open(raw).convert("RGB").save(target, quality=86, optimize=True)


def page(report: Path, target: Path) -> None:
    """Take a picture of a page's upper part."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        sys.stderr.write("no Chromium: the picture of the page stays as it is\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "page.png"
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1360,1010"]
        command = [
            program,
            *words,
            f"--user-data-dir={folder}/profile",
            f"--screenshot={raw}",
            report.resolve().as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True)
        Image.open(raw).convert("RGB").save(target, quality=84, optimize=True)


def main(run: Path, folder: Path) -> None:
    """Make all pictures."""
    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    (slide,) = pathopan.open_result(run)
    overlay(slide, folder / "overlay.jpg")
    page(slide.path / "report.html", folder / "report.jpg")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
