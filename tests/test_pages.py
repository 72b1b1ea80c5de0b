import numpy as np

from pathopan.export.report import render_cohort, render_slide
from pathopan.pages import cohort_page, extreme_regions, slide_page
from pathopan.result import open_result


def test_a_slides_page_is_filled_from_its_results(results_folder):
    result = open_result(results_folder)
    page = slide_page(result.slide("A"), run=result.run, definitions={"stil_percent": "meaning"}, field_densities=[1.0])
    assert page.picture.shape == (768, 1024, 3)
    assert page.region_map.shape == (768, 1024)
    assert page.warnings == ["mpp was given"]
    assert page.qc == {
        "tile": {"tiles": 4, "tissue_mm2": 0.5},
        "stitch": {"nuclei": len(page.nuclei), "duplicates": 2, "seam_audit": {"ratio": 1.01}},
    }
    assert "taxonomy" not in page.provenance
    html = render_slide(page)
    assert "too little tumor" in html
    assert "Dense: tils region 3" in html


def test_the_extremes_are_the_densest_and_the_sparsest(results_folder):
    crops = list(extreme_regions(open_result(results_folder).slide("A")))
    assert [crop.title for crop in crops] == [
        "Dense: tils region 3",
        "Dense: stroma region 2",
        "Sparse: tumor region 1",
    ]
    assert crops[0].image.shape == (600, 600, 3)
    assert np.ptp(crops[0].image) > 0


def test_a_cohorts_page_is_filled_from_its_results(results_folder):
    page = cohort_page(open_result(results_folder), title="Trial", definitions={})
    assert set(page.thumbnails) == {"A", "B"}
    html = render_cohort(page)
    assert "pass --slide-mpp" in html
    assert 'href="slides/A/report.html"' in html
