"""The command line: reads, calls, writes. One command per job; errors are one line, with what to do."""

from __future__ import annotations

import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pathopan import cli_batch, cli_jobs, cli_training
from pathopan.config import Format, NgffVersion, NucleusForm, load_config
from pathopan.errors import PathopanError, SlideError
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
    RuntimeName,
    Set,
    Tissue,
    Workers,
)

app = typer.Typer(
    name="pathopan",
    help=(
        "Whole-slide panoptic segmentation of breast cancer H&E and TIL scores. For research use only.\n\n"
        "Example: pathopan run slides/ --out results"
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(cli_batch.app)
app.add_typer(cli_jobs.app)
app.add_typer(cli_training.app)

Nuclei = Annotated[NucleusForm | None, typer.Option("--nuclei", help="How nuclei go into GeoJSON: export.nuclei.")]
Ngff = Annotated[NgffVersion | None, typer.Option("--ngff", help="OME-Zarr version: export.ngff.")]
Patience = Annotated[float, typer.Option(min=0.1, help="Minutes without progress until a slide is given up.")]


_INTERRUPTED = 130
"""Exit code after Ctrl-C, as of any program that SIGINT ended."""


def main() -> None:
    """Run the command line; exit 0 when all is done, 1 when a slide failed, 2 when it was used wrongly."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what is open is closed
    try:
        app()
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # typer has turned Ctrl-C into this
            sys.stderr.write("pathopan: interrupted; what is written stays, and the same command goes on from there\n")
        raise
    except Exception as error:
        if debug:
            raise
        text, code = describe_end(error)
        sys.stderr.write(f"pathopan: {text}\n")
        sys.exit(code)


def describe_end(error: Exception) -> tuple[str, int]:
    """Say in a line what went wrong, and give the exit code: 1 for a slide, 2 for wrong use, 3 for a defect."""
    text = " ".join(str(error).split())
    if isinstance(error, PathopanError):
        return text, 1 if isinstance(error, SlideError) else 2
    if isinstance(error, OSError):
        return f"{text}; check the disk and the permissions", 2
    if isinstance(error, MemoryError):
        return "memory ran out; use a machine with more, or fewer --workers", 2
    return f"{type(error).__name__}: {text}. A defect: please report it, with what --debug shows", 3


@app.command()
def run(
    paths: Paths,
    out: Out,
    bundle: BundleName = DEFAULT_BUNDLE,
    device: Device = "auto",
    runtime: RuntimeName = None,
    slide_mpp: Mpp = None,
    tissue: Tissue = None,
    workers: Workers = 2,
    config: ConfigFile = None,
    set_: Set = [],  # noqa: B006 (typer copies it)
    nuclei: Nuclei = None,
    ngff: Ngff = None,
    recursive: Recursive = False,
    overwrite: Annotated[bool, typer.Option(help="Do finished slides again.")] = False,
    dry_run: Annotated[bool, typer.Option(help="List the slides and stop.")] = False,
    anonymous: Anonymous = False,
    patience: Patience = 30,
    gpus: Gpus = "",
    isolate: Annotated[bool, typer.Option(help="Run slides in a process of their own, which may die.")] = True,
) -> None:
    """Score slides, one row each. A bad slide is listed and the rest go on; the same command again resumes.

    Example: pathopan run slides/ --out results --set scores.field_um=1000
    """
    from pathopan.manifest import find_slides

    entries = find_slides(paths, recursive=recursive, slide_mpp=slide_mpp)
    for entry in entries:
        if entry.named:
            typer.echo(
                f"note: slide {entry.named!r} of the manifest is called {entry.slide_id} in all outputs; "
                "manifest_id in scores.csv keeps its name",
                err=True,
            )
    chosen = [f"inference.runtime={runtime}"] if runtime else []
    exported = _export_settings(nuclei, ngff, anonymous=anonymous)
    settings = load_config(config, overrides=[*set_, *chosen, *exported])
    if dry_run:
        otherwise = f"mpp from file, else {slide_mpp}" if slide_mpp else "mpp from file"
        typer.echo("\n".join(f"{entry.slide_id}\t{entry.path}\t{entry.mpp or otherwise}" for entry in entries))
        return
    from pathopan.batch import RunSettings, read_gpus
    from pathopan.console import open_watcher
    from pathopan.pipeline import run_cohort

    job = RunSettings(out, bundle, settings, device, workers=workers, tissue=tissue, overwrite=overwrite)
    job = replace(job, isolate=isolate, patience_s=60 * patience, gpus=read_gpus(gpus))
    with open_watcher() as watcher:
        outcome = run_cohort(entries, job, watcher)
    typer.echo(f"{outcome.done} done, {outcome.skipped} complete already, {len(outcome.failures)} failed: {out}")
    for failure in outcome.failures:
        typer.echo(f"FAILED {failure.slide_id} ({failure.stage}): {failure.message} -> {failure.remedy}")
    for note in outcome.notes:
        typer.echo(f"note: {note}")
    raise typer.Exit(1 if outcome.failures else 0)


def _export_settings(nuclei: NucleusForm | None, ngff: NgffVersion | None, *, anonymous: bool) -> list[str]:
    """Turn options that many ask for into settings."""
    given = {"export.nuclei": nuclei, "export.ngff": ngff and f"'{ngff}'", "export.anonymous": anonymous and "true"}
    return [f"{name}={value}" for name, value in given.items() if value]


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("demo-out"),
    bundle: BundleName = DEFAULT_BUNDLE,
    device: Device = "auto",
) -> None:
    """Fetch a small real slide, run everything on it, and say where to look.

    Example: pathopan demo --out demo-out
    """
    from pathopan.api import run_demo
    from pathopan.console import open_watcher

    with open_watcher() as watcher:
        lines = run_demo(out, watcher, bundle=bundle, device=device)
    typer.echo("\n".join(lines))


@app.command()
def info(paths: Paths, slide_mpp: Mpp = None, recursive: Recursive = False) -> None:
    """Say what is known of slides: size, mpp, levels, warnings, or why one cannot be read.

    Example: pathopan info slides/
    """
    from pathopan.manifest import find_slides
    from pathopan.slide import open_slide

    failed = False
    for entry in find_slides(paths, recursive=recursive, slide_mpp=slide_mpp):
        try:
            given = entry.mpp_to_give()
            with open_slide(entry.path, slide_id=entry.slide_id, slide_mpp=given) as slide:
                found = slide.info
        except SlideError as error:
            failed = True
            typer.echo(f"{entry.slide_id}\tFAILED\t{error}")
            continue
        size, mpp = "x".join(map(str, found.size_l0)), " x ".join(f"{value:.4g}" for value in found.mpp_l0)
        notes = "; ".join(found.warnings)
        typer.echo(
            f"{entry.slide_id}\t{found.vendor}\t{size} px\t{mpp} um/px\t{len(found.downsamples)} levels\t{notes}"
        )
    raise typer.Exit(1 if failed else 0)


@app.command()
def score(
    out: Annotated[Path, typer.Argument(help="Folder of a run.")],
    config: ConfigFile = None,
    set_: Set = [],  # noqa: B006
    regions: Annotated[Path | None, typer.Option(help="GeoJSON from QuPath: regions as a person edited them.")] = None,
    slide: Annotated[str | None, typer.Option(help="The slide of --regions or --original; alone: a job's.")] = None,
    original: Annotated[bool, typer.Option("--original", help="Return to the network's regions.")] = False,
    calibration: Annotated[Path | None, typer.Option(help="File from `pathopan calibrate`; stays in force.")] = None,
    no_calibration: Annotated[bool, typer.Option("--no-calibration", help="Apply none any more.")] = False,
    stability: Annotated[bool, typer.Option("--stability", help="Add ranges under other choices.")] = False,
) -> None:
    """Score a finished run again, from its files, and print what changed: other settings, or regions edited in QuPath.

    With --slide alone it scores one stitched slide of a planned run, as the jobs of a cluster do.

    Example: pathopan score results --regions edited.geojson --slide S-0417
    """
    if slide and not (regions or original):
        cli_jobs.score_slide(out, slide, other=bool(config or set_ or calibration or no_calibration or stability))
    from pathopan.rescore import Given, rescore_run, settings_of

    given = Given(regions, slide, original, calibration, no_calibration, stability)
    lines = rescore_run(out, settings_of(out, config, set_), given)
    typer.echo("\n".join(lines) or "no headline score changed")


@app.command()
def calibrate(
    out: Annotated[Path, typer.Argument(help="Folder of a run.")],
    visual: Annotated[Path, typer.Option(help="CSV: slide_id,stil_percent, one visual reading a slide.")],
    target: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("calibration.json"),
    score_name: Annotated[str, typer.Option("--score", help="Computed score to start from.")] = "stil_percent",
) -> None:
    """Fit visual scores on computed ones: a line with its interval, in a file that `score --calibration` applies.

    Example: pathopan calibrate results --visual visual.csv -o calibration.json
    """
    from pathopan.calibration import describe_calibration, fit_visual, write_calibration

    fitted = fit_visual(out, visual, score=score_name)
    write_calibration(target, fitted)
    typer.echo("\n".join([*describe_calibration(fitted), f"calibration: {target}"]))


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Folder of a run.")],
    formats: Annotated[
        list[Format] | None,
        typer.Option("--format", "-f", help="What to write; repeatable. Without it: QuPath's files and the reports."),
    ] = None,
    qupath_project: Annotated[
        bool, typer.Option("--qupath-project", help="Same as --format qupath-project: a script that makes a project.")
    ] = False,
    to: Annotated[Path | None, typer.Option(help="Folder for the formats; without it, OUT/exports.")] = None,
    slide: Annotated[
        str | None, typer.Option(help="Only this slide; without --format it is a job of a planned run.")
    ] = None,
    nuclei: Nuclei = None,
    ngff: Ngff = None,
    anonymous: Anonymous = False,
    config: ConfigFile = None,
    set_: Set = [],  # noqa: B006
) -> None:
    """Write a finished run for other programs: tables, GeoJSON, OME-Zarr, SpatialData, HistomicsUI, a QuPath project.

    Example: pathopan export results --format csv --format spatialdata
    """
    chosen = [*(formats or []), *([Format.qupath_project] if qupath_project else [])]
    if slide and not chosen:
        cli_jobs.export_slide(out, slide, other=bool(config or set_ or nuclei or ngff or to or anonymous))
    from pathopan.rescore import export_run, settings_of

    settings = settings_of(out, config, [*set_, *_export_settings(nuclei, ngff, anonymous=anonymous)])
    for path in export_run(out, settings, formats=chosen, to=to, slides=[slide] if slide else ()):
        typer.echo(path)


@app.command()
def verify(
    paths: Annotated[list[Path], typer.Argument(help="Folders of runs, and GeoJSON files of anyone's for QuPath.")],
) -> None:
    """Check that label maps, tables, GeoJSON and scores of a run agree, or a file by QuPath's import rules.

    Exit 1 and a line for each violation.

    Example: pathopan verify results other/annotations.geojson
    """
    from pathopan.verify import verify_path

    violations = [text for path in paths for text in verify_path(path)]
    typer.echo("\n".join(violations) or "everything agrees")
    raise typer.Exit(1 if violations else 0)


@app.command()
def dictionary(
    out: Annotated[
        Path | None, typer.Argument(help="Folder of a run; without it, the default bundle's classes.")
    ] = None,
) -> None:
    """Say what every column of every table means, with its type and unit, as Markdown.

    Example: pathopan dictionary results > dictionary.md
    """
    from pathopan.classes import BREAST
    from pathopan.dictionary import data_dictionary
    from pathopan.result import open_result

    typer.echo(data_dictionary(open_result(out).taxonomy if out else BREAST))


@app.command()
def view(
    out: Annotated[Path, typer.Argument(help="Folder of a run.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
) -> None:
    """Look at a finished run in the browser, on this machine only: slides, regions, nuclei and their rows.

    Example: pathopan view results
    """
    from pathopan.viewer.serve import open_viewer

    viewer = open_viewer(out, port=port)
    typer.echo(f"{viewer.url}\nCtrl+C ends the viewer. The address works on this machine only, and until then.")
    if browser and not viewer.open_browser():
        typer.echo("No browser could be opened: open the address yourself.")
    viewer.serve()
