"""What a notebook gives by mistake is refused in words."""

import numpy as np
import pytest
from oracle import tiny_bundle, tiny_net

from pathopan import api
from pathopan.config import load_config
from pathopan.errors import ConfigError, ManifestError, ShapeMismatch
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import save_bundle
from pathopan.segment import Segmenter
from pathopan.stages import Engine, Job


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


def test_mirror_images_are_averaged_where_they_are_asked_for(tmp_path):
    description = tiny_bundle(step=64, halo=80)
    save_bundle(tmp_path / "tiny", description, tiny_net(description))
    tile = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)

    def uneven(runtime):
        there, back = (runtime.run(np.ascontiguousarray(image[None]))[0].region for image in (tile, tile[:, ::-1]))
        return (there != back[:, ::-1]).mean()

    configs = [load_config(overrides=["inference.runtime=torch", f"inference.mirrored={m}"]) for m in ("false", "true")]
    engines = [Engine(tmp_path / "tiny", config, device="cpu") for config in configs]
    assert uneven(engines[0].runtime) > 0.01
    assert uneven(engines[1].runtime) < 0.001
    assert uneven(Segmenter(tmp_path / "tiny", device="cpu", mirrored=True).runtime) < 0.001
    slide = tmp_path / "slide.tif"
    slide.write_bytes(b"pixels")
    pairs = zip(configs, engines, strict=True)
    prints = [Job(SlideEntry("a", slide), config, engine, tmp_path).prints for config, engine in pairs]
    assert prints[0]["tile"] == prints[1]["tile"]
    assert prints[0]["predict"] != prints[1]["predict"]


def test_mirror_images_are_not_made_in_8_bits():
    with pytest.raises(ConfigError, match="mirrored is not made in int8"):
        load_config(overrides=["inference.mirrored=true", "inference.precision=int8"])
    with pytest.raises(ConfigError, match="mirrored is not made in int8"):
        Segmenter(precision="int8", mirrored=True)


def test_one_path_is_one_slide(tmp_path):
    with pytest.raises(ManifestError, match=r"nothing.svs: no such file"):
        api.run(str(tmp_path / "nothing.svs"), tmp_path / "out")
