"""A run, the demo and a score of edited regions, as a notebook calls them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pathopan.batch import Listener, RunSettings
from pathopan.config import Config, load_config
from pathopan.console import open_watcher
from pathopan.errors import SlideError
from pathopan.manifest import SlideEntry, find_slides
from pathopan.network.bundle import DEFAULT_BUNDLE
from pathopan.pipeline import run_cohort
from pathopan.rescore import Given, rescore_run
from pathopan.result import Result, open_result
from pathopan.slide.demo import fetch_demo_slide


def run(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    bundle: str | Path = DEFAULT_BUNDLE,
    config: Config | None = None,
    slide_mpp: float | None = None,
    device: str = "auto",
    workers: int = 2,
) -> Result:
    """Score slides as ``pathopan run`` does, and open the result.

    Parameters
    ----------
    paths : path or sequence of path
        Slides, folders of slides, or manifests.
    out : path
        Folder for the results; a second run goes on with it.
    bundle : str or path
        Network.
    config : Config, optional
        Settings.
    slide_mpp : float, optional
        Micrometres per level-0 pixel, for slides that do not say.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    workers : int
        Threads that read and as many that decode.

    Returns
    -------
    Result
        Slides that failed stand in ``result.failures``.

    Raises
    ------
    ManifestError, ConfigError, BundleError
        If no slide can be run at all.
    """
    given = [paths] if isinstance(paths, str | Path) else paths
    entries = find_slides([Path(path) for path in given], slide_mpp=slide_mpp)
    settings = RunSettings(Path(out), bundle, config or Config(), device, workers=workers)
    with open_watcher() as watcher:
        run_cohort(entries, settings, watcher)
    return open_result(out)


def run_demo(out: Path, listener: Listener, *, bundle: str | Path = DEFAULT_BUNDLE, device: str = "auto") -> list[str]:
    """Fetch the demo slide, run everything on it, and give the lines that say where to look.

    Parameters
    ----------
    out : Path
        Folder for the results.
    listener : Listener
        Is told what happens.
    bundle, device
        As for a run.

    Raises
    ------
    SlideError
        If the slide cannot be fetched, or could not be scored.
    """
    slide = fetch_demo_slide()
    outcome = run_cohort([SlideEntry(slide.stem, slide)], RunSettings(out, bundle, Config(), device), listener)
    for failure in outcome.failures:
        raise SlideError(failure.message)
    result = open_result(out)
    found = result.slide(slide.stem)
    return [
        f"{slide.name}: {len(found.nuclei)} nuclei in {len(found.regions)} regions.",
        "It is normal skin, not breast cancer: it shows that everything works, and its TIL scores mean nothing.",
        f"report:   {found.path / 'report.html'}",
        f"QuPath:   {found.path / (found.slide_id + '.regions.geojson')} and .nuclei.geojson.gz (drag onto the slide)",
        f"tables:   {out / 'scores.csv'}, {found.path / 'regions.parquet'}, {found.path / 'nuclei.parquet'}",
        f"label maps: {found.path / 'panoptic.ome.zarr'}",
        f"viewer:   pathopan view {out}",
        f"Python:   import pathopan; result = pathopan.open_result({str(out)!r}); result.scores",
    ]


def demo(out: str | Path = "demo-out", *, bundle: str | Path = DEFAULT_BUNDLE) -> Result:
    """Fetch the demo slide, run everything on it, and open the result.

    Raises
    ------
    SlideError
        If the slide cannot be fetched or scored.
    """
    with open_watcher() as watcher:
        run_demo(Path(out), watcher, bundle=bundle)
    result = open_result(out)
    if not len(result):
        msg = f"{out}: the demo left no complete slide"
        raise SlideError(msg)
    return result


def score(
    out: str | Path,
    *,
    regions: str | Path | None = None,
    slide: str | None = None,
    original: bool = False,
    config: Config | None = None,
) -> list[str]:
    """Score a finished run again as ``pathopan score`` does: with edited regions, or with other settings.

    Parameters
    ----------
    out : path
        Folder of a run. Open it again afterwards: an open result keeps the tables that it has read.
    regions : path, optional
        GeoJSON that QuPath exported; its regions stand in place of the network's from now on.
    slide : str, optional
        The slide of ``regions`` or ``original``, where it cannot be told.
    original : bool
        Return to the network's regions.
    config : Config, optional
        Settings; without them, those of the run.

    Returns
    -------
    list of str
        What changed: slide, score, and its value before and after, parted by tabs.

    Raises
    ------
    ResultError
        If the folder holds no run, or a slide's files are incomplete.
    ConfigError
        If the settings of the run cannot be read, or the regions cannot be used.
    """
    given = Given(Path(regions) if regions else None, slide, original)
    return rescore_run(Path(out), config or load_config(Path(out) / "config.yaml"), given)
