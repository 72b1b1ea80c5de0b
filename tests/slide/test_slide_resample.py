import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pathopan.geometry import Window
from pathopan.slide import ArraySlide
from pathopan.slide.resample import level_downsample, pick_level, resample, source_window, white_canvas

PYRAMID = [(1.0, 1.0), (4.0, 4.0), (16.0, 16.0)]


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("whole", "level", "expected"),
    [
        ((4443, 3567), (2221, 1783), (2.0, 2.0)),  # cut
        ((1001, 999), (251, 250), (4.0, 4.0)),  # rounded up
        ((1000, 500), (1000, 500), (1.0, 1.0)),
        ((1000, 500), (400, 200), (2.5, 2.5)),
        ((1000, 1000), (500, 250), (2.0, 4.0)),
    ],
)
def test_downsamples_are_whole_where_a_whole_factor_explains_the_sizes(whole, level, expected):
    assert level_downsample(whole, level) == expected


@pytest.mark.parametrize(
    ("scale", "level"),
    [(0.5, 0), (1.0, 0), (3.9, 0), (3.97, 1), (4.0, 1), (15.0, 1), (16.0, 2), (1000.0, 2)],
)
def test_a_level_is_never_more_than_a_hundredth_coarser_than_asked(scale, level):
    assert pick_level(PYRAMID, (scale, scale)) == level


def test_with_oblong_pixels_both_axes_must_be_fine_enough():
    assert pick_level(PYRAMID, (4.0, 3.0)) == 0


def test_at_the_level_s_own_mpp_nothing_is_read_twice_or_changed():
    assert source_window(Window(3, 5, 10, 10), (1.0, 1.0)) == Window(3, 5, 10, 10)
    image = picture(20, 20)
    again = resample(image, origin=(2, 3), step=(1, 1), size=(5, 6))
    np.testing.assert_array_equal(again, image[3:9, 2:7])


@pytest.mark.parametrize("step", [(2, 2), (4, 4), (3, 1)])
def test_pixels_of_whole_pixels_are_their_mean(step):
    image = picture(40, 60)
    found = resample(image, origin=(5, 3), step=step, size=(8, 6))
    blocks = image[3 : 3 + 6 * step[1], 5 : 5 + 8 * step[0]].reshape(6, step[1], 8, step[0], 3)
    np.testing.assert_allclose(found, blocks.mean(axis=(1, 3)), atol=0.51)


@given(st.integers(-30, 30), st.integers(1, 40), st.floats(0.6, 9))
def test_the_source_holds_the_window_and_the_reach_of_the_filter(start, size, step):
    assume(abs(step - 1) > 1e-3)  # nearer to 1, pixels are copied and no filter reaches out
    source = source_window(Window(start, 0, size, 1), (step, 1.0))
    assert source.x <= start * step - 2 * max(1, step)
    assert source.x1 >= (start + size) * step + 2 * max(1, step)


@given(st.floats(-0.5, 0.5), st.floats(0.7, 6.0))
def test_a_ramp_stays_the_same_ramp_at_any_shift_and_step(shift, step):
    ramp = np.repeat(np.arange(0, 200, 0.5)[None, :, None], 3, axis=2).astype(np.float32)
    image = np.repeat(np.rint(ramp).astype(np.uint8), 40, axis=0)
    origin = 60 + shift
    size = int(250 / step)
    found = resample(image, origin=(origin, 20.0), step=(step, 1.0), size=(size, 1))[0, :, 0].astype(float)
    expected = (origin + (np.arange(size) + 0.5) * step - 0.5) * 0.5
    assert np.abs(found - expected).max() <= 1.0


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.8, 1.002, 1.7, 2.0, 3.3]))
def test_a_window_shows_the_same_pixels_whatever_is_read_around_it(x, y, step):
    slide = ArraySlide(picture(160, 200), mpp=1.0, slide_id="noise")
    whole = slide.read(Window(0, 0, 60, 60), step)
    part = slide.read(Window(x, y, 20, 20), step)
    np.testing.assert_allclose(part.astype(int), whole[y : y + 20, x : x + 20].astype(int), atol=1)


def test_fine_stripes_average_out_and_do_not_alias():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    inside = ArraySlide(stripes, mpp=1.0, slide_id="stripes").read(Window(2, 2, 10, 10), 4.0)
    assert np.abs(inside.astype(int) - 128).max() <= 3


@given(st.sampled_from([1.0, 1.5, 2.0, 3.0]), st.floats(0.5, 1.0), st.floats(0.5, 1.0))
def test_a_mark_lands_where_geometry_says(mpp, mpp_x, mpp_y):
    y, x = np.mgrid[:240, :240]
    dark = 200 * np.exp(-((x + 0.5 - 131.3) ** 2 + (y + 0.5 - 97.8) ** 2) / (2 * 8.0**2))
    image = np.repeat((255 - np.rint(dark)).astype(np.uint8)[..., None], 3, axis=2)
    scale = (mpp / mpp_x, mpp / mpp_y)
    steps = {"origin": (0.0, 0.0), "step": scale, "size": (int(240 / scale[0]), int(240 / scale[1]))}
    weight = 255.0 - resample(image, **steps)[..., 0]
    rows, columns = np.indices(weight.shape)
    assert ((columns + 0.5) * weight).sum() / weight.sum() * scale[0] == pytest.approx(131.3, abs=0.25)
    assert ((rows + 0.5) * weight).sum() / weight.sum() * scale[1] == pytest.approx(97.8, abs=0.25)


def test_an_empty_window_gives_an_empty_picture():
    assert ArraySlide(picture(5, 5), mpp=1.0, slide_id="a").read(Window(0, 0, 0, 4), 1.0).shape == (4, 0, 3)


def test_canvases_are_white_and_know_their_share_of_the_image():
    canvas, inside = white_canvas(Window(-1, -1, 3, 3), Window(0, 0, 10, 10))
    assert inside == Window(0, 0, 2, 2)
    assert (canvas == 255).all()
