import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from oracle import TINY, tiny_net
from training_samples import RECIPE, sample
from typer.testing import CliRunner

from pathopan.attempt import Attempts
from pathopan.batch import RunSettings
from pathopan.classes import BREAST
from pathopan.cli_training import app
from pathopan.config import load_config
from pathopan.errors import ChecksumMismatch, ConfigError, IncompatibleBundle, RuntimeUnavailable
from pathopan.inference.runtime import open_runtime
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import load_bundle, read_bundle, save_bundle, write_description
from pathopan.network.quantised import Quantised, find_quantised
from pathopan.segment import Segmenter
from pathopan.stages import Engine, Job, describe_bundle
from pathopan.training import quantise
from pathopan.training.train import describe

SAMPLES = [sample(number, side=160) for number in range(4)]
REPORTED = replace(RECIPE, halo_px=96, fold_sources=["A"], hold_out=[SAMPLES[3].group])
IMAGE = np.random.default_rng(0).integers(60, 256, (160, 160, 3), dtype=np.uint8)


def write_tiny(folder, recipe=REPORTED):
    bundle = replace(describe(recipe, BREAST), arguments=dict(TINY), card={"recipe": recipe.to_dict()})
    save_bundle(folder, bundle, tiny_net(bundle))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_tiny(folder)
    if find_spec("nncf") is None:
        pytest.skip("NNCF is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantise, "read_samples", lambda _data, _recipe: SAMPLES)
        quantise.quantise_bundle(folder, folder)
    return folder


@pytest.fixture
def bundle(made, tmp_path):
    return shutil.copytree(made, tmp_path / "tiny")


def test_the_card_tells_what_8_bits_cost_on_patients_that_were_held_out(bundle):
    told = read_bundle(bundle).card["int8"]
    assert (told["images"], told["measured_on"], told["tool"][:5]) == (3, "1 images", "nncf ")
    figures = {row["figure"]: (row["float32"], row["int8"]) for row in told["quality"]}
    assert "A detection_f1 all" in figures
    assert all(0 <= value <= 1 for pair in figures.values() for value in pair)
    text = (bundle / "MODEL_CARD.md").read_text()
    assert "## In 8 bits" in text
    assert "| A detection_f1 all |" in text


def test_8_bits_say_nearly_what_32_say(bundle):
    exact, rough = (Segmenter(bundle, device="cpu", precision=precision) for precision in ("float32", "int8"))
    assert rough.runtime.precision == "int8"
    one, other = exact.runtime.run(IMAGE[None])[0], rough.runtime.run(IMAGE[None])[0]
    assert np.abs(one.nucleus - other.nucleus).mean() < 0.05
    assert np.abs(one.shape - other.shape).mean() < 0.05
    assert not np.array_equal(one.shape, other.shape)


def test_a_tile_is_answered_for_without_its_rim_and_an_image_whole(bundle):
    description, net = load_bundle(bundle)
    found = find_quantised(bundle)
    assert found.crop == REPORTED.halo_px - 64
    whole, middle = (
        open_runtime(net, description, device="cpu", precision="int8", crop=crop, quantised=found)
        for crop in (0, found.crop)
    )
    side, rim = REPORTED.step_px + 2 * REPORTED.halo_px, slice(found.crop, -found.crop)
    tile = np.random.default_rng(0).integers(60, 256, (side, side, 3), dtype=np.uint8)
    (wide, *wide_maps), (inner, *inner_maps) = whole.run(tile[None])[0], middle.run(tile[None])[0]
    assert (inner != wide[rim, rim]).mean() < 1e-3  # where two regions are as likely, rounding decides
    for wide_map, inner_map in zip(wide_maps, inner_maps, strict=True):
        np.testing.assert_allclose(inner_map, wide_map[..., rim, rim], atol=1e-3)
    with pytest.raises(IncompatibleBundle, match=f"leaves out {found.crop} pixels .* ask for {found.crop + 2}"):
        open_runtime(net, description, device="cpu", precision="int8", crop=found.crop + 2, quantised=found)


def test_one_that_does_not_tell_its_rim_is_none(bundle):
    description = read_bundle(bundle)
    told = {key: value for key, value in description.card["int8"].items() if key != "crop"}
    write_description(bundle, replace(description, card=description.card | {"int8": told}))
    with pytest.raises(RuntimeUnavailable, match="has no network in 8 bits"):
        find_quantised(bundle)


def test_a_run_takes_it_where_it_is_asked_for(bundle):
    asked = load_config(overrides=["inference.precision=int8"])
    runtime = Engine(bundle, asked, device="cpu").runtime
    assert runtime.precision == "int8"
    side = REPORTED.step_px + 2 * REPORTED.halo_px
    assert len(runtime.run(np.zeros((2, side, side, 3), np.uint8))) == 2
    assert Engine(bundle, load_config(), device="cpu").runtime.precision != "int8"


def test_a_bundle_without_one_says_how_it_gets_one(tmp_path):
    write_tiny(tmp_path / "plain")
    with pytest.raises(RuntimeUnavailable, match=r"has no network in 8 bits .* pathopan quantise .*plain --data DATA"):
        Segmenter(tmp_path / "plain", precision="int8")


def test_8_bits_of_other_weights_are_none(bundle, tmp_path):
    description, net = load_bundle(bundle)
    net.shape_head.conv.bias.data += 1
    save_bundle(tmp_path / "trained", description, net)
    for name in ("int8.xml", "int8.bin"):
        shutil.copy(bundle / name, tmp_path / "trained")
    with pytest.raises(RuntimeUnavailable, match="has no network in 8 bits of its weights"):
        find_quantised(tmp_path / "trained")


def test_a_run_looks_for_it_before_it_looks_at_a_slide(tmp_path):
    write_tiny(tmp_path / "plain")
    asked = load_config(overrides=["inference.precision=int8"])
    with pytest.raises(RuntimeUnavailable, match="has no network in 8 bits"):
        Attempts(RunSettings(tmp_path / "out", str(tmp_path / "plain"), asked, "cpu"))
    by_torch = load_config(overrides=["inference.precision=int8", "inference.runtime=torch"])
    with pytest.raises(RuntimeUnavailable, match="int8 is OpenVINO's on a CPU"):
        Attempts(RunSettings(tmp_path / "out", str(tmp_path / "plain"), by_torch, "cpu"))


def test_results_of_one_network_in_8_bits_are_not_taken_for_those_of_another(bundle, tmp_path):
    slide = tmp_path / "slide.tif"
    slide.write_bytes(b"pixels")
    asked = load_config(overrides=["inference.precision=int8"])

    def prints(config):
        return Job(SlideEntry("a", slide), config, Engine(bundle, config, device="cpu"), tmp_path / "out").prints

    first, exact = prints(asked), prints(load_config())
    assert describe_bundle(Engine(bundle, asked))["int8_sha256"]
    description = read_bundle(bundle)
    told = description.card["int8"]
    measured_anew = told | {"measured_on": "others"}
    write_description(bundle, replace(description, card=description.card | {"int8": measured_anew}))
    assert prints(asked) == first
    made_anew = told | {"sha256": told["sha256"] | {"int8.bin": "0" * 64}}
    write_description(bundle, replace(description, card=description.card | {"int8": made_anew}))
    assert prints(asked)["predict"] != first["predict"]
    assert prints(load_config()) == exact


def copied(request, _tell):
    """Round nothing."""
    for suffix in (".xml", ".bin"):
        shutil.copy(Path(request[0]).with_suffix(suffix), Path(request[1]).with_suffix(suffix))


def test_a_rounding_that_is_not_measured_leaves_the_bundle_as_it_was(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    write_tiny(tmp_path / "plain")
    before = sorted(path.name for path in (tmp_path / "plain").iterdir())
    monkeypatch.setattr(quantise, "read_samples", lambda _data, _recipe: SAMPLES)
    monkeypatch.setattr(quantise, "Child", lambda *_, **__: SimpleNamespace(greeting=str, ask=copied, close=str))
    monkeypatch.setattr(quantise, "_compare", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        quantise.quantise_bundle(tmp_path / "plain", tmp_path)
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == before
    assert not list(tmp_path.glob(".*"))
    assert "int8" not in read_bundle(tmp_path / "plain").card


def test_the_command_tells_what_it_costs(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(quantise, "quantise_bundle", lambda *_: read_bundle(bundle))
    shown = CliRunner().invoke(app, ["quantise", str(bundle), "--data", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "measured on 1 images" in shown.output
    assert "A detection_f1 all\tfloat32 " in shown.output


def test_what_openvino_cannot_read_is_no_network(bundle):
    description, net = load_bundle(bundle)
    with pytest.raises(IncompatibleBundle, match="cannot be read by OpenVINO"):
        open_runtime(net, description, device="cpu", precision="int8", quantised=Quantised(b"<net", b"", 0))


def test_other_precisions_leave_it_alone(bundle):
    pytest.importorskip("openvino")
    description, net = load_bundle(bundle)
    given = {"device": "cpu", "runtime": "openvino", "quantised": find_quantised(bundle)}
    assert open_runtime(net, description, precision="float32", **given).precision == "float32"
    with pytest.raises(RuntimeUnavailable, match="without the network in 8 bits of bundle 'tiny'"):
        open_runtime(net, description, device="cpu", precision="int8")


@pytest.mark.parametrize("name", ["int8.xml", "int8.bin"])
def test_a_damaged_file_is_refused(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(ChecksumMismatch, match=name):
        find_quantised(bundle)


def test_a_missing_file_is_named(bundle):
    (bundle / "int8.bin").unlink()
    with pytest.raises(IncompatibleBundle, match=r"int8\.bin: cannot be read"):
        find_quantised(bundle)


def test_torch_does_not_run_it(bundle):
    description, net = load_bundle(bundle)
    given = {"device": "cpu", "precision": "int8", "quantised": find_quantised(bundle)}
    with pytest.raises(RuntimeUnavailable, match="int8 is OpenVINO's on a CPU"):
        open_runtime(net, description, runtime="torch", **given)


def test_a_bundle_that_does_not_tell_its_recipe_cannot_be_rounded(tmp_path):
    description = describe(RECIPE, BREAST)
    save_bundle(tmp_path / "mute", description, tiny_net(description))
    with pytest.raises(ConfigError, match="'tiny' does not tell a recipe that this pathopan knows"):
        quantise.quantise_bundle(tmp_path / "mute", tmp_path)


@pytest.mark.parametrize("missing", ["nncf", "openvino"])
def test_without_nncf_or_openvino_it_is_said_what_to_install(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", SimpleNamespace())
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RuntimeUnavailable, match=r"pip install 'pathopan\[int8\]'"):
        quantise.start_rounding()


def test_nncf_is_never_imported_here(made):
    assert "nncf" not in sys.modules
