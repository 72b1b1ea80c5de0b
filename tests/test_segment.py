"""What a notebook gives by mistake is refused in words."""

import numpy as np
import pytest
from oracle import tiny_bundle, tiny_net

from pathopan import api
from pathopan.errors import ManifestError, ShapeMismatch
from pathopan.segment import Segmenter


@pytest.fixture(scope="module")
def segmenter():
    description = tiny_bundle(step=128, halo=64)
    return Segmenter.of(tiny_net(description), description, device="cpu")


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((64, 64), np.uint8), r"\(64, 64\) uint8"),
        (np.zeros((64, 64, 3)), r"\(64, 64, 3\) float64"),
        (np.zeros((64, 64, 4), np.uint8), r"\(64, 64, 4\)"),
        ("slide.png", "found str; read the file first"),
    ],
)
def test_what_is_no_picture_is_refused_as_it_was_given(segmenter, image, found):
    with pytest.raises(ShapeMismatch, match=found):
        segmenter(image, mpp=0.5)


def test_one_path_is_one_slide(tmp_path):
    with pytest.raises(ManifestError, match=r"nothing.svs: no such file"):
        api.run(str(tmp_path / "nothing.svs"), tmp_path / "out")
