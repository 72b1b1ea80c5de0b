"""Measure a bundle, or anyone's predictions, on a data set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets import read_dataset
from pathopan.datasets.derived import derive_missing_regions
from pathopan.datasets.sample import Sample
from pathopan.errors import DatasetError
from pathopan.metrics import EvaluationResult, Prediction, evaluate, read_prediction
from pathopan.segment import Segmenter

log = logging.getLogger(__name__)

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".svs")


@dataclass(frozen=True)
class Trial:
    """A data set, and who is judged on it. Images are read and predicted one by one, each time they are asked for."""

    name: str  # of the data set's reader
    root: Path
    who: str  # the network's name, or the folder of predictions
    taxonomy: Taxonomy
    predict: Callable[[Sample], Prediction]
    only: frozenset[str] | None = None  # sample ids, or the last parts of their paths
    options: Mapping[str, Any] = field(default_factory=dict)  # of the reader

    def pairs(self, wanted: Collection[str] | None = None) -> Iterator[tuple[Sample, Prediction]]:
        """Yield each image with its prediction, or only the images of the given names.

        Raises
        ------
        DatasetError
            If the data set is missing or malformed, or no image is left.
        """
        left, missed = None if wanted is None else set(wanted), set(self.only or ())
        count = 0
        for sample in read_dataset(self.name, self.root, taxonomy=self.taxonomy, **self.options):
            names = {sample.sample_id, Path(sample.sample_id).name}
            if self.only is not None and not names & self.only:
                continue
            if left is not None and sample.sample_id not in left:
                continue
            count += 1
            missed -= names
            truth = derive_missing_regions(sample, taxonomy=self.taxonomy)
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
        if missed:
            log.warning("no image of %s has these names of --only: %s", self.root, ", ".join(sorted(missed)))


def open_trial(
    name: str,
    root: Path,
    judged: Path | Callable[[], Segmenter],
    *,
    only: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Trial:
    """Get ready to judge a network, or a folder of predictions, on a data set.

    Parameters
    ----------
    name : str
        Of a reader, see ``pathopan.datasets.READERS``.
    root : Path
        The data set's folder.
    judged : Path or callable
        Folder of predictions, see :func:`pathopan.metrics.read_prediction`; or what loads a network.
    only : Path, optional
        Text file with the names of the images to use, a line each: a sample's id or the name of its file.
    options : mapping of str to any, optional
        Of the reader; see :func:`reader_options`.

    Raises
    ------
    DatasetError
        If the list of images cannot be read, or no reader has the name or the options.
    BundleError
        If the network cannot be loaded.
    """
    given = dict(options or {})
    read_dataset(name, root, **given)
    names = None if only is None else _names(only)
    if isinstance(judged, Path):
        read = partial(read_prediction, judged, taxonomy=BREAST)
        return Trial(name, root, str(judged), BREAST, lambda sample: read(sample.sample_id), names, given)
    segmenter = judged()
    return Trial(name, root, segmenter.name, segmenter.bundle.taxonomy, segmenter.predict, names, given)


def evaluate_dataset(
    name: str,
    root: Path,
    *,
    bundle: str | Path,
    predictions: Path | None = None,
    only: Path | None = None,
    device: str = "auto",
    mirrored: bool = False,
) -> EvaluationResult:
    """Predict a data set's images, or read predictions, and judge them.

    Parameters
    ----------
    name, root, only
        See :func:`open_trial`.
    bundle : str or Path
        Network to measure, unless predictions are given.
    predictions : Path, optional
        Folder of predictions.
    device, mirrored
        See :class:`pathopan.segment.Segmenter`.

    Returns
    -------
    EvaluationResult
        Figures against regions that were derived from nuclei are named ``derived_``.

    Raises
    ------
    DatasetError
        If the data set is missing or malformed, or no image is left.
    BundleError
        If the bundle cannot be loaded.
    """
    load = partial(Segmenter, bundle, device=device, mirrored=mirrored)
    trial = open_trial(name, root, predictions or load, only=only)
    return evaluate(trial.pairs(), taxonomy=trial.taxonomy)


def reader_options(*, slide_mpp: float | None, class_names: Sequence[str]) -> dict[str, Any]:
    """Give a reader's options as the command line has them.

    Parameters
    ----------
    slide_mpp : float, optional
        Micrometres per pixel of images that do not say.
    class_names : sequence of str
        ``THEIRS=OURS``: what a class of the data set is called in the taxonomy; nothing after ``=`` is unlabelled.

    Raises
    ------
    DatasetError
        If one has no ``=``.

    Examples
    --------
    >>> reader_options(slide_mpp=None, class_names=["Nest=tumor", "Fold="])
    {'slide_mpp': None, 'names': {'Nest': 'tumor', 'Fold': ''}}
    """
    pairs = [text.partition("=") for text in class_names]
    if wrong := [theirs for theirs, equals, _ in pairs if not (theirs and equals)]:
        msg = f"--class-name {wrong[0]!r} must read THEIRS=OURS, such as Nest=tumor"
        raise DatasetError(msg)
    names = {theirs.strip(): ours.strip() for theirs, _, ours in pairs}
    return {"slide_mpp": slide_mpp, "names": names or None}


def _names(listed: Path) -> frozenset[str]:
    try:
        lines = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{listed}: cannot be read as a list of images: {error}"
        raise DatasetError(msg) from error
    suffixes = ((Path(line).suffix, line) for line in lines)
    return frozenset(line.removesuffix(end) if end.lower() in _IMAGE_SUFFIXES else line for end, line in suffixes)
