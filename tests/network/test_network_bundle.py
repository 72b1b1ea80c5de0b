import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from oracle import TINY, tiny_bundle, tiny_net
from safetensors.torch import load_file, save_file

from pathopan.errors import BundleError, ChecksumMismatch, IncompatibleBundle, UnknownBundle
from pathopan.network.bundle import find_bundle, list_bundles, load_bundle, read_bundle, save_bundle
from pathopan.network.targets import DecodeRules


class Trap:
    """Whoever unpickles this is caught."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


@pytest.fixture
def folder(tmp_path) -> Path:
    save_bundle(tmp_path / "tiny", tiny_bundle(card={"data": ["made up"]}), tiny_net())
    return tmp_path / "tiny"


def change(folder: Path, **fields: object) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def replace_weights(folder: Path, blob: bytes, *, honest: bool = True) -> None:
    (folder / "weights.safetensors").write_bytes(blob)
    if honest:
        change(folder, sha256=hashlib.sha256(blob).hexdigest())


def rewrite(folder: Path, edit) -> None:
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    replace_weights(folder, path.read_bytes())


def test_a_bundle_comes_back_as_it_was(tmp_path):
    described = tiny_bundle(decode=DecodeRules(min_centre=0.2), licence="CC0-1.0", card={"minutes": 3})
    net = tiny_net()
    saved = save_bundle(tmp_path / "b", described, net)
    found, loaded = load_bundle(tmp_path / "b")
    assert found == saved
    assert (found.mean, found.decode, found.card) == (described.mean, described.decode, described.card)
    assert found.sha256 == hashlib.sha256((tmp_path / "b" / "weights.safetensors").read_bytes()).hexdigest()
    assert not loaded.training
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for (key, first), second in zip(net.state_dict().items(), loaded.state_dict().values(), strict=True):
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-3)


def test_a_loaded_network_answers_as_the_saved_one(folder):
    image = torch.randn((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for first, second in zip(tiny_net()(image), load_bundle(folder)[1](image), strict=True):
            torch.testing.assert_close(first, second, atol=0.05, rtol=0.05)


def test_saving_again_gives_the_same_bytes(folder, tmp_path):
    _, net = load_bundle(folder)
    again = save_bundle(tmp_path / "again", read_bundle(folder), net)
    assert again.sha256 == read_bundle(folder).sha256


def test_one_flipped_bit_is_found_and_both_sums_are_shown(folder):
    blob = bytearray((folder / "weights.safetensors").read_bytes())
    blob[-1] ^= 1
    promised = read_bundle(folder).sha256
    replace_weights(folder, bytes(blob), honest=False)
    with pytest.raises(ChecksumMismatch) as caught:
        load_bundle(folder)
    assert promised in str(caught.value)
    assert hashlib.sha256(blob).hexdigest() in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("region_head.bias"), "Missing key.*region_head.bias"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "Unexpected key.*extra"),
        (lambda tensors: tensors.update({"region_head.bias": torch.zeros(9)}), "size mismatch for region_head.bias"),
    ],
    ids=["missing", "superfluous", "wrong shape"],
)
def test_tensors_that_do_not_fit(folder, edit, message):
    rewrite(folder, edit)
    with pytest.raises(IncompatibleBundle, match=f"(?s)the tensors do not fit PanopticNet.*{message}"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["pickle", "pt"])
def test_a_pickle_under_another_name_is_never_unpickled(folder, name, tmp_path):
    if name == "pickle":
        blob = pickle.dumps(Trap())
    else:
        torch.save({"a": Trap()}, tmp_path / "x.pt")
        blob = (tmp_path / "x.pt").read_bytes()
    replace_weights(folder, blob, honest=False)
    with pytest.raises(ChecksumMismatch):
        load_bundle(folder)
    replace_weights(folder, blob)
    with pytest.raises(IncompatibleBundle, match="the tensors do not fit"):
        load_bundle(folder)


def test_a_file_is_no_bundle(tmp_path):
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BundleError, match=r"a bundle is a folder .* files such as \.pt are never loaded"):
        load_bundle(tmp_path / "weights.pt")


def test_an_unknown_name_lists_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownBundle, match="no bundle 'nobody'") as caught:
        find_bundle("nobody")
    assert str(sorted(list_bundles())) in str(caught.value)


def test_missing_weights(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(IncompatibleBundle, match=r"weights\.safetensors: cannot be read"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format_version": 2}, "format version 2; this pathopan reads version 1"),
        ({"colour": 1}, r"unknown fields \['colour'\]"),
        ({"architecture": "Other"}, r"unknown architecture 'Other'; known: \['PanopticNet'\]"),
        ({"step": 65}, "step 65 [+] 2 x halo 32 must be a positive multiple of 32"),
        ({"step": "big"}, "missing or malformed"),
        ({"mean": 3}, "missing or malformed"),
        ({"mean": [0.5, 0.5]}, "mean and std must each be three numbers"),
        ({"mpp": 0}, "mpp 0 must be a positive number"),
        ({"decode": {"min_center": 1}}, "missing or malformed.*min_center"),
        ({"taxonomy": {"name": "x"}}, "taxonomy cannot be read"),
        ({"arguments": {"depth": 3}}, "PanopticNet cannot be built with .*depth"),
        ({"arguments": {**TINY, "region_channels": [8, 8]}}, "the tensors do not fit"),
    ],
)
def test_a_bundle_json_that_cannot_be_used(folder, fields, message):
    change(folder, **fields)
    with pytest.raises(IncompatibleBundle, match=f"(?s){message}"):
        load_bundle(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"x"', ""])
def test_a_bundle_json_that_is_none(folder, text):
    (folder / "bundle.json").write_text(text)
    with pytest.raises(IncompatibleBundle, match=r"not a readable bundle\.json"):
        read_bundle(folder)


def test_a_missing_field(folder):
    path = folder / "bundle.json"
    stored = json.loads(path.read_text())
    del stored["mpp"]
    path.write_text(json.dumps(stored))
    with pytest.raises(IncompatibleBundle, match=r"missing or malformed.*mpp"):
        read_bundle(folder)


def test_a_draft_of_a_bundle_is_none_that_ships(tmp_path, monkeypatch):
    for name in ("done", ".done.7.pathopan.tmp"):
        (tmp_path / "bundles" / name).mkdir(parents=True)
        (tmp_path / "bundles" / name / "bundle.json").touch()
    monkeypatch.setattr("pathopan.network.bundle.resources.files", lambda _package: tmp_path)
    assert list_bundles() == {"done": tmp_path / "bundles" / "done"}


@pytest.mark.parametrize("name", sorted(list_bundles()))
def test_every_bundle_that_ships_can_be_loaded(name):
    bundle, net = load_bundle(name)
    assert bundle.name == name
    assert bundle.licence
    assert not net.training
