"""Every metric of the field against a slow version that reads like its paper, and on the three cases that trip them.

The cases: a class that an image lacks, an image without nuclei, and one nucleus found as two.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pathopan.classes import BREAST
from pathopan.datasets.sample import Sample, Source, nuclei_of
from pathopan.metrics import Prediction, evaluate, match_instances
from pathopan.metrics.detection import LabelledPoints, count_types, match_points_hovernet
from pathopan.metrics.overlap import aji_plus, dice
from pathopan.metrics.panoptic import count_by_class, mean_pq_per_image
from pathopan.metrics.panoptic_map import PanopticMap, count_panoptic

TUMOR, STROMAL, TIL = 1, 2, 3
small = hnp.arrays(np.int32, (6, 6), elements=st.integers(0, 3))
CLASS_OF = {1: 1, 2: 2, 3: 2}


def ids_of(labels):
    return sorted(set(labels.ravel().tolist()) - {0})


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


# ------------------------------------------------------------------------------- stuff and things together
def slow_panoptic(truth, pred, known):
    """Kirillov et al.: list the segments of both maps, match above one half, forgive what lies in void."""
    counts = {}
    for kind in {k for k, _ in truth + pred}:
        true, found = [m & known for k, m in truth if k == kind], [m for k, m in pred if k == kind]
        true = [m for m in true if m.any()]
        pairs = [(i, j) for i, t in enumerate(true) for j, f in enumerate(found) if iou(t, f & known) > 0.5]
        total = sum(iou(true[i], found[j] & known) for i, j in pairs)
        taken = {j for _, j in pairs}
        fp = sum((f & ~known).sum() <= 0.5 * f.sum() for j, f in enumerate(found) if j not in taken)
        counts[kind] = (len(pairs), int(fp), len(true) - len(pairs), total)
    return counts


def segments(region, nuclei):
    things = [(("nucleus", CLASS_OF[i]), nuclei == i) for i in ids_of(nuclei)]
    return things + [(("region", r), (region == r) & (nuclei == 0)) for r in ids_of(np.where(nuclei == 0, region, 0))]


@settings(max_examples=30, deadline=None)
@given(small, small, small, small)
def test_panoptic_quality_of_regions_and_nuclei_equals_the_slow_one(region, nuclei, found_region, found_nuclei):
    known = (region > 0) | (nuclei > 0)
    slow = slow_panoptic(segments(region, nuclei), segments(found_region, found_nuclei), known)
    stuff, things = count_panoptic(
        PanopticMap(region, nuclei, CLASS_OF),
        PanopticMap(found_region, found_nuclei, CLASS_OF),
        region_ids=[1, 2, 3],
        nucleus_ids=[1, 2],
    )
    for name, counts in (("region", stuff), ("nucleus", things)):
        for kind, found in counts.items():
            tp, fp, fn, total = slow.get((name, kind), (0, 0, 0, 0.0))
            assert (found.tp, found.fp, found.fn) == (tp, fp, fn)
            assert found.sum_iou == pytest.approx(total)


def test_a_nucleus_of_the_wrong_class_that_lies_mostly_in_void_is_forgiven():
    """It overlaps what is known of a tumor nucleus, but three of its four pixels are void: a miss, no false alarm."""
    nuclei, found = np.array([[1, 0, 0, 0]]), np.array([[2, 2, 2, 2]])
    nothing = np.zeros((1, 4), np.int32)
    _, things = count_panoptic(
        PanopticMap(nothing, nuclei, CLASS_OF), PanopticMap(nothing, found, CLASS_OF), region_ids=[], nucleus_ids=[1, 2]
    )
    assert (things[1].tp, things[1].fp, things[1].fn) == (0, 0, 1)
    assert (things[2].tp, things[2].fp, things[2].fn) == (0, 0, 0)


# -------------------------------------------------------------------------------------------------- PanNuke
def slow_mpq(images):
    """Gamper et al.: PQ of each class that an image's truth has, mean over classes, then over images."""
    means = []
    for truth, pred in images:
        values = []
        for kind in (1, 2):
            true = [truth == i for i in ids_of(truth) if CLASS_OF[i] == kind]
            found = [pred == i for i in ids_of(pred) if CLASS_OF[i] == kind]
            matched = [iou(t, f) for t in true for f in found if iou(t, f) > 0.5]
            if true:
                values.append(sum(matched) / (len(matched) + 0.5 * (len(true) + len(found) - 2 * len(matched))))
        if values:
            means.append(sum(values) / len(values))
    return sum(means) / len(means) if means else math.nan


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(small, small), min_size=1, max_size=3))
def test_pannukes_mean_equals_the_slow_one(images):
    counts = [count_by_class(match_instances(t, p), CLASS_OF, CLASS_OF, class_ids=[1, 2]) for t, p in images]
    assert mean_pq_per_image(counts) == pytest.approx(slow_mpq(images), nan_ok=True)


# ---------------------------------------------------------------------------------------------- AJI+ and Dice
def slow_aji_plus(truth, pred):
    """Try every one-to-one assignment; take the one with the largest summed IoU; then Jaccard of what it adds up to."""
    true, found = [truth == i for i in ids_of(truth)], [pred == i for i in ids_of(pred)]
    best, answers = -1.0, set()
    places = [*range(len(found)), *[None] * len(true)]
    for choice in set(itertools.permutations(places, len(true))):
        pairs = [(t, found[j]) for t, j in zip(true, choice, strict=True) if j is not None and (t & found[j]).any()]
        summed = sum(iou(t, f) for t, f in pairs)
        lone = [t for t in true if not any(t is p for p, _ in pairs)]
        lone += [f for f in found if not any(f is q for _, q in pairs)]
        union = sum((t | f).sum() for t, f in pairs) + sum(m.sum() for m in lone)
        answer = sum((t & f).sum() for t, f in pairs) / union if union else math.nan
        if summed > best + 1e-9:
            best, answers = summed, set()
        if summed > best - 1e-9:
            answers.add(round(float(answer), 9))
    return answers


@settings(max_examples=60, deadline=None)
@given(small, small)
def test_aji_plus_is_that_of_a_best_assignment(truth, pred):
    found = aji_plus(truth, pred)
    answers = slow_aji_plus(truth, pred)
    assert math.isnan(found) or any(found == pytest.approx(answer) for answer in answers)


@given(small, small)
def test_dice_equals_that_of_sets_of_pixels(truth, pred):
    a, b = ({tuple(p) for p in np.argwhere(m > 0)} for m in (truth, pred))
    expected = 2 * len(a & b) / (len(a) + len(b)) if a or b else math.nan
    assert dice(truth, pred) == pytest.approx(expected, nan_ok=True)


# ------------------------------------------------------------------------------------------------- HoVer-Net
points = st.integers(0, 6).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, (n, 2), elements=st.integers(0, 8).map(float)),
        hnp.arrays(np.int64, n, elements=st.integers(1, 2)),
    )
)


@settings(max_examples=40, deadline=None)
@given(points, points)
def test_hovernets_classification_f1_equals_the_slow_one(truth, pred):
    """Graham et al.: F_c = 2 TP / (2 (TP + FP + FN) + FP_d + FN_d), over the pairs that detection made."""
    true, found = LabelledPoints(*truth), LabelledPoints(*pred)
    pairs = match_points_hovernet(true.xy_um, found.xy_um)
    counts = count_types(true, found, pairs=pairs, class_ids=[1, 2])
    for kind in (1, 2):
        tp = fp = fn = 0
        for i, j in zip(pairs.truth.tolist(), pairs.pred.tolist(), strict=True):
            a, b = truth[1][i] == kind, pred[1][j] == kind
            tp, fp, fn = tp + (a and b), fp + (b and not a), fn + (a and not b)
        lost = sum(truth[1][i] == kind for i in range(len(truth[1])) if i not in pairs.truth)
        false = sum(pred[1][j] == kind for j in range(len(pred[1])) if j not in pairs.pred)
        below = 2 * (tp + fp + fn) + lost + false
        assert counts[kind].fc == pytest.approx(2 * tp / below if below else math.nan, nan_ok=True)


# ------------------------------------------------------------------------- the three cases, through evaluate
def image(boxes, *, name="a", tissue=None):
    """One row of pixels: ``(start, stop, class)`` each; stroma below all of it."""
    labels = np.zeros((4, 40), np.int32)
    for index, (start, stop, _) in enumerate(boxes, start=1):
        labels[:, start:stop] = index
    nuclei = nuclei_of(labels).assign(class_id=[kind for *_, kind in boxes])
    notes = {} if tissue is None else {"tissue": tissue}
    source = Source("toy", "CC0-1.0", "nobody", "breast")
    region = np.full(labels.shape, 2, np.uint8)
    return Sample(name, np.zeros((4, 40, 3), np.uint8), 0.5, name, source, nuclei, labels, region, notes=notes)


def found_in(truth, boxes):
    made = image(boxes)
    return truth, Prediction(made.nuclei, made.instances, made.region)


def figures(*pairs):
    summary = evaluate(pairs, taxonomy=BREAST, resamples=0).summary
    return summary.set_index(["metric", "class"])["value"]


def test_one_nucleus_found_as_two():
    got = figures(found_in(image([(0, 10, TUMOR)]), [(0, 6, TUMOR), (6, 10, TUMOR)]))
    assert got["pq", "all"] == got["class_pq", "tumor"] == got["class_pq", "mean"] == pytest.approx(0.6 / 1.5)
    assert got["sq", "all"] == pytest.approx(0.6)  # the mean IoU of matched nuclei does not see the second half
    assert got["rq", "all"] == pytest.approx(2 / 3)  # F1 at IoU 0.5 does
    assert got["pq_image_mean", "all"] == got["mpq_image_mean", "all"] == pytest.approx(0.4)
    assert got["panoptic_pq", "nucleus tumor"] == pytest.approx(0.4)
    assert got["panoptic_pq", "region stroma"] == 1
    assert got["panoptic_pq", "mean"] == pytest.approx(0.7)
    assert got["panoptic_sq", "mean"] == pytest.approx(0.8)
    assert got["panoptic_rq", "mean"] == pytest.approx((1 + 2 / 3) / 2)
    assert got["aji", "all"] == got["aji_plus", "all"] == pytest.approx(6 / 14)
    assert got["dice", "all"] == 1
    assert got["detection_f1", "all"] == got["class_f1", "tumor"] == pytest.approx(2 / 3)  # centres 1 and 1.5 um off
    assert got["hovernet_fc", "tumor"] == pytest.approx(2 / 3)


def test_a_class_that_an_image_lacks():
    """The second image has no TIL in truth, and one is found there: PanNuke's mean does not see it, all others do."""
    first = found_in(image([(0, 8, TIL), (20, 28, TUMOR)], name="a"), [(0, 8, TIL), (20, 28, TUMOR)])
    second = found_in(image([(20, 28, TUMOR)], name="b"), [(20, 28, TUMOR), (0, 8, TIL)])
    got = figures(first, second)
    assert got["mpq_image_mean", "all"] == 1
    assert got["class_pq", "til"] == pytest.approx(1 / 1.5)
    assert got["class_pq", "mean"] == pytest.approx((1 + 1 / 1.5) / 2)
    assert got["class_f1", "til"] == pytest.approx(2 / 3)
    assert got["hovernet_fc", "til"] == pytest.approx(2 / 3)
    assert got["pq_image_mean", "all"] == pytest.approx((1 + 1 / 1.5) / 2)
    assert got["panoptic_pq", "nucleus til"] == pytest.approx(1 / 1.5)
    assert math.isnan(got["class_pq", "stromal"])  # neither there nor found: no figure, not 0
    assert got["class_sq", "mean"] == 1
    assert got["class_rq", "mean"] == pytest.approx((1 + 2 / 3) / 2)


def test_an_image_without_nuclei():
    nothing = image([], name="empty")
    got = figures(found_in(nothing, []))
    for metric in ("pq", "aji", "dice", "detection_f1", "pq_image_mean", "mpq_image_mean"):
        assert math.isnan(got[metric, "all"])
    assert got["panoptic_pq", "mean"] == 1  # its stroma
    got = figures(found_in(nothing, [(0, 8, TIL)]), found_in(image([(0, 8, TIL)]), [(0, 8, TIL)]))
    assert got["pq", "all"] == got["detection_f1", "all"] == pytest.approx(2 / 3)
    assert got["pq_image_mean", "all"] == 1  # PanNuke leaves the image out
    assert got["aji", "all"] == pytest.approx((0 + 1) / 2)
    assert got["dice", "all"] == pytest.approx(2 / 3)


def test_pannukes_figures_are_means_over_tissues():
    right, none = [(0, 8, TIL)], []
    pairs = [
        found_in(image(right, name="a", tissue="Breast"), right),
        found_in(image(right, name="b", tissue="Breast"), none),
        found_in(image(right, name="c", tissue="Colon"), right),
        found_in(image([(0, 8, TUMOR)], name="d", tissue="Colon"), right),
    ]
    got = figures(*pairs)
    assert got["bpq_tissue", "Breast"] == got["mpq_tissue", "Breast"] == pytest.approx(1 / 2)
    assert (got["bpq_tissue", "Colon"], got["mpq_tissue", "Colon"]) == (1, pytest.approx(1 / 2))
    assert got["bpq_tissue", "mean"] == pytest.approx(3 / 4)
    assert got["mpq_tissue", "mean"] == pytest.approx(1 / 2)
    assert not {"bpq_tissue", "mpq_tissue"} & set(
        pd.unique(figures(found_in(image(right), right)).reset_index()["metric"])
    )
