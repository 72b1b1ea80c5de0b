import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pathopan.errors import ConfigError
from pathopan.slide import ArraySlide
from pathopan.tiler import tissue_from_geojson, tissue_from_image

INFO = ArraySlide(np.zeros((80, 160, 3), np.uint8), mpp=0.5, slide_id="slide").info  # 10 x 20 pixels at 4 um/px


def polygon(x0, y0, x1, y1):
    return {"type": "Polygon", "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]}


def feature(geometry, name=None):
    properties = {"classification": {"name": name}} if name else {}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write(tmp_path, stored):
    path = tmp_path / "drawn.geojson"
    path.write_text(stored if isinstance(stored, str) else json.dumps(stored))
    return path


SQUARE = polygon(16, 8, 48, 24)


@pytest.mark.parametrize(
    "stored",
    [
        {"type": "FeatureCollection", "features": [feature(SQUARE)]},
        [feature(SQUARE)],
        feature(SQUARE),
        SQUARE,
        {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"]]},
        [feature(SQUARE), feature({"type": "Point", "coordinates": [1, 1]}), feature(None)],
    ],
)
def test_polygons_are_read_from_every_shape_of_geojson(tmp_path, stored):
    tissue = tissue_from_geojson(write(tmp_path, stored), INFO, 4.0)
    expected = np.zeros((10, 20), bool)
    expected[1:3, 2:6] = True
    np.testing.assert_array_equal(tissue.mask, expected)
    assert tissue.area_mm2 == pytest.approx(8 * 16 / 1e6)


def test_what_is_classified_ignore_is_cut_out(tmp_path):
    stored = [feature(polygon(0, 0, 160, 80), "Tumor"), feature(polygon(0, 0, 80, 80), "Ignore*")]
    mask = tissue_from_geojson(write(tmp_path, stored), INFO, 4.0).mask
    assert not mask[:, :10].any()
    assert mask[:, 10:].all()


def test_a_polygon_that_crosses_itself_is_repaired(tmp_path):
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [80, 80], [80, 0], [0, 80], [0, 0]]]}
    assert tissue_from_geojson(write(tmp_path, bow_tie), INFO, 4.0).mask.any()


def test_a_polygon_below_a_pixel_is_empty_with_a_reason(tmp_path):
    tissue = tissue_from_geojson(write(tmp_path, polygon(1, 1, 2, 2)), INFO, 4.0)
    assert tissue.reason == "the polygons are smaller than a pixel of the mask"


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("{", "cannot be read as GeoJSON"),
        ("3", "not GeoJSON"),
        ([1, 2], "not GeoJSON"),
        ({"type": "FeatureCollection", "features": []}, "no polygon inside; draw the tissue in QuPath"),
        ({"type": "Point", "coordinates": [1, 1]}, "no polygon inside"),
        ({"type": "Star", "coordinates": [1, 1]}, "a geometry cannot be read"),
        ({"type": "Polygon", "coordinates": [[["a", 1]]]}, "a geometry cannot be read"),
        (polygon(1000, 1000, 2000, 2000), r"lie at \[1000, 1000, 2000, 2000\], outside the slide of 160 x 80"),
    ],
)
def test_unusable_polygons_are_refused_with_the_reason(tmp_path, stored, message):
    with pytest.raises(ConfigError, match=message):
        tissue_from_geojson(write(tmp_path, stored), INFO, 4.0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.geojson: cannot be read"):
        tissue_from_geojson(tmp_path / "none.geojson", INFO, 4.0)


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(20, 10), (160, 80), (41, 20)])
def test_mask_images_of_any_size_are_scaled(tmp_path, mode, size):
    image = Image.new("L", size, 0)
    image.paste(255, (size[0] // 2, 0, size[0], size[1]))
    image.convert(mode).save(tmp_path / "mask.png")
    mask = tissue_from_image(tmp_path / "mask.png", INFO, 4.0).mask
    assert mask.shape == (10, 20)
    assert not mask[:, :9].any()
    assert mask[:, 11:].all()


def test_a_black_mask_is_empty_with_a_reason(tmp_path):
    Image.new("L", (20, 10)).save(tmp_path / "mask.png")
    assert tissue_from_image(tmp_path / "mask.png", INFO, 4.0).reason == "the mask image is all black"


def test_a_mask_of_other_proportions_is_refused(tmp_path):
    Image.new("L", (20, 20)).save(tmp_path / "mask.png")
    with pytest.raises(ConfigError, match=r"20 x 20 pixels do not have the proportions of the slide \(160 x 80\)"):
        tissue_from_image(tmp_path / "mask.png", INFO, 4.0)


def test_a_broken_mask_is_refused(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"broken")
    with pytest.raises(ConfigError, match="cannot be read as a mask image"):
        tissue_from_image(tmp_path / "mask.png", INFO, 4.0)


@pytest.mark.data
def test_a_real_qupath_export_is_read(shared_data):
    info = ArraySlide(np.zeros((1, 1, 3), np.uint8), mpp=0.5, slide_id="export").info
    info = replace(info, size_l0=(200_000, 200_000))
    tissue = tissue_from_geojson(shared_data / "qupath_geojson" / "qupath05.geojson", info, 16.0)
    assert tissue.area_mm2 > 0
