"""The commands before, during and after a batch: check, status, doctor."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from pathopan.config import load_config
from pathopan.options import DEFAULT_BUNDLE, BundleName, ConfigFile, Device, Mpp, Paths, Recursive, Set, Workers

app = typer.Typer()

Out = Annotated[Path, typer.Option("--out", "-o", help="Where the results will go: its disk is looked at.")]


@app.command()
def check(
    paths: Paths,
    out: Out = Path(),
    bundle: BundleName = DEFAULT_BUNDLE,
    device: Device = "auto",
    slide_mpp: Mpp = None,
    workers: Workers = 2,
    config: ConfigFile = None,
    set_: Set = [],  # noqa: B006 (typer copies it)
    recursive: Recursive = False,
) -> None:
    """Look at slides before a batch: open and decode each, and say what the batch will take; exit 1 if one is bad.

    Example: pathopan check slides/ --out results
    """
    from pathopan.check import CheckSettings, SlideCheck, check_slides, describe_checks, shortages
    from pathopan.manifest import find_slides

    entries = find_slides(paths, recursive=recursive, slide_mpp=slide_mpp)
    settings = CheckSettings(bundle, load_config(config, overrides=set_), device, workers)
    done = itertools.count(1)

    def tell(found: SlideCheck) -> None:
        told = "cannot be scored" if found.problem else "opens and decodes"
        typer.echo(f"{next(done)} of {len(entries)}, {found.slide_id}: {told}", err=True)

    checks, machine = check_slides(entries, settings, out, tell)
    missing = shortages(checks, machine)
    typer.echo("\n".join([*describe_checks(checks, machine), *missing]))
    raise typer.Exit(1 if missing or any(check.problem for check in checks) else 0)


@app.command()
def status(out: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Say what of a run is done, running, failed and missing, how fast it goes and how long it will take.

    Example: pathopan status results
    """
    from pathopan.status import describe_status, read_status

    typer.echo("\n".join(describe_status(read_status(out))))


@app.command()
def doctor(
    out: Out = Path(),
    bundle: BundleName = DEFAULT_BUNDLE,
    device: Device = "auto",
) -> None:
    """Look at this installation: versions, device, formats, disk, and a slide with known scores; exit 1 if unsound.

    Example: pathopan doctor
    """
    from pathopan.doctor import examine

    sound = True
    for finding in examine(out, bundle=bundle, device=device):
        sound = sound and finding.sound
        typer.echo(f"{'ok' if finding.sound else 'NO':4}{finding.name:24}{finding.text}")
    remedy = "mend what is marked NO; a fresh environment, installed with -c constraints.txt, mends most"
    typer.echo("everything is sound" if sound else f"not sound: {remedy}")
    raise typer.Exit(0 if sound else 1)
