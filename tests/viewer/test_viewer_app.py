"""The viewer's addresses: who may ask, and that every pixel, outline and row is the one of its place."""

import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import shapely
from PIL import Image
from results_made_up import region_map
from starlette.testclient import TestClient

from pathopan.classes import BREAST
from pathopan.errors import UnreadableSlide
from pathopan.export.geoparquet import read_geoparquet, read_table, write_geoparquet, write_table
from pathopan.geometry import Window
from pathopan.result import open_result
from pathopan.tables import nuclei_schema, regions_schema
from pathopan.viewer import pictures
from pathopan.viewer.answers import UNIT_UM
from pathopan.viewer.app import make_app
from pathopan.viewer.gallery import Gallery

TOKEN = "t0ken-of-this-test"
FINEST, MPP = 2, 0.5  # of the made-up slides: 2048 x 1536 pixels
STRANGE = "a b%2F<img src=x onerror=alert(1)>&\"'#?.é"


def connect(folder, base="http://127.0.0.1:4711"):
    return TestClient(make_app(Gallery(open_result(folder)), TOKEN), base_url=base)


@pytest.fixture
def client(results_folder):
    with connect(results_folder) as client:
        yield client


@pytest.fixture
def get(client):
    def call(address, status=200):
        answer = client.get(f"/{TOKEN}/{address}")
        assert answer.status_code == status, answer.text
        return answer

    return call


def pixels(answer, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert(mode)).astype(int)


# ---- who may ask -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/slides", "/favicon.ico", "/static/viewer.js", f"/{TOKEN}x/", f"/{TOKEN[:-1]}/slides", "/%C3%A9%FF/slides",
     f"//{TOKEN}/", "/slides/0/picture/0/0_0.jpeg", f"/slides?token={TOKEN}"],
)  # fmt: skip
def test_without_the_token_nothing_is_told(client, path):
    answer = client.get(path)
    assert answer.status_code == 403
    assert "pathopan view" in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:4711", "127.0.0.1.evil.example", "", "192.168.0.7:4711"]
)
def test_a_rebound_name_is_refused_even_with_the_token(client, host):
    assert client.get(f"/{TOKEN}/slides", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:4711", "localhost:1", "127.0.0.1"])
def test_this_machines_names_are_known(client, host):
    assert client.get(f"/{TOKEN}/slides", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_reading_is_allowed(client, method):
    answer = client.request(method, f"/{TOKEN}/slides", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["slides/A", "slides/-1", "slides/2", "slides/0/run.json", "run.json", "static/"])
def test_there_is_nothing_else(get, path):
    get(path, 404)


@pytest.mark.parametrize(
    "path",
    [
        "static/%2e%2e/app.py", "static/..%2F..%2Fcli.py", "static/%2e%2e%2F%2e%2e%2Fcli.py", "static/%2Fetc%2Fpasswd",
        "static//etc/passwd", "static/....//app.py", "static/..%5Capp.py", "%2e%2e/%2e%2e/etc/passwd",
        "slides/%2e%2e/run.json", "slides/0/%2e%2e/%2e%2e/run.json", "slides/0/regions/%2e%2e",
        "static/%00", "static/x%00.js",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_page_and_the_run(client, path):
    answer = client.get(f"/{TOKEN}/{path}")
    assert answer.status_code in (400, 403, 404)
    assert "import " not in answer.text
    assert "root:" not in answer.text


def test_every_answer_says_what_a_browser_may_do(client):
    for path in (f"/{TOKEN}/", f"/{TOKEN}/slides", f"/{TOKEN}/nothing", "/"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_images_are_kept_by_the_browser_and_rows_are_not(get):
    assert get("slides/0/picture/0/0_0.jpeg").headers["cache-control"] == "private, max-age=3600"
    assert get("slides").headers["cache-control"] == "no-store"
    assert get("").headers["cache-control"] == "no-store"


def test_the_page_and_its_parts_are_there(client, get):
    assert "<title>pathopan</title>" in get("").text
    assert get("favicon.ico").headers["content-type"].startswith("image/svg")
    assert "openseadragon 6.1.1" in get("static/openseadragon-6.1.1.min.js").text[:100]
    assert "CodePlex" in get("static/openseadragon-6.1.1.LICENSE.txt").text
    assert client.get(f"/{TOKEN}", follow_redirects=False).headers["location"] == f"/{TOKEN}/"
    assert client.head(f"/{TOKEN}/slides").status_code == 200


# ---- what is told ------------------------------------------------------------------------------------------------


def test_all_slides_are_listed_and_failed_ones_say_why(get):
    told = get("slides").json()
    assert [(s["slide_id"], s["number"], s["status"]) for s in told["slides"]] == [
        ("A", 0, "ok"), ("B", 1, "ok"), ("C", None, "failed"),
    ]  # fmt: skip
    assert told["slides"][0]["scores"][0]["text"] == "12.0"
    assert told["slides"][2]["why"] == "tile; no mpp; pass --slide-mpp"
    assert "research use only" in told["notice"]


def test_a_slide_is_described(get):
    told = get("slides/0").json()
    assert told["plane"] == {"size": [2048, 1536], "tile": 512, "levels": 3, "mpp": 0.5, "slide": [2048, 1536]}
    assert (told["trouble"], told["stored_mpp"]) == ("", 8.0)
    assert [c["name"] for c in told["regions"]] == ["tumor", "stroma", "tils", "other"]
    assert told["headlines"][1]["note"] == "too little tumor"
    assert [row["region_id"] for row in told["largest"]["rows"]] == [2, 1, 3]
    assert told["density"]["top"] > 0


@pytest.mark.parametrize(("column", "row"), [(0, 0), (1, 1), (3, 2)])
def test_the_picture_lies_where_geometry_says(get, results_folder, column, row):
    found = pixels(get(f"slides/0/picture/{FINEST}/{column}_{row}.jpeg"))
    assert found.shape == (512, 512, 3)
    with Image.open(results_folder.parent / "A.tif") as image:
        truth = np.asarray(image).astype(int)
    assert np.abs(found - truth[row * 512 :, column * 512 :][:512, :512]).mean() < 2


@pytest.mark.parametrize("level", [2, 1])
def test_region_tiles_hold_the_region_map(get, level):
    mpp = MPP * 2 ** (FINEST - level)
    truth = region_map()[np.ix_(*(((np.arange(n) + 0.5) * mpp).astype(int) for n in (512, 512)))]
    found = pixels(get(f"slides/0/regions/{level}/0_0.png"), "RGBA")
    colors = {c.id: (*c.color, 255) for c in BREAST.regions if c.role != "background"}
    for key in np.unique(truth):
        here = found[truth == key]
        assert (here == colors[key]).all() if key in colors else (here[:, 3] == 0).all()


def test_hidden_classes_are_transparent(get):
    truth = region_map()[:256, :256].repeat(2, 0).repeat(2, 1)
    found = pixels(get(f"slides/0/regions/{FINEST}/0_0.png?hide=1-4"), "RGBA")
    assert (found[truth == 1][:, 3] == 0).all()
    assert (found[truth == 2][:, 3] == 255).all()


def test_nucleus_tiles_hold_the_nuclei(get, results_folder):
    nuclei = open_result(results_folder).slide("A").nuclei
    found = pixels(get(f"slides/0/nuclei/{FINEST}/0_0.png"), "RGBA")
    shown = nuclei[(nuclei["x_um"] < 250) & (nuclei["y_um"] < 250)]
    for _, nucleus in shown.iterrows():
        x, y = int(nucleus["x_um"] / MPP), int(nucleus["y_um"] / MPP)
        assert tuple(found[y, x]) == (*BREAST.nucleus(nucleus["class"]).color, 255)
        assert found[y, x + 12, 3] == 0
    without_tils = pixels(get(f"slides/0/nuclei/{FINEST}/0_0.png?hide=3"), "RGBA")
    assert (without_tils[..., 3] > 0).sum() < (found[..., 3] > 0).sum()


def test_the_density_is_high_where_tils_are(get):
    found = pixels(get("slides/0/density/0/0_0.png"), "RGBA")  # 2 um per pixel
    dense, sparse = found[375 // 2, 725 // 2], found[350 // 2, 350 // 2]  # the square of TILs, and the tumor
    assert dense[3] > 200
    assert sparse[3] < dense[3] - 40
    assert found[20, 20, 3] == 0  # off the tissue


def test_a_slide_that_moved_is_shown_from_the_stored_picture(get):
    assert "/gone.svs: no such file" in get("slides/1").json()["trouble"]
    found = pixels(get(f"slides/1/picture/{FINEST}/1_1.jpeg"))
    assert np.abs(found[100, 100] - (150, 60, 140)).max() < 6  # 306 um, 306 um: tumor
    assert np.abs(pixels(get("slides/1/thumbnail.jpeg"))[40, 40] - (150, 60, 140)).max() < 12


def test_a_file_of_another_size_is_not_taken_for_the_slide(results_folder, tmp_path):
    shutil.copytree(results_folder, tmp_path / "run")
    record_path = tmp_path / "run" / "slides" / "A" / "record.json"
    record = json.loads(record_path.read_text())
    record["slide"]["size_l0"] = [2000, 1536]
    record_path.write_text(json.dumps(record))
    with connect(tmp_path / "run") as client:
        assert "another size" in client.get(f"/{TOKEN}/slides/0").json()["trouble"]


def test_damage_in_the_file_shows_the_stored_picture_there(results_folder):
    class Torn:
        closed = False

        def read(self, _window, _mpp):
            raise UnreadableSlide("torn")

        def close(self):
            self.closed = True

    reader = pictures.PictureReader(open_result(results_folder).slide("A"))
    torn = Torn()
    reader._idle.append(torn)
    assert np.abs(reader.read(Window(600, 600, 4, 4), 0.5).astype(int) - (150, 60, 140)).max() < 3
    assert torn.closed
    assert not reader.trouble
    reader.close()


def test_threads_that_read_at_once_see_the_same(results_folder):
    reader = pictures.PictureReader(open_result(results_folder).slide("A"))
    windows = [Window(x, y, 300, 300) for x in range(0, 2000, 250) for y in range(0, 1500, 250)]
    serial = [reader.read(window, 0.5) for window in windows]
    with ThreadPoolExecutor(6) as pool:
        parallel = list(pool.map(lambda window: reader.read(window, 0.5), windows))
    assert all((a == b).all() for a, b in zip(serial, parallel, strict=True))
    assert 1 <= len(reader._idle) <= 6
    reader.close()
    assert not reader._idle


def test_a_slide_whose_pixels_are_not_square_is_shown_in_micrometres(results_folder, tmp_path):
    """Level-0 pixels of 0.5 x 0.25 um: places in micrometres stay what they are, those in level-0 pixels do not."""
    shutil.copytree(results_folder, tmp_path / "run")
    slide = tmp_path / "run" / "slides" / "B"
    record = json.loads((slide / "record.json").read_text())
    record["slide"] |= {"mpp_l0": [0.5, 0.25], "size_l0": [2048, 3072]}
    (slide / "record.json").write_text(json.dumps(record))
    nuclei = open_result(results_folder).slide("B").nuclei
    stretched = nuclei.set_geometry(nuclei.geometry.affine_transform([1, 0, 0, 2, 0, 0]))
    write_geoparquet(slide / "nuclei.parquet", stretched, schema=nuclei_schema(BREAST))
    with connect(tmp_path / "run") as client:
        plane = client.get(f"/{TOKEN}/slides/1").json()["plane"]
        assert (plane["mpp"], plane["slide"]) == (0.25, [4096, 3072])
        told = client.get(f"/{TOKEN}/slides/1/pick?x=310&y=310&mpp=0.5").json()
        assert told["nucleus"]["bounds_um"] == pytest.approx([306, 306, 314, 314])
        ((_, ring),) = rings(client.get(f"/{TOKEN}/slides/1/outlines?x0=305&y0=305&x1=315&y1=315").json())
        assert ring.bounds == pytest.approx((306, 306, 314, 314))
        found = pixels(client.get(f"/{TOKEN}/slides/1/regions/{plane['levels'] - 1}/1_1.png"), "RGBA")
        assert tuple(found[300, 287]) != tuple(found[300, 289])  # tumor begins at 200 um, pixel 800


def test_only_a_few_slides_stay_open(results_folder, monkeypatch):
    monkeypatch.setattr("pathopan.viewer.gallery._KEPT", 1)
    gallery = Gallery(open_result(results_folder))
    first = gallery.exhibit(0)
    assert gallery.exhibit(0) is first
    gallery.exhibit(1)
    assert not first.picture._idle
    assert gallery.exhibit(0) is not first
    gallery.close()


# ---- outlines and rows -------------------------------------------------------------------------------------------


def rings(told):
    for kind, found in told["classes"].items():
        points = np.array(found["points"]).reshape(-1, 2) * UNIT_UM + (told["x_um"], told["y_um"])
        for ring in np.split(points, np.cumsum(found["lengths"])[:-1]):
            yield int(kind), shapely.Polygon(ring)


def test_squares_side_by_side_give_each_nucleus_once(get, results_folder):
    nuclei = open_result(results_folder).slide("A").nuclei
    cells = [(x, y) for x in range(0, 1024, 190) for y in range(0, 768, 190)]
    told = [get(f"slides/0/outlines?x0={x}&y0={y}&x1={x + 190}&y1={y + 190}").json() for x, y in cells]
    assert sum(cell["count"] for cell in told) == len(nuclei)
    found = sorted(
        (round(ring.centroid.x), round(ring.centroid.y), kind) for cell in told for kind, ring in rings(cell)
    )
    truth = sorted(zip(nuclei["x_um"], nuclei["y_um"], nuclei["class_id"], strict=True))
    assert found == truth


def test_outlines_are_those_of_the_table(get, results_folder):
    table = open_result(results_folder).slide("A").nuclei
    nucleus = table[(table["x_um"] == 310) & (table["y_um"] == 310)]
    told = get("slides/0/outlines?x0=305.03&y0=300&x1=315&y1=320").json()
    assert told["count"] == 1
    ((kind, ring),) = rings(told)
    shape = shapely.transform(nucleus.geometry.iloc[0], lambda xy: xy * MPP)
    assert kind == nucleus["class_id"].iloc[0]
    assert ring.hausdorff_distance(shape) <= UNIT_UM


@pytest.mark.parametrize(
    ("query", "words"),
    [("x0=0&y0=0&x1=5000&y1=10", "at most 2048 um"), ("x0=9&y0=0&x1=9&y1=9", "wider"), ("x0=0&y0=0&x1=9", "y1 must be"),
     ("x0=nan&y0=0&x1=9&y1=9", "x0 must be"), ("x0=a&y0=0&x1=9&y1=9", "could not convert")],
)  # fmt: skip
def test_senseless_rectangles_are_refused(get, query, words):
    assert words in get(f"slides/0/outlines?{query}", 400).text


def test_a_click_finds_the_nucleus_and_the_region_below_it(get, results_folder):
    table = open_result(results_folder).slide("A").nuclei
    nucleus = table[(table["x_um"] == 310) & (table["y_um"] == 310)].iloc[0]
    told = get("slides/0/pick?x=311&y=308&mpp=0.5").json()
    assert told["nucleus"]["title"] == f"Nucleus {nucleus['nucleus_id']}"
    assert told["nucleus"]["bounds_um"] == pytest.approx([306, 306, 314, 314])
    shown = {row["name"]: row["text"] for row in told["nucleus"]["rows"]}
    assert (shown["class"], shown["prob"], shown["compartment"]) == (nucleus["class"], "0.900", "tumor")
    assert "geometry" not in shown
    assert (told["region"]["title"], told["region"]["class"]) == ("Region 1", "tumor")
    assert told["region"]["bounds_um"] == [200, 200, 500, 500]
    density = next(row for row in told["region"]["rows"] if row["name"] == "til_density_per_mm2")
    assert density["interval"]


def test_a_click_beside_a_nucleus_counts_by_what_the_screen_can_show(get):
    assert get("slides/0/pick?x=316&y=310&mpp=0.25").json()["nucleus"] is None
    assert get("slides/0/pick?x=316&y=310&mpp=1").json()["nucleus"]["title"].startswith("Nucleus")


def test_a_click_on_glass_finds_nothing(get):
    assert get("slides/0/pick?x=20&y=20&mpp=1").json() == {"nucleus": None, "region": None}
    assert get("slides/0/pick?x=-900&y=1e9&mpp=1").json() == {"nucleus": None, "region": None}
    get("slides/0/pick?x=1&y=1&mpp=0", 400)


def test_a_region_is_found_by_its_id(get):
    assert get("slides/0/regions/3?mpp=1").json()["bounds_um"] == [650, 300, 800, 450]
    assert get("slides/0/regions/99?mpp=1", 404).text == "region 99"


def test_a_slide_may_have_any_name(results_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(results_folder, run)
    (run / "slides" / "B").rename(run / "slides" / STRANGE)
    scores = read_table(run / "scores.parquet")
    write_table(run / "scores.parquet", scores.assign(slide_id=scores["slide_id"].replace("B", STRANGE)))
    with connect(run) as client:
        assert client.get(f"/{TOKEN}/slides").json()["slides"][1]["slide_id"] == STRANGE
        assert client.get(f"/{TOKEN}/slides/1").json()["slide_id"] == STRANGE
        assert client.get(f"/{TOKEN}/slides/1/regions/0/0_0.png").status_code == 200


def test_a_damaged_result_is_told_in_words(results_folder, tmp_path):
    shutil.copytree(results_folder, tmp_path / "run")
    (tmp_path / "run" / "slides" / "A" / "nuclei.parquet").write_bytes(b"torn")
    with connect(tmp_path / "run") as client:
        answer = client.get(f"/{TOKEN}/slides/0")
        assert answer.status_code == 500
        assert "nuclei.parquet cannot be read: run this slide again" in answer.text


def test_a_run_without_nuclei_or_regions_can_be_looked_at(results_folder, tmp_path):
    shutil.copytree(results_folder, tmp_path / "run")
    slide = tmp_path / "run" / "slides" / "A"
    for name, schema in (("nuclei", nuclei_schema(BREAST)), ("regions", regions_schema(BREAST))):
        write_geoparquet(slide / f"{name}.parquet", schema.empty(), schema=schema)
        assert len(read_geoparquet(slide / f"{name}.parquet")) == 0
    with connect(tmp_path / "run") as client:
        assert client.get(f"/{TOKEN}/slides/0").json()["largest"]["total"] == 0
        assert client.get(f"/{TOKEN}/slides/0/outlines?x0=0&y0=0&x1=512&y1=512").json()["count"] == 0
        assert client.get(f"/{TOKEN}/slides/0/pick?x=300&y=300&mpp=1").json() == {"nucleus": None, "region": None}
        assert client.get(f"/{TOKEN}/slides/0/density/0/0_0.png").status_code == 200
        assert client.get(f"/{TOKEN}/slides/0/nuclei/0/0_0.png").status_code == 200
