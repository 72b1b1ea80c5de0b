"""Measure a bundle, or anyone's predictions, on a data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pathopan.classes import BREAST
from pathopan.datasets import read_dataset
from pathopan.datasets.derived import derive_regions
from pathopan.datasets.sample import Sample
from pathopan.errors import DatasetError
from pathopan.metrics import EvaluationResult, evaluate, read_pairs
from pathopan.segment import Segmenter


def evaluate_dataset(
    name: str,
    root: Path,
    *,
    bundle: str | Path,
    predictions: Path | None = None,
    only: Path | None = None,
    device: str = "auto",
) -> EvaluationResult:
    """Predict a data set's images, or read predictions, and judge them.

    Parameters
    ----------
    name : str
        Of a reader, see ``pathopan.datasets.READERS``.
    root : Path
        The data set's folder.
    bundle : str or Path
        Network to measure, unless predictions are given.
    predictions : Path, optional
        Folder of predictions, see :func:`pathopan.metrics.read_prediction`.
    only : Path, optional
        Text file with the names of the images to use.
    device : str
        ``auto``, ``cpu`` or ``cuda``.

    Returns
    -------
    EvaluationResult
        Figures against regions that were derived from nuclei are named ``derived_``.

    Raises
    ------
    DatasetError
        If the data set is missing or malformed, or no image is left.
    """
    truths = _truths(name, root, only)
    if predictions is not None:
        return evaluate(read_pairs(truths, predictions, taxonomy=BREAST), taxonomy=BREAST)
    segmenter = Segmenter(bundle, device=device)
    pairs = ((truth, segmenter.predict(truth)) for truth in truths)
    return evaluate(pairs, taxonomy=segmenter.bundle.taxonomy)


def _truths(name: str, root: Path, only: Path | None) -> Iterator[Sample]:
    wanted = None
    if only is not None:
        try:
            wanted = {Path(line).stem for line in only.read_text(encoding="utf-8").split()}
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{only}: cannot be read as a list of images: {error}"
            raise DatasetError(msg) from error
    count = 0
    for sample in read_dataset(name, root):
        if wanted is None or sample.sample_id in wanted:
            count += 1
            classified = sample.region is None and (sample.nuclei["class_id"] > 0).any()
            yield derive_regions(sample) if classified else sample
    if count == 0:
        msg = f"{root}: no images of {name} to evaluate" + (f"; {only} lists none of them" if only else "")
        raise DatasetError(msg)


def write_tables(found: EvaluationResult, folder: Path) -> None:
    """Write the figures, the figures per image and the confusion tables as CSV."""
    found.write_tables(folder)
