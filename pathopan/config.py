"""Every setting of a run: frozen dataclasses with a default and a unit for each field, and the YAML that fills them.

Settings stand above the rooms: a room takes plain values, and only ``pipeline``, ``training`` and ``cli`` unpack them.
What the network was trained with (mpp, step, halo, normalisation, taxonomy) is not here: it comes from the bundle.
"""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml

from pathopan.errors import ConfigError
from pathopan.files import atomic_path, read_file

YAML_DAMAGE = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What reading YAML raises on hostile text."""


class Format(StrEnum):
    """What `pathopan export --format` writes."""

    csv = "csv"
    geojson = "geojson"
    geoparquet = "geoparquet"
    ome_zarr = "ome-zarr"
    spatialdata = "spatialdata"
    histomicsui = "histomicsui"
    qupath_project = "qupath-project"


NucleusForm = Literal["polygons", "points", "none"]
NgffVersion = Literal["0.4", "0.5"]


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ConfigError(text)


@dataclass(frozen=True)
class TilerConfig:
    """Where to look."""

    tissue_mpp: float = 8.0  # um/px at which tissue is found
    min_tissue_um2: float = 20_000.0  # smaller specks are not tissue
    min_tissue_fraction: float = 0.0  # a tile is read if more of its write window than this is tissue

    def __post_init__(self) -> None:
        """Check the values."""
        _require(1 <= self.tissue_mpp <= 64, f"tiler.tissue_mpp is {self.tissue_mpp}; it must lie in 1..64 um/px")
        _require(self.min_tissue_um2 >= 0, f"tiler.min_tissue_um2 is {self.min_tissue_um2}; it must not be negative")
        _require(0 <= self.min_tissue_fraction < 1, "tiler.min_tissue_fraction must lie in [0, 1)")


@dataclass(frozen=True)
class InferenceConfig:
    """How the network is run. But for int8 and mirrored, none of this changes a result beyond rounding."""

    runtime: str = "auto"  # auto | torch | openvino
    precision: str = "auto"  # auto | float32 | bfloat16 | int8 (OpenVINO on a CPU)
    mirrored: bool = False  # average four mirror images of each tile: finds a little more, at four times the cost
    batch_size: int = 1  # tiles in one forward pass
    shard_tiles: int = 16  # tiles whose predictions are written together; what a crash can cost
    overlap: str = (
        "auto"  # always | never: a second process finishes a slide beside the next; auto: where there is a GPU
    )

    def __post_init__(self) -> None:
        """Check the values."""
        _require(
            self.runtime in ("auto", "torch", "openvino"),
            f"inference.runtime is {self.runtime!r}: auto, torch or openvino",
        )
        _require(
            self.precision in ("auto", "float32", "bfloat16", "int8"),
            f"inference.precision is {self.precision!r}: auto, float32, bfloat16 or int8",
        )
        _require(
            not (self.mirrored and self.precision == "int8"),
            "inference.mirrored is not made in int8: choose another inference.precision, or leave mirrored out",
        )
        _require(
            self.overlap in ("auto", "always", "never"),
            f"inference.overlap is {self.overlap!r}: auto, always or never",
        )
        _require(1 <= self.batch_size <= 1_024, "inference.batch_size must lie in 1..1,024")
        _require(1 <= self.shard_tiles <= 100_000, "inference.shard_tiles must lie in 1..100,000")


@dataclass(frozen=True)
class StitcherConfig:
    """How tiles become one slide."""

    seam_margin_um: float = 3.0  # a tile also keeps nuclei whose centroid lies this far outside its write window
    max_overlap: float = 0.3  # two nuclei that share more of the smaller one are the same nucleus

    def __post_init__(self) -> None:
        """Check the values."""
        _require(self.seam_margin_um >= 0, "stitcher.seam_margin_um must not be negative")
        _require(0 < self.max_overlap < 1, "stitcher.max_overlap must lie between 0 and 1")


@dataclass(frozen=True)
class ObjectsConfig:
    """How regions and compartments are drawn."""

    region_mpp: float = 2.0  # um/px of the region map that areas, distances and compartments are measured on
    min_region_um2: float = 2_500.0  # smaller islands join the class around them
    front_um: float = 50.0  # tumor this close to the interface is front, deeper is core
    near_um: float = 50.0  # stroma this close to tumor is near
    mid_um: float = 200.0  # stroma this close, and not near, is mid; the rest is far
    associated_um: float = 32.0  # tumor-associated stroma: this close to opened tumor (MuTILs)
    associated_opening_um: float = 2.0  # radius of that opening
    margin_um: float = 500.0  # invasive margin: this far each side of the tumor-bed border
    bed_closing_um: float = 500.0  # diameter of the closing and opening that make the tumor bed (TIGER)
    bed_min_piece_mm2: float = 0.005  # tumor pieces below this do not shape the bed (TIGER)
    bed_concavity: float = 0.07  # 0 concave .. 1 convex: how tightly the hull follows the pieces
    exclusion_buffer_um: float = 50.0  # around normal and in-situ epithelium, where the bundle has them

    def __post_init__(self) -> None:
        """Check the values."""
        _require(0.25 <= self.region_mpp <= 16, "objects.region_mpp must lie in 0.25..16 um/px")
        _require(0 < self.near_um < self.mid_um, "objects.near_um must be positive and below objects.mid_um")
        _require(0 <= self.bed_concavity <= 1, "objects.bed_concavity must lie in 0..1")
        for name in (
            "min_region_um2",
            "front_um",
            "associated_um",
            "margin_um",
            "bed_closing_um",
            "exclusion_buffer_um",
        ):
            _require(getattr(self, name) >= 0, f"objects.{name} must not be negative")


@dataclass(frozen=True)
class ScoresConfig:
    """How scores are computed."""

    field_um: float = 500.0  # side of the fields for intervals and heterogeneity
    bootstrap: int = 1_000  # resamples of fields for the 95 % interval
    seed: int = 0  # of the bootstrap
    til_footprint_um2: float = 64.0  # area that one TIL stands for in `_fixed` scores: 8 um x 8 um (TIGER)
    min_compartment_mm2: float = 0.01  # below this a compartment has no ratio, and says so
    inflamed_stil_percent: float = 10.0  # stroma with at least this is rich in TILs
    inflamed_itil_per_mm2: float = 100.0  # tumor with at least this is infiltrated

    def __post_init__(self) -> None:
        """Check the values."""
        _require(self.field_um > 0, "scores.field_um must be positive")
        _require(0 <= self.bootstrap <= 1_000_000, "scores.bootstrap must lie in 0..1,000,000")
        _require(self.til_footprint_um2 > 0, "scores.til_footprint_um2 must be positive")
        _require(self.min_compartment_mm2 >= 0, "scores.min_compartment_mm2 must not be negative")


@dataclass(frozen=True)
class ExportConfig:
    """What is written for others."""

    nuclei: str = "polygons"  # polygons | points | none, in GeoJSON
    max_vertices: int = 16  # of a nucleus outline in GeoJSON
    piece_nuclei: int = 300_000  # with more nuclei there is a GeoJSON file for each piece of tissue too
    ngff: str = "0.4"  # OME-Zarr version: 0.4 (Zarr v2) or 0.5 (Zarr v3)
    image_mpp: float = 8.0  # um/px of the picture inside panoptic.ome.zarr
    anonymous: bool = False  # leave slides' paths and file names out of everything that is written

    def __post_init__(self) -> None:
        """Check the values."""
        _require(
            self.nuclei in ("polygons", "points", "none"), f"export.nuclei is {self.nuclei!r}: polygons, points or none"
        )
        _require(self.max_vertices >= 4, "export.max_vertices must be at least 4")
        _require(self.piece_nuclei >= 0, "export.piece_nuclei must not be negative")
        _require(self.ngff in ("0.4", "0.5"), f"export.ngff is {self.ngff!r}: '0.4' or '0.5'")
        _require(1 <= self.image_mpp <= 64, "export.image_mpp must lie in 1..64 um/px")


@dataclass(frozen=True)
class Config:
    """All settings, room by room."""

    tiler: TilerConfig = field(default_factory=TilerConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    stitcher: StitcherConfig = field(default_factory=StitcherConfig)
    objects: ObjectsConfig = field(default_factory=ObjectsConfig)
    scores: ScoresConfig = field(default_factory=ScoresConfig)
    export: ExportConfig = field(default_factory=ExportConfig)

    def to_dict(self) -> dict[str, Any]:
        """Give the form that is written as YAML."""
        return asdict(self)


def load_config(path: Path | None = None, *, overrides: Sequence[str] = ()) -> Config:
    """Read settings from YAML and apply ``room.field=value`` overrides.

    Parameters
    ----------
    path : Path, optional
        A YAML file nested as the rooms are. Without it, the defaults.
    overrides : sequence of str
        Such as ``["scores.field_um=1000"]``; they win over the file.

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown (the nearest known one is named) or a value is impossible.

    Examples
    --------
    >>> load_config(overrides=["scores.field_um=1000"]).scores.field_um
    1000.0
    """
    stored = _read_yaml(path) if path else {}
    config = _fill(Config(), stored, str(path or "settings"))
    for text in overrides:
        key, found, value = text.partition("=")
        if not found:
            msg = f"--set {text!r} must read room.field=value, such as scores.field_um=500"
            raise ConfigError(msg)
        nested: Any = _parse(value, f"--set {text}")
        for name in reversed(key.strip().split(".")):
            nested = {name: nested}
        config = _fill(config, nested, f"--set {text}")
    return config


def save_config(config: Config, path: Path) -> None:
    """Write settings as the YAML that :func:`load_config` reads."""
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(config.to_dict(), sort_keys=False), encoding="utf-8")


def _read_yaml(path: Path) -> Any:
    try:
        text = read_file(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot read settings: {error}"
        raise ConfigError(msg) from error
    return _parse(text, str(path)) or {}


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except YAML_DAMAGE as error:
        msg = f"{where}: cannot read settings: {error}"
        raise ConfigError(msg) from error


def _fill(settings: Any, stored: Any, where: str) -> Any:
    """Return the dataclass with the stored values in place, room by room."""
    if not isinstance(stored, Mapping):
        msg = f"{where}: expected keys and values for {type(settings).__name__}, found {reprlib.repr(stored)}"
        raise ConfigError(msg)
    hints = get_type_hints(type(settings))
    known = [f.name for f in fields(settings)]
    changes = {}
    for key, value in stored.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            msg = f"{where}: unknown setting {reprlib.repr(key)}{hint}"
            raise ConfigError(msg)
        current = getattr(settings, key)
        changes[key] = (
            _fill(current, value, where) if is_dataclass(current) else _cast(hints[key], value, f"{where}: {key}")
        )
    return replace(settings, **changes)


def _cast(kind: type, value: Any, where: str) -> Any:
    fits = {
        float: isinstance(value, int | float) and not isinstance(value, bool),
        int: isinstance(value, int) and not isinstance(value, bool),
        str: isinstance(value, str | float),
        bool: isinstance(value, bool),
    }
    try:
        sound = fits[kind] and (not isinstance(value, int | float) or math.isfinite(value))
    except OverflowError:
        sound = False
    if not sound:
        msg = f"{where} must be {kind.__name__}, found {reprlib.repr(value)}"
        raise ConfigError(msg)
    return kind(value)
