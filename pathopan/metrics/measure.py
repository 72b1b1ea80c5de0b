"""One image's agreement with its truth, as ratios whose parts add: a cohort is a sum, a resample a weighted sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.classes import Taxonomy
from pathopan.errors import ShapeMismatch
from pathopan.metrics.detection import (
    DetectionCounts,
    LabelledPoints,
    count_detections,
    count_detections_by_class,
    count_types,
    match_points,
    match_points_hovernet,
)
from pathopan.metrics.overlap import aji, aji_plus, foreground_counts
from pathopan.metrics.panoptic import PanopticCounts, count_binary, count_by_class, match_instances, mean_pq_per_image
from pathopan.metrics.panoptic_map import PanopticMap, count_panoptic
from pathopan.metrics.prediction import Prediction, Truth
from pathopan.metrics.semantic import confusion

ALL = "all"
NONE = "none"
"""Row of predicted nuclei without a true partner, and column of true nuclei without a predicted one."""


@dataclass(frozen=True)
class Ratio:
    """A figure as two parts that add over images: its value is ``above / below``."""

    metric: str
    cls: str  # a class's or tissue's name, or ALL
    above: float
    below: float


@dataclass(frozen=True)
class Scene:
    """A truth and its prediction with what both need: class ids that can be judged, and points in micrometres."""

    truth: Truth
    pred: Prediction
    taxonomy: Taxonomy
    radius_um: float
    nucleus_ids: tuple[int, ...]  # classes that the truth labels exhaustively
    complete: bool  # every nucleus was annotated, whatever its class
    truth_points: LabelledPoints
    pred_points: LabelledPoints


def build_scene(truth: Truth, pred: Prediction, *, taxonomy: Taxonomy, radius_um: float) -> Scene:
    """Prepare an image for measuring.

    Raises
    ------
    ShapeMismatch
        If a predicted map differs in shape from the true one.
    """
    for name in ("instances", "region"):
        true, found = getattr(truth, name), getattr(pred, name)
        if true is not None and found is not None and true.shape != found.shape:
            msg = f"{truth.sample_id}: predicted {name} are {found.shape}, the truth {true.shape}"
            raise ShapeMismatch(msg)
    everything = tuple(c.id for c in taxonomy.nuclei)
    labelled = everything if truth.labelled_nuclei is None else truth.labelled_nuclei
    classless = len(truth.nuclei) > 0 and not (truth.nuclei["class_id"] > 0).any()
    return Scene(
        truth=truth,
        pred=pred,
        taxonomy=taxonomy,
        radius_um=radius_um,
        nucleus_ids=() if classless else tuple(i for i in labelled if i in everything),
        complete=truth.labelled_nuclei is None,
        truth_points=_points(truth.nuclei, truth.mpp),
        pred_points=_points(pred.nuclei, truth.mpp),
    )


def _points(nuclei: pd.DataFrame, mpp: float) -> LabelledPoints:
    placed = nuclei.dropna(subset=["x_px", "y_px"])
    xy_um = placed[["x_px", "y_px"]].to_numpy(np.float64) * mpp
    return LabelledPoints(xy_um, placed["class_id"].to_numpy(np.int64))


def classes_present(truth: Truth, taxonomy: Taxonomy) -> set[str]:
    """Name the classes that occur in a truth: ``nucleus NAME``, ``region NAME``, and ``tissue NAME`` if it is told."""
    nuclei = set(truth.nuclei["class_id"].tolist())
    regions = set() if truth.region is None else set(np.unique(truth.region).tolist())
    things = {f"nucleus {c.name}" for c in taxonomy.nuclei if c.id in nuclei}
    tissue = {f"tissue {truth.notes['tissue']}"} if "tissue" in truth.notes else set()
    return things | tissue | {f"region {c.name}" for c in taxonomy.regions if c.id in regions}


def measure(scene: Scene) -> Iterator[Ratio]:
    """Yield every ratio that truth and prediction allow.

    What the truth did not label is not judged: no figure of a class that was not annotated, no detection figure where
    only some classes were, none of regions where there is no region map. Figures of derived regions say so.
    """
    yield from _measure_points(scene)
    if scene.complete and scene.truth.instances is not None and scene.pred.instances is not None:
        yield from _measure_instances(scene, scene.truth.instances, scene.pred.instances)
    if scene.truth.region is not None and scene.pred.region is not None:
        yield from _measure_regions(scene, scene.truth.region, scene.pred.region)


def _measure_points(scene: Scene) -> Iterator[Ratio]:
    truth, pred, radius = scene.truth_points, scene.pred_points, scene.radius_um
    names = {c.id: c.name for c in scene.taxonomy.nuclei}
    if scene.complete:
        yield from _detection_ratios("detection", ALL, count_detections(truth.xy_um, pred.xy_um, radius_um=radius))
        pairs = match_points_hovernet(truth.xy_um, pred.xy_um, radius_um=radius)
        for class_id, types in count_types(truth, pred, pairs=pairs, class_ids=scene.nucleus_ids).items():
            below = 2 * (types.tp + types.fp + types.fn) + types.fp_d + types.fn_d
            yield Ratio("hovernet_fc", names[class_id], 2 * types.tp, below)
    judged = _forgive_unknown(truth, pred, radius)
    for class_id, counts in count_detections_by_class(
        truth, judged, class_ids=scene.nucleus_ids, radius_um=radius
    ).items():
        yield from _detection_ratios("class", names[class_id], counts)


def _forgive_unknown(truth: LabelledPoints, pred: LabelledPoints, radius_um: float) -> LabelledPoints:
    """Drop predictions whose partner is a true nucleus of unknown class: nobody can say whether they are right."""
    pairs = match_points(truth.xy_um, pred.xy_um, radius_um=radius_um)
    kept = np.ones(len(pred.class_id), dtype=np.bool_)
    kept[pairs.pred[truth.class_id[pairs.truth] == 0]] = False
    return LabelledPoints(pred.xy_um[kept], pred.class_id[kept])


def _detection_ratios(kind: str, cls: str, counts: DetectionCounts) -> Iterator[Ratio]:
    yield Ratio(f"{kind}_f1", cls, 2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)
    yield Ratio(f"{kind}_precision", cls, counts.tp, counts.tp + counts.fp)
    yield Ratio(f"{kind}_recall", cls, counts.tp, counts.tp + counts.fn)


def _panoptic_ratios(prefix: str, cls: str, counts: PanopticCounts) -> Iterator[Ratio]:
    found = counts.tp + 0.5 * (counts.fp + counts.fn)
    yield Ratio(f"{prefix}pq", cls, counts.sum_iou, found)
    yield Ratio(f"{prefix}sq", cls, counts.sum_iou, counts.tp)
    yield Ratio(f"{prefix}rq", cls, counts.tp, found)


def _image_mean(metric: str, value: float, *, cls: str = ALL) -> Ratio:
    """Make a figure whose cohort value is the mean over images in which it is defined."""
    return Ratio(metric, cls, value, 1.0) if value == value else Ratio(metric, cls, 0.0, 0.0)


def _measure_instances(scene: Scene, truth: npt.NDArray[np.integer], pred: npt.NDArray[np.integer]) -> Iterator[Ratio]:
    matches = match_instances(truth, pred)
    binary = count_binary(matches)
    yield from _panoptic_ratios("", ALL, binary)
    bpq = binary.pq if binary.n_truth else float("nan")
    yield _image_mean("pq_image_mean", bpq)
    yield _image_mean("aji", aji(truth, pred))
    yield _image_mean("aji_plus", aji_plus(truth, pred))
    yield Ratio("dice", ALL, *foreground_counts(truth, pred))
    yield _image_mean("dice_image_mean", _quotient(*foreground_counts(truth, pred)))
    if not scene.nucleus_ids:
        return
    by_class = count_by_class(
        matches, _class_of(scene.truth.nuclei), _class_of(scene.pred.nuclei), class_ids=scene.nucleus_ids
    )
    for class_id, counts in by_class.items():
        yield from _panoptic_ratios("class_", scene.taxonomy.nucleus(class_id).name, counts)
    mpq = mean_pq_per_image([by_class])
    yield _image_mean("mpq_image_mean", mpq)
    if "tissue" in scene.truth.notes:
        for name, value in (("bpq_tissue", bpq), ("mpq_tissue", mpq)):
            yield _image_mean(name, value, cls=scene.truth.notes["tissue"])


def _class_of(nuclei: pd.DataFrame) -> dict[int, int]:
    outlined = nuclei[nuclei["instance_id"] > 0]
    return dict(zip(outlined["instance_id"].tolist(), outlined["class_id"].tolist(), strict=True))


def _measure_regions(scene: Scene, truth: npt.NDArray[np.integer], pred: npt.NDArray[np.integer]) -> Iterator[Ratio]:
    prefix = "derived_region" if scene.truth.region_derived else "region"
    classes = scene.taxonomy.regions
    matrix = confusion(truth, pred, class_ids=[c.id for c in classes])
    groups: dict[str, list[int]] = {c.name: [position] for position, c in enumerate(classes)}
    stroma = [position for position, c in enumerate(classes) if c.role in ("stroma", "dense")]
    if len(stroma) > 1:
        groups["+".join(classes[position].name for position in stroma)] = stroma
    for name, members in groups.items():
        hit = matrix[np.ix_(members, members)].sum()
        sizes = matrix[members].sum() + matrix[:, members].sum()
        yield Ratio(f"{prefix}_dice", name, float(2 * hit), float(sizes))
        yield Ratio(f"{prefix}_iou", name, float(hit), float(sizes - hit))
    yield Ratio(f"{prefix}_accuracy", ALL, float(np.trace(matrix)), float(matrix.sum()))
    yield from _measure_panoptic(scene, prefix.replace("region", "panoptic"))


def _measure_panoptic(scene: Scene, prefix: str) -> Iterator[Ratio]:
    """Yield panoptic quality over stuff and things, where the truth has both in full."""
    true, found = scene.truth, scene.pred
    if not scene.complete or not scene.nucleus_ids or true.instances is None or found.instances is None:
        return
    assert true.region is not None  # the caller has seen to both
    assert found.region is not None
    stuff, things = count_panoptic(
        PanopticMap(true.region, true.instances, _class_of(true.nuclei)),
        PanopticMap(found.region, found.instances, _class_of(found.nuclei)),
        region_ids=[c.id for c in scene.taxonomy.regions],
        nucleus_ids=scene.nucleus_ids,
    )
    for class_id, counts in stuff.items():
        yield from _panoptic_ratios(f"{prefix}_", f"region {scene.taxonomy.region(class_id).name}", counts)
    for class_id, counts in things.items():
        yield from _panoptic_ratios(f"{prefix}_", f"nucleus {scene.taxonomy.nucleus(class_id).name}", counts)


def judge_nuclei(scene: Scene) -> pd.DataFrame:
    """List the predicted nuclei and what is true of them: what calibration is judged by.

    Returns
    -------
    DataFrame
        ``sample_id, group, class_id, matched`` (whether there is a true partner within the radius), ``true_class_id``
        (the partner's class; 0 without one or where it is unknown), ``prob`` and ``prob_<class>`` where the prediction
        has them. No rows where not every nucleus was annotated.
    """
    placed = scene.pred.nuclei.dropna(subset=["x_px", "y_px"])
    names = [name for name in placed.columns if name == "prob" or name.startswith("prob_")]
    pairs = match_points(scene.truth_points.xy_um, scene.pred_points.xy_um, radius_um=scene.radius_um)
    matched, true = np.zeros(len(placed), dtype=np.bool_), np.zeros(len(placed), dtype=np.int64)
    matched[pairs.pred] = True
    true[pairs.pred] = scene.truth_points.class_id[pairs.truth]
    table = placed[["class_id", *names]].reset_index(drop=True)
    table.insert(0, "sample_id", scene.truth.sample_id)
    table.insert(1, "group", scene.truth.group)
    table.insert(3, "matched", matched)
    table.insert(4, "true_class_id", true)
    return table if scene.complete else table.iloc[:0]


def nucleus_confusion(scene: Scene) -> pd.DataFrame:
    """Count nuclei by true and predicted class; with a row and a column for those without a partner.

    Returns
    -------
    DataFrame
        Rows are true classes, then ``none``; columns are predicted classes, then ``none``. Empty where not every
        nucleus was annotated.
    """
    names = [*(c.name for c in scene.taxonomy.nuclei), NONE]
    table = pd.DataFrame(0, index=pd.Index(names, name="truth"), columns=pd.Index(names, name="prediction"))
    if not scene.complete or not scene.nucleus_ids:
        return table
    truth, pred = scene.truth_points, scene.pred_points
    pairs = match_points(truth.xy_um, pred.xy_um, radius_um=scene.radius_um)
    position = {c.id: index for index, c in enumerate(scene.taxonomy.nuclei)}
    cells = [
        *_cells(truth.class_id[pairs.truth], pred.class_id[pairs.pred], position),
        *((position[c], len(position)) for c in truth.class_id[pairs.missed].tolist() if c in position),
        *((len(position), position[c]) for c in pred.class_id[pairs.extra].tolist() if c in position),
    ]
    counted = np.zeros(table.shape, dtype=np.int64)
    if cells:
        np.add.at(counted, tuple(np.array(cells).T), 1)
    return table + counted


def _cells(
    truth: npt.NDArray[np.int64], pred: npt.NDArray[np.int64], position: Mapping[int, int]
) -> list[tuple[int, int]]:
    pairs: Sequence[tuple[int, int]] = list(zip(truth.tolist(), pred.tolist(), strict=True))
    return [(position[t], position[p]) for t, p in pairs if t in position and p in position]


def region_confusion(scene: Scene) -> pd.DataFrame:
    """Count pixels by true and predicted region; the last column is pixels that were not analysed."""
    classes = scene.taxonomy.regions
    names = [c.name for c in classes]
    columns = pd.Index([*names, NONE], name="prediction")
    counted = np.zeros((len(names), len(names) + 1), dtype=np.int64)
    if scene.truth.region is not None and scene.pred.region is not None:
        counted = confusion(scene.truth.region, scene.pred.region, class_ids=[c.id for c in classes])
    return pd.DataFrame(counted, index=pd.Index(names, name="truth"), columns=columns)


def _quotient(above: float, below: float) -> float:
    return above / below if below else float("nan")
