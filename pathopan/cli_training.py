"""The commands that make and measure networks: train, crossvalidate, quantise, evaluate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pathopan.options import DEFAULT_BUNDLE, BundleName, Device, Mpp, Out, Workers

app = typer.Typer()


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe in the package, or a YAML file.")],
    data: Annotated[Path, typer.Option(help="Folder with the recipe's data sets.")],
    out: Out,
    device: Device = "auto",
    workers: Workers = 1,
    start_from: Annotated[str | None, typer.Option(help="Fine-tune this bundle.")] = None,
    folds: Annotated[Path | None, typer.Option(help="Folder of the recipe's `crossvalidate`: its figures.")] = None,
) -> None:
    """Train a network and write its bundle to OUT/bundle; the same command again resumes after a stop.

    Example: pathopan train breast-he-3 --data ../shared/data --out runs/breast-he-3 --folds runs/folds
    """
    from pathopan.training.run import train_bundle

    bundle = train_bundle(recipe, data, out, device=device, workers=workers, start_from=start_from, folds=folds)
    for name, figure in bundle.card.get("held_out", {}).get("quality", {}).items():
        typer.echo(f"{name}\t{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})")
    typer.echo(f"bundle: {out / 'bundle'}")


@app.command()
def crossvalidate(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe in the package, or a YAML file.")],
    data: Annotated[Path, typer.Option(help="Folder with the recipe's data sets.")],
    out: Out,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Train this fold only, such as on a machine of its own.")
    ] = None,
    device: Device = "auto",
    workers: Workers = 1,
) -> None:
    """Train a recipe's folds, split by patient, and report what each says of images it never saw; resumes.

    Example: pathopan crossvalidate breast-he-3 --data ../shared/data --out runs/folds
    """
    from pathopan.training.run import cross_validate

    report = cross_validate(recipe, data, out, fold=fold, device=device, workers=workers)
    for found in (report or {"folds": []})["folds"]:
        typer.echo(f"{found['dataset']}: {found['images']} images of {found['patients']} patients")
        for name, figure in found["quality"].items():
            typer.echo(f"  {name}\t{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})")
    typer.echo(f"{out / f'fold-{fold}'} is complete" if report is None else f"report: {out / 'folds.json'}")


@app.command()
def quantise(
    bundle: Annotated[str, typer.Argument(help="Folder or name of a bundle that pathopan trained.")],
    data: Annotated[Path, typer.Option(help="Folder with the data sets of the bundle's recipe.")],
) -> None:
    """Add a network in 8 bits to a bundle, for --set inference.precision=int8, and measure what it costs.

    Example: pathopan quantise runs/mine/bundle --data ../shared/data
    """
    from pathopan.training.quantise import quantise_bundle

    told = quantise_bundle(bundle, data).card["int8"]
    typer.echo(f"measured on {told['measured_on']}")
    for row in told["quality"]:
        typer.echo(f"{row['figure']}\tfloat32 {row['float32']}\tint8 {row['int8']}")


@app.command()
def evaluate(
    dataset: Annotated[str, typer.Argument(help="Name of a data set, such as brca_m2c or consep.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    bundle: BundleName = DEFAULT_BUNDLE,
    predictions: Annotated[Path | None, typer.Option(help="Judge the predictions in this folder instead.")] = None,
    only: Annotated[Path | None, typer.Option(help="Text file that lists the images to use, a line each.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for tables, charts and sheets.")] = None,
    sheets: Annotated[int, typer.Option(min=0, help="Sheets of the best, median and worst images each.")] = 2,
    slide_mpp: Mpp = None,
    class_name: Annotated[
        list[str],
        typer.Option(help="Of qupath: your class and ours, such as Nest=tumor; repeatable."),
    ] = [],  # noqa: B006 (typer copies it)
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16, by torch; int8 by OpenVINO.")] = "auto",
    mirrored: Annotated[bool, typer.Option(help="Average four mirror images, at four times the cost.")] = False,
) -> None:
    """Measure a bundle, or anyone's predictions, on a data set: PQ, SQ, RQ, AJI, Dice, detection and class F1.

    Example: pathopan evaluate brca_m2c ../shared/data/brca_m2c --only ../shared/data/brca_m2c/val.txt -o judged
    """
    from pathopan.evaluation import open_trial, reader_options
    from pathopan.evaluation_page import Wording, write_evaluation
    from pathopan.metrics import evaluate as judge
    from pathopan.segment import Segmenter

    options = reader_options(slide_mpp=slide_mpp, class_names=class_name)
    load = partial(Segmenter, bundle, device=device, precision=precision, mirrored=mirrored)
    trial = open_trial(dataset, root, predictions or load, only=only, options=options)
    found = judge(trial.pairs(), taxonomy=trial.taxonomy)
    typer.echo(found.summary.round(4).to_string(index=False))
    if out:
        wording = Wording(f"{trial.who} on {dataset}", f"{len(found.images)} images of {root}", each=sheets)
        page = write_evaluation(found, out, pairs_of=trial.pairs, taxonomy=trial.taxonomy, wording=wording)
        typer.echo(f"look at: {page}")
