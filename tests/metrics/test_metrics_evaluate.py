"""The whole evaluation on images small enough to count by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from pathopan.classes import BREAST
from pathopan.datasets.sample import Sample, Source, empty_nuclei, nuclei_of
from pathopan.errors import ResultError, SchemaError, ShapeMismatch, UnknownLabel
from pathopan.metrics import Prediction, evaluate, read_pairs, read_prediction
from pathopan.metrics.panoptic import PanopticCounts

SOURCE = Source("toy", "CC0-1.0", "nobody", "breast")
TUMOR, STROMAL, TIL = 1, 2, 3


def instance_map(*boxes):
    labels = np.zeros((20, 20), np.int32)
    for index, (x, y, side) in enumerate(boxes, start=1):
        labels[y : y + side, x : x + side] = index
    return labels


def with_classes(labels, classes):
    table = nuclei_of(labels)
    return table.assign(class_id=classes)


def sample(name="a", group="P1", boxes=((1, 1, 4), (10, 10, 4)), classes=(TUMOR, TIL), **more):
    labels = instance_map(*boxes)
    region = np.full((20, 20), 2, np.uint8)
    region[:8, :8] = 1
    image = np.zeros((20, 20, 3), np.uint8)
    settings = {"mpp": 0.5, "nuclei": with_classes(labels, classes), "instances": labels, "region": region, **more}
    return Sample(sample_id=name, image=image, group=group, source=SOURCE, **settings)


def same(truth):
    return Prediction(truth.nuclei, truth.instances, truth.region)


def test_the_truth_itself_scores_one_everywhere():
    truths = [sample("a", "P1"), sample("b", "P2", classes=(TIL, STROMAL))]
    result = evaluate([(t, same(t)) for t in truths], taxonomy=BREAST, resamples=50)
    defined = result.summary.dropna(subset="value")
    assert (defined["value"] == 1).all()
    assert (defined["high"].dropna() == 1).all()
    assert set(defined["metric"]) >= {"pq", "class_pq", "aji", "dice", "class_f1", "hovernet_fc", "region_dice",
                                      "panoptic_pq", "detection_f1", "mpq_image_mean"}  # fmt: skip
    assert result.nucleus_confusion.to_numpy().sum() == np.trace(result.nucleus_confusion) == 4
    assert np.trace(result.region_confusion) == 800
    assert result.images["sample_id"].tolist() == ["a", "b"]
    assert (result.images["pq"] == 1).all()


def test_one_wrong_class_one_miss_and_one_false_alarm_by_hand():
    truth = sample(boxes=((1, 1, 4), (10, 10, 4), (1, 14, 4)), classes=(TUMOR, TIL, TIL))
    labels = instance_map((1, 1, 4), (10, 10, 4), (15, 1, 4))
    pred = Prediction(with_classes(labels, (TUMOR, TUMOR, TIL)), labels, np.full((20, 20), 2))
    result = evaluate([(truth, pred)], taxonomy=BREAST)
    assert result.value("detection_f1") == pytest.approx(2 / 3)
    assert result.value("class_f1", "tumor") == pytest.approx(2 / 3)
    assert result.value("class_f1", "til") == 0
    assert result.value("class_f1", "mean") == pytest.approx(1 / 3)
    assert math.isnan(result.value("class_f1", "stromal"))
    assert result.value("pq") == pytest.approx(2 / 3)
    assert result.value("class_pq", "tumor") == pytest.approx(1 / 1.5)
    assert result.value("class_pq", "mean") == pytest.approx(1 / 3)
    assert result.value("mpq_image_mean") == pytest.approx(1 / 3)
    assert result.value("aji") == pytest.approx(32 / 64)
    assert result.value("dice") == pytest.approx(2 * 32 / 96)
    assert result.value("hovernet_fc", "tumor") == pytest.approx(2 / 4)
    assert result.value("hovernet_fc", "til") == 0
    table = result.nucleus_confusion
    assert (table.loc["tumor", "tumor"], table.loc["til", "tumor"]) == (1, 1)
    assert (table.loc["til", "none"], table.loc["none", "til"]) == (1, 1)
    assert result.value("region_dice", "tumor") == 0
    assert result.value("region_dice", "stroma") == pytest.approx(2 * 336 / (336 + 400))
    assert result.value("region_accuracy") == pytest.approx(336 / 400)
    assert math.isnan(result.value("no such metric"))


def test_lymphocyte_rich_stroma_for_stroma_is_forgiven_only_in_the_pooled_row():
    truth = sample()
    pred = Prediction(truth.nuclei, truth.instances, np.where(truth.region == 2, 3, 1))
    result = evaluate([(truth, pred)], taxonomy=BREAST)
    assert result.value("region_dice", "stroma") == 0
    assert result.value("region_dice", "stroma+tils") == 1
    assert result.value("region_dice", "tils") == 0
    assert result.value("region_dice", "mean") == pytest.approx(1 / 2)  # tumor 1, stroma 0; tils are not in the truth


def test_cohort_figures_pool_counts_and_intervals_are_over_patients():
    good, bad = sample("a", "P1"), sample("b", "P2")
    nothing = Prediction(empty_nuclei(), np.zeros((20, 20), int), bad.region)
    result = evaluate([(good, same(good)), (bad, nothing), (replace(bad, sample_id="c"), nothing)], taxonomy=BREAST)
    pooled = PanopticCounts(tp=2, fp=0, fn=4, sum_iou=2.0)
    row = result.summary[(result.summary["metric"] == "pq") & (result.summary["class"] == "all")].iloc[0]
    assert row["value"] == pytest.approx(pooled.pq)
    assert (row["n_images"], row["n_patients"]) == (3, 2)
    assert (row["low"], row["high"]) == (0, 1)
    assert result.value("pq_image_mean") == pytest.approx(1 / 3)


def test_what_was_not_labelled_is_not_judged():
    points = sample(instances=None, region=None)
    result = evaluate([(points, same(sample()))], taxonomy=BREAST)
    assert not {"pq", "region_dice", "panoptic_pq"} & set(result.summary["metric"])
    only_tils = sample(labelled_nuclei=(TIL,), boxes=((10, 10, 4),), classes=(TIL,))
    result = evaluate([(only_tils, same(sample()))], taxonomy=BREAST)
    assert set(result.summary["class"][result.summary["metric"] == "class_f1"]) == {"til", "mean"}
    assert result.value("class_f1", "til") == 1
    assert not {"pq", "detection_f1", "hovernet_fc"} & set(result.summary["metric"])
    regions_only = replace(sample(), nuclei=empty_nuclei(), instances=None, labelled_nuclei=())
    result = evaluate([(regions_only, same(sample()))], taxonomy=BREAST)
    assert set(result.summary["metric"]) == {"region_dice", "region_iou", "region_accuracy"}
    assert result.nucleus_confusion.to_numpy().sum() == 0


def test_truth_without_classes_and_single_nuclei_of_unknown_class():
    classless = sample(classes=(0, 0))
    result = evaluate([(classless, same(sample()))], taxonomy=BREAST)
    assert result.value("pq") == 1
    assert not {"class_f1", "class_pq", "panoptic_pq"} & set(result.summary["metric"])
    one_unknown = sample(classes=(0, TIL))
    result = evaluate([(one_unknown, same(sample()))], taxonomy=BREAST)
    assert result.value("class_f1", "mean") == 1
    assert result.value("class_pq", "mean") == 1
    assert result.value("detection_f1") == 1


def test_derived_regions_are_marked():
    truth = sample(region_derived=True)
    metrics = set(evaluate([(truth, same(truth))], taxonomy=BREAST).summary["metric"])
    assert {"derived_region_dice", "derived_panoptic_pq"} <= metrics
    assert "region_dice" not in metrics


def test_no_images_give_empty_tables():
    result = evaluate([], taxonomy=BREAST)
    assert [len(t) for t in (result.summary, result.images, result.parts, result.nucleus_confusion)] == [0, 0, 0, 0]


def test_shapes_and_orphans_are_refused():
    truth = sample()
    with pytest.raises(ShapeMismatch, match=r"a: predicted region are \(2, 2\), the truth \(20, 20\)"):
        evaluate([(truth, Prediction(truth.nuclei, None, np.zeros((2, 2), int)))], taxonomy=BREAST)
    with pytest.raises(SchemaError, match=r"1 predicted instances have no class, such as \[2\]"):
        Prediction(truth.nuclei.iloc[:1], truth.instances)
    with pytest.raises(SchemaError, match=r"lack the columns \['class_id'\]"):
        Prediction(truth.nuclei.drop(columns="class_id"))


@pytest.mark.parametrize("suffix", [".npy", ".png", ".tif", ".tiff"])
def test_predictions_from_a_folder(tmp_path, suffix):
    truth = sample()
    for name, values in (("instances", truth.instances), ("regions", truth.region)):
        (tmp_path / name).mkdir()
        path = tmp_path / name / f"a{suffix}"
        stored = values.astype(np.uint16)
        if suffix == ".npy":
            np.save(path, stored)
        elif suffix == ".png":
            assert cv2.imwrite(str(path), stored)
        else:
            tifffile.imwrite(path, stored)
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes" / "a.csv").write_text("instance_id,class\n1,tumor\n2,3\n")
    result = evaluate(read_pairs([truth], tmp_path, taxonomy=BREAST), taxonomy=BREAST)
    assert result.value("class_pq", "mean") == 1
    assert result.value("panoptic_pq", "mean") == 1
    assert result.value("class_f1", "til") == 1


def test_classes_from_a_type_map_by_majority(tmp_path):
    truth = sample()
    kinds = np.zeros((20, 20), np.uint8)
    kinds[1:5, 1:4], kinds[1:5, 4] = TUMOR, TIL
    for name, values in (("instances", truth.instances), ("types", kinds)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", values)
    assert read_prediction(tmp_path, "a", taxonomy=BREAST).nuclei["class_id"].tolist() == [TUMOR, 0]
    np.save(tmp_path / "types" / "a.npy", np.zeros((20, 20), np.uint8))
    assert read_prediction(tmp_path, "a", taxonomy=BREAST).nuclei["class_id"].tolist() == [0, 0]
    np.save(tmp_path / "types" / "a.npy", np.full((20, 20), 9, np.uint8))
    with pytest.raises(UnknownLabel, match=r"unknown class ids \[9\]"):
        read_prediction(tmp_path, "a", taxonomy=BREAST)
    np.save(tmp_path / "types" / "a.npy", np.zeros((2, 2), np.uint8))
    with pytest.raises(ShapeMismatch, match="type map of a"):
        read_prediction(tmp_path, "a", taxonomy=BREAST)


def test_points_alone_and_points_beside_outlines(tmp_path):
    truth = sample()
    (tmp_path / "points").mkdir()
    table = pd.DataFrame({"x_px": [3.0, 12.0], "y_px": [3.0, 12.0], "class": ["tumor", "til"]})
    table.to_csv(tmp_path / "points" / "a.csv", index=False)
    result = evaluate(read_pairs([truth], tmp_path, taxonomy=BREAST), taxonomy=BREAST)
    assert result.value("class_f1", "mean") == 1
    assert "pq" not in set(result.summary["metric"])
    (tmp_path / "instances").mkdir()
    np.save(tmp_path / "instances" / "a.npy", truth.instances)
    result = evaluate(read_pairs([truth], tmp_path, taxonomy=BREAST), taxonomy=BREAST)
    assert result.value("detection_f1") == 1  # the outlines are not counted a second time
    assert result.value("pq") == 1


def test_what_a_folder_can_lack(tmp_path):
    with pytest.raises(ResultError, match="holds no instances, regions or points for a"):
        read_prediction(tmp_path, "a", taxonomy=BREAST)
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "a.csv").write_text("x_px,y_px,class\n1,2,ogre\n")
    with pytest.raises(UnknownLabel, match=r"unknown classes \['ogre'\]; known: tumor, 1"):
        read_prediction(tmp_path, "a", taxonomy=BREAST)
    (tmp_path / "points" / "a.csv").write_text("x,y\n")
    with pytest.raises(SchemaError, match="lacks the columns"):
        read_prediction(tmp_path, "a", taxonomy=BREAST)
    (tmp_path / "points" / "a.csv").write_text("")
    with pytest.raises(ResultError, match="cannot be read as a table"):
        read_prediction(tmp_path, "a", taxonomy=BREAST)
    (tmp_path / "instances").mkdir()
    np.save(tmp_path / "instances" / "b.npy", np.zeros((2, 2, 3), int))
    with pytest.raises(ResultError, match="expected one channel of integer labels"):
        read_prediction(tmp_path, "b", taxonomy=BREAST)
    (tmp_path / "instances" / "c.npy").write_text("no array")
    with pytest.raises(ResultError, match="cannot be read as a label map"):
        read_prediction(tmp_path, "c", taxonomy=BREAST)
    (tmp_path / "instances" / "d.png").write_text("no picture")
    with pytest.raises(ResultError, match="found nothing"):
        read_prediction(tmp_path, "d", taxonomy=BREAST)
