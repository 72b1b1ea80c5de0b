from dataclasses import fields

import pytest
import yaml

from pathopan.config import Config, load_config
from pathopan.errors import ConfigError


def test_without_a_file_the_defaults_hold():
    assert load_config() == Config()


def test_settings_survive_yaml(tmp_path):
    path = tmp_path / "config.yaml"
    config = load_config(overrides=["scores.field_um=750", "export.nuclei=points"])
    path.write_text(yaml.safe_dump(config.to_dict()))
    assert load_config(path) == config


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("scores: {field_um: 400, seed: 3}")
    config = load_config(path, overrides=["scores.field_um=900"])
    assert (config.scores.field_um, config.scores.seed) == (900.0, 3)


def test_an_empty_file_changes_nothing(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("")
    assert load_config(path) == Config()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scores.feild_um=1", "did you mean 'field_um'"),
        ("nonsense=1", "unknown setting 'nonsense'; known: tiler"),
        ("scores.field_um", "must read room.field=value"),
        ("scores.field_um=far", "must be float, found 'far'"),
        ("scores.field_um=.nan", "must be float"),
        ("scores.bootstrap=1.5", "must be int"),
        ("scores.field_um=true", "must be float, found True"),
        ("scores=3", "expected keys and values for ScoresConfig"),
    ],
)
def test_unusable_overrides_are_refused_with_the_reason(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[override])


@pytest.mark.parametrize(
    "override",
    [
        "tiler.tissue_mpp=0.5",
        "tiler.min_tissue_um2=-1",
        "tiler.min_tissue_fraction=1",
        "inference.runtime=magic",
        "inference.precision=float8",
        "inference.batch_size=0",
        "inference.shard_tiles=0",
        "stitcher.seam_margin_um=-1",
        "stitcher.max_overlap=1",
        "objects.region_mpp=0.1",
        "objects.near_um=300",
        "objects.bed_concavity=2",
        "objects.margin_um=-5",
        "scores.field_um=0",
        "scores.bootstrap=-1",
        "scores.til_footprint_um2=0",
        "scores.min_compartment_mm2=-1",
        "export.nuclei=stars",
        "export.max_vertices=3",
        "export.ngff='0.3'",
        "export.image_mpp=100",
    ],
)
def test_impossible_values_name_their_setting(override):
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        load_config(overrides=[override])


@pytest.mark.parametrize("content", ["scores: [", "\udcff"])
def test_an_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"config\.yaml: cannot read settings"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read settings"):
        load_config(tmp_path / "none.yaml")


def test_every_setting_has_a_default_that_passes_its_own_check():
    for room in fields(Config):
        assert getattr(Config(), room.name) is not None
