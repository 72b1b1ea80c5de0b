"""Sheets and charts, pixel by pixel where it matters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pathopan.classes import BREAST
from pathopan.export.charts import draw_confusion, draw_reliability, draw_spread
from pathopan.export.evaluation import EvaluationPage, render_evaluation
from pathopan.export.sheets import Differences, Drawn, draw_labels, draw_sheet

TUMOR, TIL = 1, 3
RED, GREEN, BLUE = (BREAST.nucleus(name).color for name in ("tumor", "stromal", "til"))
GREY = np.full((60, 80, 3), 120, np.uint8)
NUCLEI = pd.DataFrame(
    {"x_px": [20.0, 60.0], "y_px": [30.0, 30.0], "class_id": [TUMOR, TIL], "instance_id": [1, 2]},
)
NO_DIFFERENCE = Differences(pd.DataFrame(columns=["x_px", "y_px", "class_id", "found_id", "kind"]))


def instances():
    labels = np.zeros((60, 80), np.int32)
    labels[20:40, 10:30], labels[20:40, 50:70] = 1, 2
    return labels


def shows(picture, color):
    return (picture == np.array(color)).all(axis=-1)


def test_outlines_have_their_classs_color_and_leave_the_inside_alone():
    drawn = draw_labels(GREY, Drawn(NUCLEI, instances()), taxonomy=BREAST, zoom=1.0)
    assert tuple(drawn[20, 15]) == RED
    assert tuple(drawn[20, 55]) == BLUE
    assert (drawn[30, 20] == 120).all()
    assert (drawn[5, 5] == 120).all()
    assert (GREY == 120).all()


def test_touching_nuclei_keep_a_border_between_them():
    labels = np.zeros((60, 80), np.int32)
    labels[20:40, 10:30], labels[20:40, 30:50] = 1, 2
    drawn = draw_labels(GREY, Drawn(NUCLEI, labels), taxonomy=BREAST, zoom=1.0)
    assert (tuple(drawn[30, 29]), tuple(drawn[30, 30])) == (RED, BLUE)


def test_points_are_dots_and_regions_a_tint():
    region = np.zeros((60, 80), np.uint8)
    region[:, 40:] = TUMOR
    drawn = draw_labels(GREY, Drawn(NUCLEI, None, region), taxonomy=BREAST, zoom=1.0)
    assert tuple(drawn[30, 20]) == RED
    assert (drawn[5, 5] == 120).all()  # unlabelled
    assert drawn[5, 70, 0] > 120 > drawn[5, 70, 1]


def test_a_zoomed_outline_lies_where_the_nucleus_does():
    large = np.repeat(np.repeat(GREY, 2, 0), 2, 1)
    drawn = draw_labels(large, Drawn(NUCLEI, instances()), taxonomy=BREAST, zoom=2.0)
    ys, xs = np.nonzero(shows(drawn, RED))
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (20, 59, 40, 79)


@pytest.mark.parametrize(
    ("kind", "true", "found", "centre", "ring"),
    [("missed", TUMOR, 0, None, RED), ("confused", TUMOR, TIL, BLUE, RED), ("extra", 0, TIL, BLUE, None)],
)
def test_each_kind_of_difference_has_its_mark(kind, true, found, centre, ring):
    table = pd.DataFrame([(40.0, 30.0, true, found, kind)], columns=["x_px", "y_px", "class_id", "found_id", "kind"])
    sheet = draw_sheet(
        GREY, Drawn(NUCLEI.iloc[:0]), Drawn(NUCLEI.iloc[:0]), differences=Differences(table), taxonomy=BREAST, title="a"
    )
    panel = sheet[-248:-128, -174:-14]  # the last of four panels of 160 x 120 pixels, above three lines of legend
    assert panel.shape == (120, 160, 3)
    assert centre is None or tuple(panel[60, 80]) == centre
    assert ring is None or tuple(panel[60, 89]) == ring
    assert centre is not None or not shows(panel[57:64, 77:84], RED).any()


def test_a_sheet_has_four_panels_and_more_room_for_more_lines():
    drawn = Drawn(NUCLEI, instances())
    short = draw_sheet(GREY, drawn, drawn, differences=NO_DIFFERENCE, taxonomy=BREAST, title="best 1")
    tall = draw_sheet(GREY, drawn, drawn, differences=NO_DIFFERENCE, taxonomy=BREAST, title="best 1", lines=["pq 0.6"])
    assert short.shape[1] == tall.shape[1] == 14 + 4 * (160 + 14)
    assert tall.shape[0] > short.shape[0]
    assert shows(short, RED).sum() > 2 * shows(short[-128:], RED).sum() > 0  # on two panels and in the legend


def test_confusion_cells_are_darker_where_more_of_the_row_is():
    table = pd.DataFrame([[9, 1], [0, 0]], index=["a", "b"], columns=["a", "none"])
    picture = draw_confusion(table, title="Nuclei")
    inside = [picture[18 + 90 + 5, 18 + 150 + column * 132 + 5].sum() for column in (0, 1)]
    assert inside[0] < inside[1]
    assert (picture[18 + 90 + 62 + 5, 18 + 150 + 5] == 255).all()  # a row without nuclei stays white


def test_reliability_and_spread_draw_what_they_are_given():
    curve = (np.array([0.25, np.nan, 0.9]), np.array([0.5, np.nan, 0.9]), np.array([10, 0, 90]))
    one, two = draw_reliability({"class": curve}), draw_reliability({"class": curve, "detection": curve})
    assert two.shape[1] > one.shape[1]
    honest = draw_reliability({"class": (np.array([0.5]), np.array([0.5]), np.array([4]))})
    assert shows(honest, (11, 92, 173))[64 + 160, 74 + 160]  # the middle of the diagonal
    images = pd.DataFrame({"pq": [0.2, 0.4, np.nan], "area": [5.0, 6.0, 7.0]})
    assert draw_spread(images).shape[0] == 2 * 18 + 40 + 24  # one figure; an area is none


def test_the_page_holds_everything_it_shows():
    summary = pd.DataFrame(
        [
            ("pq", "all", 0.5, 0.4, 0.6, 2, 2),
            ("pq", "<b>", np.nan, np.nan, np.nan, 2, 2),
            ("sq", "all", 0.7, np.nan, np.nan, 1, 1),
            ("aji_plus", "all", 0.6, np.nan, np.nan, 1, 1),
        ],
        columns=["metric", "class", "value", "low", "high", "n_images", "n_patients"],
    )
    images = pd.DataFrame({"sample_id": ["a&b"], "group": ["P"], "pq": [0.5], "sq": [np.nan]})
    page = EvaluationPage("net on set", "2 images", summary, images, {"Nuclei": GREY}, {"best 1: a": GREY}, "class F1")
    text = render_evaluation(page)
    assert "0.400 to 0.600" in text
    assert text.index("<summary>All other figures") < text.index("aji plus")  # folded; the headlines stand above
    assert text.index(">sq<") < text.index("<summary>All other figures")
    assert "&lt;b&gt;" not in text  # a figure without value is left out
    assert "a&amp;b" in text
    assert text.count("data:image/png;base64,") == 1
    assert text.count("data:image/jpeg;base64,") == 1
    assert "Ordered by class F1" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "<img" not in render_evaluation(EvaluationPage("t", "s", summary, images))
