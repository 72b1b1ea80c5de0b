"""The same picture in several formats must read the same, and marks must land where geometry says."""

import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from pathopan.datasets.synthetic import write_pyramid
from pathopan.errors import ConfigError, MissingMpp, ShapeMismatch, UnreadableSlide, UpsamplingRefused
from pathopan.geometry import Window
from pathopan.slide import ArraySlide, check_mpp, open_slide, read_overview
from pathopan.slide import openslide as openslide_reader
from pathopan.slide.openslide import OpenSlideSlide, header_mpp
from pathopan.slide.tiff import TiffSlide

MARK_L0 = (701.3, 422.8)
MPP = 0.25


def marked_picture(width=1203, height=901):
    """White with one soft dark mark: its center is known to a fraction of a pixel."""
    y, x = np.mgrid[:height, :width]
    dark = 220 * np.exp(-((x + 0.5 - MARK_L0[0]) ** 2 + (y + 0.5 - MARK_L0[1]) ** 2) / (2 * 24.0**2))
    return np.repeat((255 - np.rint(dark)).astype(np.uint8)[..., None], 3, axis=2)


def mark_l0(slide, mpp, window=None):
    window = window or Window(0, 0, *slide.info.size_px(mpp))
    weight = 255.0 - slide.read(window, mpp)[..., 0]
    weight[weight < 3] = 0
    rows, columns = np.indices(weight.shape)
    scale = slide.info.scale_l0(mpp)
    x = ((columns + 0.5 + window.x) * weight).sum() / weight.sum() * scale[0]
    y = ((rows + 0.5 + window.y) * weight).sum() / weight.sum() * scale[1]
    return x, y


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "pyramid.tif"
    write_pyramid(path, marked_picture(), MPP)
    return path


@pytest.fixture(scope="module")
def ome(tmp_path_factory):
    """An OME-TIFF with its levels in sub-IFDs, which OpenSlide does not see, and oblong pixels."""
    path = tmp_path_factory.mktemp("slides") / "marked.ome.tif"
    pixels = marked_picture()
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 250.0, "PhysicalSizeYUnit": "nm"}
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate"}
        writer.write(pixels, subifds=2, metadata=metadata, **options)
        for factor in (2, 4):
            level = Image.fromarray(pixels).reduce(factor)
            level = np.asarray(level)[: pixels.shape[0] // factor, : pixels.shape[1] // factor]
            writer.write(level, subfiletype=1, **options)
    return path


@pytest.mark.parametrize("mpp", [0.25, 0.2501, 0.3, 0.5, 0.51, 1.0, 1.37, 2.0, 4.0])
def test_openslide_puts_a_mark_where_geometry_says(pyramid, mpp):
    with open_slide(pyramid) as slide:
        assert isinstance(slide, OpenSlideSlide)
        assert slide.info.downsamples == (1.0, 2.0, 4.0)
        assert mark_l0(slide, mpp) == pytest.approx(MARK_L0, abs=max(0.15, 0.02 * slide.info.scale_l0(mpp)[0]))


@pytest.mark.parametrize("mpp", [0.25, 0.3, 0.5, 1.0, 2.3])
def test_tifffile_puts_a_mark_where_geometry_says(ome, mpp):
    with open_slide(ome) as slide:
        assert isinstance(slide, TiffSlide)
        assert slide.info.downsamples == (1.0, 2.0, 4.0)
        assert slide.info.mpp_l0 == (0.25, 0.25)
        assert slide.info.slide_id == "marked"
        assert mark_l0(slide, mpp) == pytest.approx(MARK_L0, abs=0.15)


@pytest.mark.parametrize("bounds", [(200, 120, 900, 700), (201, 123, 900, 700)])
@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.7, 1.0, 1.3])
def test_the_scanned_bounds_start_at_the_origin(pyramid, bounds, mpp, monkeypatch):
    monkeypatch.setattr(openslide_reader, "_bounds", lambda *_: bounds)
    with open_slide(pyramid) as slide:
        assert slide.info.size_l0 == (900, 700)
        expected = (MARK_L0[0] - bounds[0], MARK_L0[1] - bounds[1])
        assert mark_l0(slide, mpp) == pytest.approx(expected, abs=0.25)


def test_bounds_come_from_openslide_only_when_all_four_are_there():
    properties = {f"openslide.bounds-{name}": value for name, value in zip("xy", "12", strict=True)}
    assert openslide_reader._bounds(properties, (10, 20)) == (0, 0, 10, 20)
    properties |= {"openslide.bounds-width": "5", "openslide.bounds-height": "6"}
    assert openslide_reader._bounds(properties, (10, 20)) == (1, 2, 5, 6)


def test_oblong_pixels_are_read_square(tmp_path):
    path = tmp_path / "oblong.tif"
    tifffile.imwrite(
        path, marked_picture(), tile=(128, 128), photometric="rgb", resolution=(40000, 20000), resolutionunit=3
    )
    with open_slide(path) as slide:
        assert slide.info.mpp_l0 == pytest.approx((0.25, 0.5))
        assert slide.info.size_px(0.5) == (602, 901)
        assert any("not square" in text for text in slide.info.warnings)
        assert mark_l0(slide, 0.5) == pytest.approx(MARK_L0, abs=0.15)


def test_all_readers_see_the_same_pixels(pyramid, ome, tmp_path):
    Image.fromarray(marked_picture()).save(tmp_path / "plain.png")
    window = Window(300, 150, 128, 128)
    with (
        open_slide(pyramid) as first,
        open_slide(ome) as second,
        open_slide(tmp_path / "plain.png", slide_mpp=MPP) as third,
        ArraySlide(marked_picture(), mpp=MPP, slide_id="array") as fourth,
    ):
        pictures = [slide.read(window, 0.4).astype(int) for slide in (first, second, third, fourth)]
    for other in pictures[1:]:
        np.testing.assert_allclose(other, pictures[0], atol=1)


@pytest.mark.parametrize("name", ["pyramid", "ome"])
def test_outside_the_slide_is_white(name, request):
    with open_slide(request.getfixturevalue(name)) as slide:
        assert (slide.read(Window(-100, -100, 80, 80), 0.25) == 255).all()
        assert (slide.read(Window(5000, 0, 16, 16), 1.0) == 255).all()


def test_a_window_over_the_border_is_padded(tmp_path):
    write_pyramid(tmp_path / "grey.tif", np.full((300, 300, 3), 90, np.uint8), 0.5)
    with open_slide(tmp_path / "grey.tif") as slide:
        read = slide.read(Window(-2, 298, 4, 4), 0.5)
    assert read[..., 0].tolist() == [[255, 255, 90, 90]] * 2 + [[255] * 4] * 2


def test_transparent_pixels_are_white(tmp_path):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, 32:, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    tifffile.imwrite(tmp_path / "half.ome.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("half.png", "half.ome.tif"):
        with open_slide(tmp_path / name, slide_mpp=0.5) as slide:
            assert slide.read(Window(30, 0, 4, 1), 0.5)[0, :, 0].tolist() == [255, 255, 0, 0]


def test_what_openslide_leaves_transparent_is_white():
    read = Image.fromarray(np.array([[[10, 20, 30, 255], [0, 0, 0, 0]]], np.uint8))
    assert openslide_reader._on_white(read).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_planar_tiffs_and_jpeg2000_are_read(tmp_path):
    pixels = marked_picture(256, 256)
    pixels[50:60, 50:60] = (200, 10, 90)
    tifffile.imwrite(
        tmp_path / "planar.ome.tif", np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate"
    )
    tifffile.imwrite(
        tmp_path / "j2k.tif",
        pixels,
        tile=(128, 128),
        photometric="rgb",
        compression="jpeg2000",
        resolution=(20000, 20000),
        resolutionunit=3,
    )
    for name, mpp in (("planar.ome.tif", 0.5), ("j2k.tif", None)):
        with open_slide(tmp_path / name, slide_mpp=mpp) as slide:
            np.testing.assert_array_equal(slide.read(Window(40, 40, 40, 40), 0.5), pixels[40:80, 40:80])


def test_an_overview_in_blocks_equals_one_in_one_piece(pyramid, monkeypatch):
    with open_slide(pyramid) as slide:
        whole = read_overview(slide, 0.7)
        monkeypatch.setattr("pathopan.slide.base._BLOCK_PIXELS", 9_000)
        blocks = read_overview(slide, 0.7)
    assert whole.shape == (*slide.info.size_px(0.7)[::-1], 3)
    np.testing.assert_allclose(blocks.astype(int), whole.astype(int), atol=2)


# What is refused, and how it is said.


def test_a_slide_without_mpp_names_both_remedies(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png", dpi=(300, 300))
    with pytest.raises(MissingMpp, match=r"--slide-mpp 0\.25, or fill the manifest column mpp"):
        open_slide(tmp_path / "plain.png")


def test_a_resolution_for_printing_is_no_mpp(tmp_path):
    path = tmp_path / "printed.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", resolution=(72, 72), resolutionunit=2)
    with pytest.raises(MissingMpp, match="printed"):
        open_slide(path)
    assert header_mpp({"openslide.vendor": "generic-tiff", "openslide.mpp-x": "353", "openslide.mpp-y": "353"}) is None
    assert header_mpp({"openslide.vendor": "dicom", "openslide.mpp-x": "29", "openslide.mpp-y": "29"}) == (29, 29)


@pytest.mark.parametrize("value", [0, -0.5, float("nan"), float("inf")])
def test_an_impossible_mpp_is_refused(pyramid, value):
    with pytest.raises(ConfigError, match="must be a positive number of micrometres per pixel"):
        open_slide(pyramid, slide_mpp=value)


def test_an_mpp_given_by_hand_wins_and_is_told(pyramid):
    with open_slide(pyramid, slide_mpp=0.5, slide_id="mine") as slide:
        assert (slide.info.mpp_l0, slide.info.slide_id) == ((0.5, 0.5), "mine")
        assert slide.info.warnings == ("mpp 0.5 was given and is used, but the file says 0.25 x 0.25 um/px",)


@pytest.mark.parametrize("mpp", [0.05, 2.0])
def test_an_implausible_mpp_is_told(mpp):
    assert "check it" in ArraySlide(np.zeros((2, 2, 3), np.uint8), mpp=mpp, slide_id="odd").info.warnings[0]


def test_slides_much_coarser_than_the_network_are_refused():
    def info(mpp):
        return ArraySlide(np.zeros((2, 2, 3), np.uint8), mpp=mpp, slide_id="coarse").info

    check_mpp(info(0.75), 0.5)
    with pytest.raises(UpsamplingRefused, match=r"0\.76 um/px and the network needs 0\.5 um/px.*cannot be analysed"):
        check_mpp(info(0.76), 0.5)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "empty.svs", "the file is empty"),
        (b"not a slide at all", "text.svs", "unknown format"),
        (
            b"II*\0" + b"\xff" * 40,
            "broken.tif",
            "ends at byte 44, before its directory at byte 4,294,967,295: it was cut",
        ),
        (b"II*\0\x08\0\0\0" + b"\0" * 40, "hollow.tif", "nothing readable"),
        (b"\x89PNG\r\n\x1a\n broken", "broken.png", "cannot be read as an image"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(tmp_path, content, name, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableSlide, match=message):
        open_slide(tmp_path / name, slide_mpp=0.5)


@pytest.mark.parametrize("bigtiff", [False, True], ids=["TIFF", "BigTIFF"])
def test_a_file_whose_copy_stopped_says_so(tmp_path, bigtiff):
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "whole.svs", bigtiff=bigtiff) as out:
        out.write(pixels, photometric="rgb", tile=(256, 256))
    content = bytearray((tmp_path / "whole.svs").read_bytes())
    place, form = (8, "<Q") if bigtiff else (4, "<I")
    directory = content[struct.unpack_from(form, content, place)[0] :]
    struct.pack_into(form, content, place, len(content))  # written last, as scanners do
    (tmp_path / "cut.svs").write_bytes(content)
    with pytest.raises(
        UnreadableSlide, match=r"cut\.svs: ends at byte [\d,]+, before its directory at byte [\d,]+: it"
    ):
        open_slide(tmp_path / "cut.svs", slide_mpp=0.5)
    (tmp_path / "cut.svs").write_bytes(content + directory)
    with open_slide(tmp_path / "cut.svs", slide_mpp=0.5) as slide:
        assert slide.info.size_l0 == (512, 512)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(UnreadableSlide, match="no such file"):
        open_slide(tmp_path / "none.svs")
    with pytest.raises(UnreadableSlide, match="is a folder without a DICOM slide"):
        open_slide(tmp_path)


def test_a_file_that_may_not_be_read_is_refused(pyramid, monkeypatch):
    def deny(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", deny)
    with pytest.raises(UnreadableSlide, match="Permission denied; check its permissions"):
        open_slide(pyramid)


def test_a_truncated_png_is_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableSlide, match="cannot be read as an image"):
        open_slide(tmp_path / "a.png", slide_mpp=0.5)


def test_grey_and_deep_images_are_refused(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "grey.png")
    with pytest.raises(UnreadableSlide, match="mode L is not color"):
        open_slide(tmp_path / "grey.png", slide_mpp=0.5)
    tifffile.imwrite(tmp_path / "deep.ome.tif", np.zeros((4, 64, 64), np.uint16), metadata={"axes": "CYX"})
    with pytest.raises(UnreadableSlide, match=r"no 8-bit color image inside .*uint16"):
        open_slide(tmp_path / "deep.ome.tif", slide_mpp=0.5)


@pytest.mark.parametrize("name", ["pyramid", "ome"])
def test_damage_inside_a_file_is_told_when_it_is_read(name, request, tmp_path):
    source = request.getfixturevalue(name)
    content = bytearray(source.read_bytes())
    with tifffile.TiffFile(source) as file:
        page = file.pages[0]
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            content[offset : offset + count] = b"\xaa" * count
    damaged = tmp_path / source.name
    damaged.write_bytes(content)
    with open_slide(damaged) as slide, pytest.raises(UnreadableSlide, match=r"cannot be read at .*Copy the file again"):
        slide.read(Window(0, 0, 300, 300), 0.25)


def test_an_array_slide_needs_color_bytes():
    with pytest.raises(ShapeMismatch, match=r"found \(4, 4\) float64"):
        ArraySlide(np.zeros((4, 4)), mpp=0.5, slide_id="flat")


# Real slides.


@pytest.mark.data
def test_real_slides_open_with_their_mpp(shared_data):
    expected = {
        "CMU-1-Small-Region.svs": (0.499, "aperio", (2220, 2967)),
        "OS-1-detail.ome.tif": (0.2271, "ome-tiff", (1101, 1101)),
        "instanseg_HE_example.tif": (0.5, "ome-tiff", (1380, 1484)),
        "test3-TRITC-2-560.ndpi": (0.2282, "hamamatsu", (3968, 4864)),
        "multiframe_camelyon_challenge_image.dcm": (28.97, "dicom", (1152, 700)),
    }
    for name, (mpp, vendor, size) in expected.items():
        with open_slide(shared_data / "slides" / name) as slide:
            assert slide.info.mpp_l0[0] == pytest.approx(mpp, rel=1e-3)
            assert (slide.info.vendor, slide.info.size_l0) == (vendor, size)
            assert slide.read(Window(10, 10, 64, 32), 1.0).shape == (32, 64, 3)


@pytest.mark.data
def test_a_real_slide_without_mpp_and_one_too_coarse_are_refused(shared_data):
    with pytest.raises(MissingMpp, match="tcga-cr-7395"):
        open_slide(shared_data / "slides" / "tcga-cr-7395-01a-01-ts1.svs")
    coarse = shared_data / "slides" / "multiframe_camelyon_challenge_image.dcm"
    with open_slide(coarse) as slide, pytest.raises(UpsamplingRefused, match=r"28\.97 um/px"):
        check_mpp(slide.info, 0.5)


@pytest.mark.data
def test_a_dicom_folder_stands_for_its_only_slide(shared_data):
    with open_slide(shared_data / "slides" / "highdicom") as slide:
        assert (slide.info.vendor, slide.info.slide_id) == ("dicom", "highdicom")


@pytest.mark.data
def test_levels_of_a_real_slide_lie_on_each_other(shared_data):
    """Read the same window from level 0 and from level 1 of a cut pyramid: no shift between them."""
    with open_slide(shared_data / "slides" / "tcga-cr-7395-01a-01-ts1.svs", slide_mpp=0.25) as slide:
        window = Window(400, 500, 256, 256)
        fine = slide.read(window, 0.495).astype(float)
        coarse = slide.read(window, 0.4951).astype(float)
        assert slide.info.downsamples == (1.0, 2.0)
    difference = np.abs(fine - coarse).mean()
    shifted = np.abs(fine[:, 1:] - coarse[:, :-1]).mean()
    assert difference < 0.6 * shifted


def test_a_reader_that_divides_by_a_size_of_zero_refuses_the_file(synthetic_slide, monkeypatch):
    def broken(*_args, **_named):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("pathopan.slide.open.OpenSlideSlide", broken)
    with pytest.raises(UnreadableSlide, match="a level without pixels"):
        open_slide(synthetic_slide.path)


@pytest.fixture(scope="module")
def jpeg_pyramid(tmp_path_factory):
    """Two levels of JPEG tiles, as scanners write them, and a level of another compression; noise shows every pixel."""
    path = tmp_path_factory.mktemp("slides") / "jpeg.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    with tifffile.TiffWriter(path) as writer:
        for factor, compression in ((1, "jpeg"), (2, "jpeg"), (4, "deflate")):
            level = np.asarray(Image.fromarray(pixels).resize((1210 // factor, 900 // factor)))
            options = {"photometric": "ycbcr" if compression == "jpeg" else "rgb", "metadata": None}
            writer.write(
                level,
                tile=(128, 256),
                compression=compression,
                resolution=(4e4 / factor, 4e4 / factor),
                resolutionunit="CENTIMETER",
                subfiletype=int(factor > 1),
                **options,
            )
    return path


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize(
    "at", [(0, 0, 1, 1), (127, 255, 2, 2), (100, 60, 333, 301), (0, 0, 605, 450), (560, 400, 45, 50)]
)
def test_jpeg_tiles_are_what_openslide_reads(jpeg_pyramid, level, at):
    with open_slide(jpeg_pyramid) as slide:
        assert isinstance(slide, OpenSlideSlide)
        window = Window(*at)
        found = slide._tiles.read(level, window)
        np.testing.assert_array_equal(found, slide._read_blended(level, window))
        assert found.std() > 20


def test_only_levels_of_jpeg_tiles_are_decoded_here(jpeg_pyramid, pyramid):
    with open_slide(jpeg_pyramid) as slide, open_slide(pyramid) as deflated:
        assert slide._tiles.read(2, Window(0, 0, 9, 9)) is None
        assert deflated._tiles.read(0, Window(0, 0, 9, 9)) is None


def test_a_slide_of_jpeg_tiles_is_read_without_openslide(jpeg_pyramid, monkeypatch):
    with open_slide(jpeg_pyramid) as slide:
        windows = [(Window(-20, -30, 500, 400), 0.25), (Window(9, 5, 700, 500), 0.3), (Window(250, 200, 99, 99), 0.5)]
        with monkeypatch.context() as patch:
            patch.setattr(slide, "_tiles", None)
            expected = [slide.read(window, mpp) for window, mpp in windows]
        monkeypatch.setattr(slide, "_handle", SimpleNamespace(**{n: getattr(slide._handle, n) for n in _SHAPE_OF}))
        for (window, mpp), pixels in zip(windows, expected, strict=True):
            np.testing.assert_array_equal(slide.read(window, mpp), pixels)
        slide._handle.close = lambda: None


_SHAPE_OF = ("level_downsamples", "level_dimensions")


@pytest.mark.parametrize("harm", ["cut off", "overwritten", "missing"])
def test_a_tile_that_cannot_be_decoded_is_left_to_openslide(jpeg_pyramid, tmp_path, harm):
    path = Path(shutil.copy(jpeg_pyramid, tmp_path))
    with tifffile.TiffFile(path, mode="r+b") as file:
        offset, counts = file.pages[0].dataoffsets[0], list(file.pages[0].databytecounts)
        if harm == "overwritten":
            file.filehandle.seek(offset)
            file.filehandle.write(bytes(counts[0]))
        else:
            counts[0] = 0 if harm == "missing" else path.stat().st_size
            file.pages[0].tags["TileByteCounts"].overwrite(counts)
    with open_slide(path) as slide:
        assert slide._tiles.read(0, Window(0, 0, 9, 9)) is None
        assert slide._tiles.read(0, Window(256, 128, 9, 9)) is not None
