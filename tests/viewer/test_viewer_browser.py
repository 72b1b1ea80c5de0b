"""The viewer in a real Chromium, as a person uses it: look, zoom, switch, click, and nothing leaves the machine."""

import re
import shutil

import numpy as np
import pytest
from chromium import Chromium
from results_made_up import region_map
from viewing import start, stop

from pathopan.export.geoparquet import read_table, write_table
from pathopan.result import open_result

pytestmark = [pytest.mark.browser, pytest.mark.slow]

STRANGE = "a b%2F<img src=x onerror=alert(1)>&\"'#?.é"
READY = "document.getElementById('stage')?.getAttribute('aria-busy') === 'false'"
COLORS = {0: (230, 234, 238), 1: (150, 60, 140), 2: (230, 160, 200), 3: (90, 60, 150), 5: (245, 245, 245)}


@pytest.fixture(scope="module")
def folder(results_folder, tmp_path_factory):
    """The made-up run, its second slide under a name that a stranger chose."""
    run = tmp_path_factory.mktemp("view") / "run"
    shutil.copytree(results_folder, run)
    (run / "slides" / "B").rename(run / "slides" / STRANGE)
    scores = read_table(run / "scores.parquet")
    write_table(run / "scores.parquet", scores.assign(slide_id=scores["slide_id"].replace("B", STRANGE)))
    return run


@pytest.fixture(scope="module")
def address(folder):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}
    process, url = start(folder)
    yield url
    assert stop(process) == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")} == before


@pytest.fixture
def page(address, tmp_path):
    with Chromium(tmp_path / "profile") as page:
        page.open(address)
        page.wait(READY)
        yield page
        assert page.complaints() == []
        assert [url for url in page.requests() if not url.startswith((address, "data:", "blob:", "about:"))] == []


def place(page):
    """Give a function from micrometres to screen pixels, learned from what the page says under the mouse."""
    seen = []
    for x, y in ((420, 300), (720, 600)):
        page.move(x, y)
        page.wait("document.getElementById('place').textContent")
        text = page.run("document.getElementById('place').textContent")
        seen.append([float(v) for v in re.match(r"x (-?[\d.]+) µm, y (-?[\d.]+) µm", text).groups()])
    (x0, y0), (x1, y1) = seen
    scale = (300 / (x1 - x0), 300 / (y1 - y0))
    assert scale[0] == pytest.approx(scale[1], rel=0.01)
    return lambda x, y: (round(420 + (x - x0) * scale[0]), round(300 + (y - y0) * scale[1]))


def settled(page):
    page.run("new Promise((done) => setTimeout(done, 600))")
    page.wait(READY)


def checked(page, name):
    return page.run(f"document.getElementById('show-{name}').checked")


def colors_at(page, places):
    image, at = page.screenshot(), place(page)
    return np.array([image[at(*p)[1], at(*p)[0]] for p in places]).astype(int)


PLACES = [(320, 320), (600, 600), (720, 380), (60, 400)]  # between nuclei: tumor, stroma, TILs, glass


def test_tiles_and_regions_lie_where_they_should(page):
    page.press("n")
    settled(page)
    blended = colors_at(page, PLACES)
    page.press("r")
    settled(page)
    assert not checked(page, "regions")
    plain = colors_at(page, PLACES)
    wanted = np.array([COLORS[region_map()[y, x]] for x, y in PLACES])
    assert np.abs(plain - wanted).max() < 8
    assert (np.abs(blended - plain).max(axis=1) > 10).tolist() == [True, True, True, False]
    tumor = 0.7 * wanted[0] + 0.3 * np.array([200, 0, 0])
    assert np.abs(blended[0] - tumor).max() < 10


def test_switches_change_pixels(page):
    page.press("r")
    settled(page)
    nuclei = [(310, 310), (610, 610)]
    shown = colors_at(page, nuclei)
    page.click_on("#show-nuclei")
    settled(page)
    hidden = colors_at(page, nuclei)
    assert np.abs(hidden - [COLORS[1], COLORS[2]]).max() < 8
    assert (np.abs(shown - hidden).max(axis=1) > 40).all()
    page.press("d")
    settled(page)
    assert checked(page, "density")
    assert np.abs(colors_at(page, [(725, 375)]) - COLORS[3]).max() > 40
    page.press("d")
    page.press("r")
    page.click_on("#classes-regions input")
    settled(page)
    without_tumor = colors_at(page, [(320, 320), (600, 600)])
    assert np.abs(without_tumor[0] - COLORS[1]).max() < 8
    assert np.abs(without_tumor[1] - COLORS[2]).max() > 10


def test_the_opacity_slider_fades_a_layer(page):
    page.press("n")
    settled(page)
    before = colors_at(page, PLACES[:1])[0]
    page.run("document.getElementById('opacity-regions').focus()")
    page.press("End")
    settled(page)
    assert page.run("document.getElementById('opacity-regions').value") == "100"
    after = colors_at(page, PLACES[:1])[0]
    assert np.abs(after - (200, 0, 0)).max() < 8 < np.abs(before - (200, 0, 0)).max()


def test_zoomed_in_nuclei_are_outlines_and_a_click_shows_the_row(page, folder):
    nuclei = open_result(folder).slide("A").nuclei
    nucleus = nuclei[(nuclei["x_um"] == 310) & (nuclei["y_um"] == 310)].iloc[0]
    page.press("r")
    x, y = place(page)(310, 310)
    for _ in range(9):
        page.scroll(x, y, -120)
        page.run("new Promise((done) => setTimeout(done, 60))")
    settled(page)
    at, image = place(page), page.screenshot().astype(int)
    x, y = at(310, 310)
    radius = at(314, 310)[0] - x
    assert radius > 20
    assert np.abs(image[y, x] - COLORS[1]).max() < 8  # inside an outline the slide shows
    line = image[y, x + radius - 4 : x + radius + 5]
    color = np.array([200, 0, 0] if nucleus["class"] == "tumor" else [60, 60, 230])
    assert np.abs(line - color).max(axis=1).min() < 40
    page.press("f")
    settled(page)
    assert np.abs(page.screenshot().astype(int)[y, x] - COLORS[1]).max() > 8
    page.click(x, y)
    page.wait("!document.getElementById('picked').hidden")
    text = page.run("document.getElementById('picked').innerText")
    assert f"Nucleus {nucleus['nucleus_id']}" in text
    assert "Region 1" in text
    settled(page)
    marked = page.screenshot().astype(int)[y, x + radius - 5 : x + radius + 6]
    assert np.abs(marked - (230, 159, 0)).max(axis=1).min() < 40
    page.press("Escape")
    page.wait("document.getElementById('picked').hidden")


def test_a_region_is_chosen_from_the_table_and_shown(page):
    page.click_on("#regions-box summary")
    page.click_on("#regions-table tbody tr:nth-child(3)")
    page.wait("!document.getElementById('picked').hidden")
    settled(page)
    assert "Region 3" in page.run("document.getElementById('picked').innerText")
    at = place(page)
    (x0, y0), (x1, y1) = at(650, 300), at(800, 450)
    assert 232 < x0 < x1 < 980
    assert 0 < y0 < y1 < 800
    assert y1 - y0 > 400
    column = page.screenshot().astype(int)[(y0 + y1) // 2, x0 - 4 : x0 + 5]
    assert np.abs(column - (230, 159, 0)).max(axis=1).min() < 40


def test_slides_are_listed_and_a_strange_name_stays_text(page):
    names = page.run("[...document.querySelectorAll('#list b')].map((b) => b.textContent)")
    assert names == ["A", STRANGE, "C"]
    assert "pass --slide-mpp" in page.run("document.querySelector('#list .failed').textContent")
    page.press("]")
    page.wait(f"document.getElementById('name').textContent.length > 5 && {READY}")
    settled(page)
    assert page.run("document.getElementById('name').textContent") == STRANGE
    assert "no such file" in page.run("document.getElementById('trouble').textContent")
    page.press("n")
    page.press("r")
    settled(page)
    wanted = [COLORS[region_map()[y, x]] for x, y in PLACES]
    assert np.abs(colors_at(page, PLACES) - wanted).max() < 12
    assert page.run("document.images.length") >= 2
    assert page.run("[...document.images].every((i) => !i.src.endsWith('/x'))")
    page.click_on("#filter")
    page.press("z")
    page.wait(
        "document.querySelectorAll('#list li').length === 1 || document.querySelectorAll('#list li').length === 0"
    )


def test_the_scale_bar_is_as_long_as_it_says(page):
    at = place(page)
    text = page.run("document.getElementById('bar-text').textContent")
    length = float(text.split()[0]) * (1000 if text.endswith("mm") else 1)
    width = page.run("document.getElementById('bar-line').getBoundingClientRect().width")
    assert width == pytest.approx(at(100 + length, 0)[0] - at(100, 0)[0], abs=2)


def test_a_reload_comes_back_to_the_same_place(page):
    page.press("1")
    settled(page)
    page.press("ArrowRight")
    settled(page)
    before = place(page)(300, 300)
    page.call("Page.reload")
    page.run("new Promise((done) => setTimeout(done, 500))")
    page.wait(READY)
    assert np.abs(np.subtract(place(page)(300, 300), before)).max() <= 3
