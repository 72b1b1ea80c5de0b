"""The commands of a cluster's jobs: one stage of one slide each. ``workflows/cohort`` calls them; so can a person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pathopan.config import load_config
from pathopan.errors import ConfigError
from pathopan.options import (
    DEFAULT_BUNDLE,
    Anonymous,
    BundleName,
    ConfigFile,
    Device,
    Gpus,
    Mpp,
    Out,
    Paths,
    Recursive,
    Set,
    Tissue,
    Workers,
)

if TYPE_CHECKING:
    from pathopan.jobs.state import JobState

app = typer.Typer()

Planned = Annotated[Path, typer.Argument(help="Folder of a planned run.")]
SlideId = Annotated[str, typer.Option("--slide", help="Name of one of its slides.")]


@app.command()
def plan(
    paths: Paths,
    out: Out,
    bundle: BundleName = DEFAULT_BUNDLE,
    device: Device = "auto",
    slide_mpp: Mpp = None,
    tissue: Tissue = None,
    workers: Workers = 2,
    config: ConfigFile = None,
    set_: Set = [],  # noqa: B006 (typer copies it)
    recursive: Recursive = False,
    anonymous: Anonymous = False,
) -> None:
    """Write down what a run shall do, for tile, predict, stitch, score, export and tables to do it slide by slide.

    With --anonymous, OUT/private.json alone holds the slides' paths, for the jobs: keep it out of what you share.

    Example: pathopan plan slides.csv --out results
    """
    from pathopan.batch import RunSettings
    from pathopan.jobs.segment import plan_run
    from pathopan.manifest import find_slides

    entries = find_slides(paths, recursive=recursive, slide_mpp=slide_mpp)
    settings = load_config(config, overrides=[*set_, *(["export.anonymous=true"] if anonymous else [])])
    plan_run(entries, RunSettings(out, bundle, settings, device, workers=workers, tissue=tissue))
    typer.echo(f"{len(entries)} slides planned: {out}")


@app.command()
def tile(out: Planned, slide: SlideId) -> None:
    """Find a slide's tissue and choose its tiles: the first job of a slide. A bad slide is refused, with exit code 0.

    Example: pathopan tile results --slide S-0417
    """
    from pathopan.jobs.plan import read_plan
    from pathopan.jobs.segment import tile_job

    _end(tile_job(read_plan(out), slide))


@app.command()
def predict(
    out: Planned,
    slide: SlideId,
    shard: Annotated[str, typer.Option(help="i/n: this job is the i-th of n that share the slide's tiles.")] = "1/1",
    workers: Annotated[int | None, typer.Option("--workers", "-w", min=0, help="In place of the plan's.")] = None,
    gpus: Gpus = "",
) -> None:
    """Look at a slide's tiles, or at a part of them; finished tiles are kept, and the same command again goes on.

    Example: pathopan predict results --slide S-0417 --shard 1/2
    """
    from pathopan.batch import read_gpus
    from pathopan.console import open_watcher
    from pathopan.jobs.plan import read_plan
    from pathopan.jobs.segment import Part, predict_job

    part, numbers = Part.parse(shard), read_gpus(gpus)
    with open_watcher() as watcher:
        watcher.slide(f"{slide} {shard}", part.number, part.total)
        state = predict_job(read_plan(out), slide, part, watcher.progress, workers=workers, gpus=numbers)
        watcher.finished(slide, state.state)
    _end(state)


@app.command()
def stitch(out: Planned, slide: SlideId) -> None:
    """Merge what all parts saw into the slide's label maps and nuclei; fails if a part is missing.

    Example: pathopan stitch results --slide S-0417
    """
    from pathopan.jobs.plan import read_plan
    from pathopan.jobs.segment import stitch_job

    _end(stitch_job(read_plan(out), slide))


@app.command()
def tables(out: Planned) -> None:
    """Write the cohort's tables and page from what is there; slides that are not finished are listed as failures.

    Example: pathopan tables results
    """
    from pathopan.jobs.plan import read_plan
    from pathopan.jobs.tables import tables_job

    unfinished, notes = tables_job(read_plan(out))
    for note in notes:
        typer.echo(f"note: {note}")
    for failure in unfinished:
        typer.echo(f"UNFINISHED {failure.slide_id} ({failure.stage}): {failure.message}")
    typer.echo(f"tables: {out / 'scores.csv'}, {out / 'failures.csv'}, {out / 'report.html'}")


def score_slide(out: Path, slide: str, *, other: bool) -> NoReturn:
    """Score one stitched slide of a planned run; ``other`` options are refused, as all jobs follow the plan."""
    from pathopan.jobs.plan import read_plan
    from pathopan.jobs.tables import score_job

    _refuse(other)
    _end(score_job(read_plan(out), slide))


def export_slide(out: Path, slide: str, *, other: bool) -> NoReturn:
    """Export one scored slide of a planned run; ``other`` options are refused, as all jobs follow the plan."""
    from pathopan.jobs.plan import read_plan
    from pathopan.jobs.tables import export_job

    _refuse(other)
    _end(export_job(read_plan(out), slide))


def _refuse(other: bool) -> None:
    if other:
        msg = "--slide alone does a job of a planned run, by the settings of the plan; leave the other options out"
        raise ConfigError(msg)


def _end(state: JobState) -> NoReturn:
    """Say how a job ended; only one that failed exits 1, as a refused slide is an answer."""
    typer.echo(str(state), err=state.state == "failed")
    raise typer.Exit(1 if state.state == "failed" else 0)
