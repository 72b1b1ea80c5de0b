"""Nuclei judged by hand, folds pooled, and a calibration that never reports what it was fitted on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pathopan.classes import BREAST
from pathopan.datasets.sample import Sample, Source, empty_nuclei
from pathopan.errors import DatasetError, SchemaError
from pathopan.metrics import Prediction, evaluate, pool
from pathopan.metrics.calibrate import calibrate_folds, judged
from pathopan.probabilities import apply_temperature

TUMOR, STROMAL, TIL = 1, 2, 3
SOURCE = Source("toy", "CC0-1.0", "nobody", "breast")


def points(rows, probs=None):
    table = pd.DataFrame(np.array(rows, float).reshape(-1, 3), columns=["x_px", "y_px", "class_id"])
    table = table.assign(class_id=table["class_id"].astype(np.int64), instance_id=0)
    if probs is not None:
        table = table.assign(prob=[p[0] for p in probs])
        for index, kind in enumerate(BREAST.nuclei, start=1):
            table[f"prob_{kind.name}"] = [p[index] for p in probs]
    return table


def sample(name, group, rows, **more):
    image = np.zeros((200, 200, 3), np.uint8)
    return Sample(name, image, mpp=0.5, group=group, source=SOURCE, nuclei=points(rows), **more)


SURE, UNSURE = (0.9, 0.7, 0.1, 0.1, 0.1), (0.4, 0.1, 0.2, 0.6, 0.1)


def test_each_predicted_nucleus_is_judged_by_its_partner():
    truth = sample("a", "P", [(10, 10, TUMOR), (50, 50, TIL), (90, 90, 0)])
    pred = Prediction(points([(11, 10, TUMOR), (50, 50, TUMOR), (90, 90, TIL), (150, 150, TIL)], [SURE] * 3 + [UNSURE]))
    found = evaluate([(truth, pred)], taxonomy=BREAST, resamples=0)
    rows = found.nuclei
    assert rows["matched"].tolist() == [True, True, True, False]
    assert rows["true_class_id"].tolist() == [TUMOR, TIL, 0, 0]
    assert set(rows["sample_id"] + rows["group"]) == {"aP"}
    part = judged(found, BREAST)
    assert part.labels.tolist() == [0, 2]  # the third partner's class is unknown, the fourth has no partner
    assert part.probs.tolist() == [[0.7, 0.1, 0.1, 0.1]] * 2
    assert part.prob.tolist() == [0.9, 0.9, 0.9, 0.4]
    assert part.matched.tolist() == [True, True, True, False]


def test_where_not_all_nuclei_are_labelled_nobody_can_judge():
    truth = sample("a", "P", [(10, 10, TIL)], labelled_nuclei=(TIL,))
    found = evaluate([(truth, Prediction(points([(10, 10, TIL)], [SURE])))], taxonomy=BREAST, resamples=0)
    assert len(found.nuclei) == 0
    assert len(judged(found, BREAST).prob) == 0


def test_predictions_without_probabilities_say_so():
    truth = sample("a", "P", [(10, 10, TIL)])
    found = evaluate([(truth, Prediction(points([(10, 10, TIL)])))], taxonomy=BREAST, resamples=0)
    with pytest.raises(SchemaError, match=r"lack the columns \['prob', 'prob_tumor'"):
        judged(found, BREAST)


def many(name, *, seed, n=150):
    """Nuclei on a lattice whose network claims too much: its class probabilities are those of temperature 0.5."""
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet([1.0] * 4, n)
    labels = (honest.cumsum(axis=1) > rng.uniform(size=(n, 1))).argmax(axis=1)
    claimed = apply_temperature(honest, 0.5)
    xy = np.stack([10.0 + 20 * (np.arange(n) % 15), 10.0 + 20 * (np.arange(n) // 15)], axis=1)
    there = rng.uniform(size=n) < 0.8
    truth = sample(name, name, np.column_stack([xy, labels + 1])[there])
    probs = np.column_stack([np.where(there, 0.7, 0.3) + rng.uniform(-0.25, 0.25, n), claimed])
    pred = Prediction(points(np.column_stack([xy, claimed.argmax(axis=1) + 1]), probs.tolist()))
    return truth, pred


def test_each_fold_is_mended_by_the_others():
    folds = [evaluate([many(f"f{i}", seed=i)], taxonomy=BREAST, resamples=0) for i in range(4)]
    found = calibrate_folds(folds, BREAST)
    table = found.folds.set_index("fold")
    assert table.index.tolist() == ["0", "1", "2", "3", "all"]
    assert found.temperature.temperature == pytest.approx(2, rel=0.2)
    assert table.loc["all", "temperature"] == found.temperature.temperature
    assert table.loc["all", "ece_after"] < 0.5 * table.loc["all", "ece_before"]
    assert (table["nll_after"] < table["nll_before"]).all()
    assert table.loc["all", "n"] == table.loc[["0", "1", "2", "3"], "n"].sum() == found.temperature.n
    assert table.loc["all", "n_detected"] == 600
    assert table.loc["all", "detection_ece_after"] < table.loc["all", "detection_ece_before"]
    others = calibrate_folds(folds[1:], BREAST)
    assert table.loc["0", "temperature"] == pytest.approx(others.temperature.temperature)
    assert found.curves["class after"].ece == table.loc["all", "ece_after"]
    alone = calibrate_folds(folds[:1], BREAST).folds.set_index("fold")
    assert alone.loc["0", "ece_after"] == alone.loc["all", "ece_after"]


def test_pooled_folds_equal_one_evaluation_of_all_images():
    pairs = [many(f"f{i}", seed=i, n=60) for i in range(4)]
    nothing = (sample("none", "P9", [(10, 10, STROMAL)]), Prediction(empty_nuclei()))
    at_once = evaluate([*pairs, nothing], taxonomy=BREAST)
    parts = [evaluate(some, taxonomy=BREAST, resamples=0) for some in (pairs[:1], pairs[1:3], pairs[3:], [nothing])]
    pooled = pool([*parts, evaluate([], taxonomy=BREAST)])
    pd.testing.assert_frame_equal(pooled.summary, at_once.summary)
    pd.testing.assert_frame_equal(pooled.images, at_once.images)
    pd.testing.assert_frame_equal(pooled.nucleus_confusion, at_once.nucleus_confusion)
    pd.testing.assert_frame_equal(pooled.nuclei, at_once.nuclei)
    assert pooled.present == at_once.present
    assert len(pool([]).summary) == 0
    with pytest.raises(DatasetError, match=r"2 images stand in two of the results, such as \['f1', 'f2'\]"):
        pool([parts[1], parts[1]])
