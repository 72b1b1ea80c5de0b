import re

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from chromium import Chromium

from pathopan.classes import BREAST
from pathopan.export.bands import bands_layer, find_bands
from pathopan.export.report import CohortPage, Crop, SlidePage, render_cohort, write_cohort_report, write_slide_report
from pathopan.objects import CompartmentRules

EVIL = "<img src=x onerror=document.title='hacked'>\"'&"
SCORE = {
    "headline": {
        "stil_percent": 12.34,
        "stil_percent_ci_low": 9.0,
        "stil_percent_ci_high": 15.0,
        "stil_density_per_mm2": 1928.0,
        "stil_density_ci_low": 1406.0,
        "stil_density_ci_high": 2344.0,
        "itil_per_mm2": None,
        "phenotype": EVIL,
        "reasons": {"itil_per_mm2": "tumor is below 0.01 mm2"},
    },
    "compartments": {"stroma": {"n_til": 5, "area_mm2": 0.5, "til_density_per_mm2": 10.0}, EVIL: {"n_til": 0}},
}


def slide_page(**changes):
    rng = np.random.default_rng(0)
    region_map = np.full((90, 120), 5, np.uint8)
    region_map[10:80, 10:110] = 2
    region_map[30:60, 40:80] = 1
    regions = gpd.GeoDataFrame(
        {
            "region_id": [1, 2, 3],
            "class": ["tumor", "stroma", EVIL],
            "class_id": [1, 2, 2],
            "area_mm2": [0.0768, 0.3712, 0.001],
            "n_til": [3, 40, 1],
            "til_density_per_mm2": [39.1, 107.8, np.nan],
        },
        geometry=[shapely.box(640, 480, 1280, 960), shapely.box(160, 160, 1760, 1280), shapely.box(0, 0, 9, 9)],
    )
    page = {
        "slide_id": EVIL,
        "taxonomy": BREAST,
        "picture": np.full((90, 120, 3), 220, np.uint8),
        "mpp": 8.0,
        "region_map": region_map,
        "nuclei": pd.DataFrame(
            {"x_um": rng.uniform(80, 880, 500), "y_um": rng.uniform(80, 640, 500), "class_id": rng.integers(1, 5, 500)}
        ),
        "regions": regions,
        "score": SCORE,
        "l0_mpp": (0.5, 0.5),
        "definitions": {"stil_percent": EVIL},
        "field_densities": rng.gamma(2, 100, 30),
        "bands": find_bands(region_map, taxonomy=BREAST, mpp=8.0, rules=CompartmentRules()),
        "crops": [Crop(np.full((20, 20, 3), 90, np.uint8), EVIL, EVIL)],
        "qc": {"tissue_mm2": 0.4, "seam_audit": {"duplicates": 0}},
        "warnings": [EVIL],
        "provenance": {"command": EVIL, "bundle": {"sha256": "ab" * 32}},
    }
    return SlidePage(**{**page, **changes})


def cohort_page():
    scores = pd.DataFrame(
        {
            "slide_id": ["S10", "S9", EVIL, "S3"],
            "stil_percent": [5.0, 40.0, 12.0, np.nan],
            "phenotype": ["desert", "inflamed", EVIL, None],
            "other_um": [1.0, 2.0, 3.0, 4.0],
        }
    )
    failures = pd.DataFrame(
        {"slide_id": ["S3"], "stage": ["tile"], "error": [EVIL], "what_to_do": ["pass --slide-mpp"]}
    )
    thumbnails = {"S10": np.full((40, 60, 3), 200, np.uint8), EVIL: np.full((60, 40, 3), 100, np.uint8)}
    return CohortPage(EVIL, scores, thumbnails, failures, provenance={"pathopan": "0.1.0"})


def test_a_page_is_small_escaped_and_asks_nobody(tmp_path):
    for name, write, page in (
        ("slide.html", write_slide_report, slide_page()),
        ("cohort.html", write_cohort_report, cohort_page()),
    ):
        write(tmp_path / name, page)
        text = (tmp_path / name).read_text()
        assert "<img src=x" not in text
        assert not re.search(r"""(src|href)=["'](?!data:|#|slides/)""", text)
        assert "http" not in text.replace("http-equiv", "")
        assert "research use only" in text
        assert len(text) < 200_000


def test_a_page_shows_values_reasons_and_definitions(tmp_path):
    write_slide_report(tmp_path / "r.html", slide_page())
    text = (tmp_path / "r.html").read_text()
    assert "tumor is below 0.01 mm2" in text
    assert "95 % interval 9.00 – 15.0" in text
    assert "95 % interval 1,406 – 2,344" in text
    assert 'title="&lt;img src=x' in text
    assert "Histogram of TIL density over 30 fields" in text


def test_a_region_is_found_where_it_lies_if_pixels_are_no_squares(tmp_path):
    write_slide_report(tmp_path / "r.html", slide_page(l0_mpp=(0.5, 1.0)))
    assert 'data-box="40.0 60.0 80.0 120.0"' in (tmp_path / "r.html").read_text()


def test_bands_lie_around_tumor_and_carry_the_scores_density(tmp_path):
    page = slide_page(score={"compartments": {"stroma_near": {"til_density_per_mm2": 1234.0}}})
    layer = bands_layer(page.bands)
    at = {
        name: tuple(layer[y, x, :3].tolist())
        for name, (y, x) in {"core": (45, 60), "near": (45, 36), "far": (12, 12)}.items()
    }
    assert at == {"core": (136, 34, 85), "near": (221, 204, 119), "far": (51, 34, 136)}
    assert layer[5, 5, 3] == 0
    write_slide_report(tmp_path / "r.html", page)
    text = (tmp_path / "r.html").read_text()
    assert "stroma ≤ 50 µm" in text
    assert '<span class="count">1,234</span>' in text
    assert page.bands.resized((60, 45)).partition.shape == (45, 60)


def test_an_empty_slide_still_has_a_page(tmp_path):
    empty = slide_page(
        nuclei=pd.DataFrame({"x_um": [], "y_um": [], "class_id": np.array([], int)}),
        regions=slide_page().regions.iloc[:0],
        region_map=np.zeros((90, 120), np.uint8),
        score={},
        field_densities=(),
        crops=(),
        qc={},
        warnings=(),
        provenance={},
    )
    write_slide_report(tmp_path / "r.html", empty)
    assert "None was found." in (tmp_path / "r.html").read_text()


def test_a_large_slide_stays_within_the_budget(tmp_path):
    rng = np.random.default_rng(0)
    n = 600_000
    picture = np.repeat(np.repeat(rng.integers(120, 255, (260, 320, 3), dtype=np.uint8), 10, 0), 10, 1)
    page = slide_page(
        picture=picture,
        region_map=np.repeat(np.repeat(rng.integers(1, 6, (65, 80), dtype=np.uint8), 40, 0), 40, 1),
        nuclei=pd.DataFrame(
            {"x_um": rng.uniform(0, 25600, n), "y_um": rng.uniform(0, 20800, n), "class_id": rng.integers(1, 5, n)}
        ),
    )
    write_slide_report(tmp_path / "r.html", page)
    assert (tmp_path / "r.html").stat().st_size < 5_000_000
    assert "an even sample of 200,000" in (tmp_path / "r.html").read_text()


def test_one_slide_is_no_distribution():
    alone = CohortPage("x", pd.DataFrame({"slide_id": ["S1"], "stil_percent": [5.0]}))
    assert "1 slide<" in render_cohort(alone)
    assert "Distribution" not in render_cohort(alone)
    assert "Distribution" in render_cohort(cohort_page())


def test_a_large_cohort_stays_within_the_budget():
    rng = np.random.default_rng(0)
    names = [f"S{i}" for i in range(600)]
    scores = pd.DataFrame({"slide_id": names, "stil_percent": rng.random(600)})
    noise = rng.integers(100, 255, (400, 500, 3), dtype=np.uint8)
    assert len(render_cohort(CohortPage("big", scores, dict.fromkeys(names, noise)))) < 5_000_000


def browse(path, script, tmp_path):
    """Run a script in a page, in a Chromium that reaches no host; give what it found and what the console said."""
    with Chromium(tmp_path / "profile") as page:
        page.open(path.as_uri())
        page.wait("document.readyState === 'complete' && document.images.length")
        out = page.run(f"(() => {{ const out = {{}}; {script} return out; }})()")
        out["requests"] = [url for url in page.requests() if not url.startswith(("data:", "about:", path.as_uri()))]
        return out, page.complaints()


@pytest.mark.browser
@pytest.mark.slow
def test_the_slide_page_works_in_a_browser(tmp_path):
    write_slide_report(tmp_path / "r.html", slide_page())
    script = """
      const get = (id) => document.getElementById(id), press = (key) =>
        get("view").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
      const shown = (name) => getComputedStyle(get(name)).display;
      out.title = document.title;
      out.start = [shown("layer-regions"), shown("layer-density"), shown("layer-bands")];
      get("show-regions").click(); press("d");
      out.toggled = [shown("layer-regions"), shown("layer-density"), get("show-density").checked];
      get("show-bands").click();
      out.bands = [shown("layer-density"), shown("layer-bands"), get("show-density").checked];
      press("b");
      out.none = [shown("layer-density"), shown("layer-bands")];
      document.querySelector("button.show").click();
      out.mark = get("mark").hidden;
      press("0");
      out.back = get("mark").hidden;
      const heads = [...document.querySelectorAll("#regions-table thead button")];
      const rows = () => [...document.querySelectorAll("#regions-table tbody tr")];
      const column = (i) => rows().map((row) => row.cells[i].dataset.sort);
      heads[2].click(); heads[2].click(); out.ascending = column(2);
      heads[4].click(); out.density = column(4);
      out.sorted = heads[4].parentElement.getAttribute("aria-sort");
      out.loaded = [...document.images].every((image) => image.complete && image.naturalWidth > 0);
    """
    out, console = browse(tmp_path / "r.html", script, tmp_path)
    assert console == []
    assert out["requests"] == []
    assert out["title"].startswith("<img src=x")
    assert out["start"] == ["block", "none", "none"]
    assert out["toggled"] == ["none", "block", True]
    assert out["bands"] == ["none", "block", False]
    assert out["none"] == ["none", "none"]
    assert (out["mark"], out["back"]) == (False, True)
    assert out["ascending"] == ["0.001", "0.0768", "0.3712"]
    assert out["density"] == ["107.8", "39.1", ""]
    assert out["sorted"] == "descending"
    assert out["loaded"]


@pytest.mark.browser
@pytest.mark.slow
def test_the_cohort_page_works_in_a_browser(tmp_path):
    write_cohort_report(tmp_path / "r.html", cohort_page())
    script = """
      const heads = [...document.querySelectorAll("#scores thead button")];
      const names = () => [...document.querySelectorAll("#scores tbody tr")].map((r) => r.cells[0].textContent);
      heads[1].click(); out.down = names();
      heads[0].click(); heads[0].click(); out.byName = names();
      const more = () => getComputedStyle(document.querySelector("td.more")).display;
      out.few = more(); document.getElementById("more").click(); out.all = more();
      const dot = document.querySelectorAll(".line a")[2];
      out.target = document.getElementById(decodeURIComponent(dot.hash.slice(1))) !== null;
      out.dots = document.querySelectorAll(".line a").length;
    """
    out, console = browse(tmp_path / "r.html", script, tmp_path)
    assert console == []
    assert out["requests"] == []
    assert out["down"] == ["S9", EVIL, "S10", "S3"]
    assert out["byName"][-3:] == ["S3", "S9", "S10"]
    assert (out["few"], out["all"]) == ("none", "table-cell")
    assert out["target"]
    assert out["dots"] == 3


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(("write", "page"), [(write_slide_report, slide_page), (write_cohort_report, cohort_page)])
def test_a_script_that_is_not_the_pages_own_does_not_run(tmp_path, write, page):
    path = tmp_path / "r.html"
    write(path, page())
    evil = "<script>document.title = 'hacked'</script><img src=x onerror=\"document.title = 'hacked'\"></body>"
    path.write_text(path.read_text().replace("</body>", evil))
    out, console = browse(path, "out.title = document.title;", tmp_path)
    assert out["title"].startswith("<img src=x")
    assert len([text for text in console if "Content Security Policy" in text]) >= 2
