"""Measure a bundle, or anyone's predictions, on a data set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets import read_dataset
from pathopan.datasets.derived import derive_regions
from pathopan.datasets.sample import Sample
from pathopan.errors import DatasetError
from pathopan.metrics import EvaluationResult, Prediction, evaluate, read_prediction
from pathopan.segment import Segmenter


@dataclass(frozen=True)
class Trial:
    """A data set, and who is judged on it. Images are read and predicted one by one, each time they are asked for."""

    name: str  # of the data set's reader
    root: Path
    who: str  # the bundle's name, or the folder of predictions
    taxonomy: Taxonomy
    predict: Callable[[Sample], Prediction]
    only: frozenset[str] | None = None  # sample ids

    def pairs(self, wanted: Collection[str] | None = None) -> Iterator[tuple[Sample, Prediction]]:
        """Yield each image with its prediction, or only the images of the given names.

        Raises
        ------
        DatasetError
            If the data set is missing or malformed, or no image is left.
        """
        left = None if wanted is None else set(wanted)
        count = 0
        for sample in read_dataset(self.name, self.root):
            if self.only is not None and sample.sample_id not in self.only:
                continue
            if left is not None and sample.sample_id not in left:
                continue
            count += 1
            classified = sample.region is None and (sample.nuclei["class_id"] > 0).any()
            truth = derive_regions(sample) if classified else sample
            yield truth, self.predict(truth)
            if left is not None:
                left.discard(sample.sample_id)
                if not left:
                    return
        if count == 0:
            msg = f"{self.root}: no images of {self.name} to evaluate" + (
                ", after the list of --only" * bool(self.only)
            )
            raise DatasetError(msg)


def open_trial(
    name: str,
    root: Path,
    *,
    bundle: str | Path,
    predictions: Path | None = None,
    only: Path | None = None,
    device: str = "auto",
) -> Trial:
    """Get ready to judge a bundle, or a folder of predictions, on a data set.

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

    Raises
    ------
    DatasetError
        If the list of images cannot be read, or no reader has the name.
    BundleError
        If the bundle cannot be loaded.
    """
    read_dataset(name, root)
    names = None if only is None else _names(only)
    if predictions is not None:
        folder = predictions
        return Trial(
            name, root, str(folder), BREAST, lambda s: read_prediction(folder, s.sample_id, taxonomy=BREAST), names
        )
    segmenter = Segmenter(bundle, device=device)
    return Trial(name, root, segmenter.bundle.name, segmenter.bundle.taxonomy, segmenter.predict, names)


def evaluate_dataset(
    name: str,
    root: Path,
    *,
    bundle: str | Path,
    predictions: Path | None = None,
    only: Path | None = None,
    device: str = "auto",
) -> EvaluationResult:
    """Predict a data set's images, or read predictions, and judge them; arguments as of :func:`open_trial`.

    Returns
    -------
    EvaluationResult
        Figures against regions that were derived from nuclei are named ``derived_``.

    Raises
    ------
    DatasetError
        If the data set is missing or malformed, or no image is left.
    """
    trial = open_trial(name, root, bundle=bundle, predictions=predictions, only=only, device=device)
    return evaluate(trial.pairs(), taxonomy=trial.taxonomy)


def _names(listed: Path) -> frozenset[str]:
    try:
        return frozenset(Path(line).stem for line in listed.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{listed}: cannot be read as a list of images: {error}"
        raise DatasetError(msg) from error
