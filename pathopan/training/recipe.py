"""Recipes: everything that makes a training run what it is, read from YAML."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from math import inf, isfinite
from pathlib import Path
from typing import Any

import yaml

from pathopan.classes import BREAST, Taxonomy
from pathopan.config import YAML_DAMAGE
from pathopan.datasets import READERS, read_dataset
from pathopan.datasets.derived import derive_missing_regions
from pathopan.datasets.sample import Sample
from pathopan.errors import ConfigError
from pathopan.files import read_file
from pathopan.network.losses import LossWeights
from pathopan.network.targets import DecodeRules
from pathopan.options import DEFAULT_BUNDLE
from pathopan.training.optimiser import OPTIMISERS

DEFAULT_RECIPE = DEFAULT_BUNDLE

CHECKPOINT_EVERY = 100
"""Steps between checkpoints: what a kill can cost."""


SETS = {"brca_m2c": "brca_m2c", "consep": "consep", "dsb2018": "dsb2018_stained"}
"""What the networks that ship learned from: name of a reader -> folder below the data folder.

For a reader's options, in place of the folder: ``{folder: mine, names: {Nest: tumor}}``.
"""

NOTES = ("speed", "tradeoff", "tried", "failures")
"""Parts of a model card that people write."""


@dataclass(frozen=True)
class Recipe:
    """One complete, named training run."""

    name: str
    steps: int = 2_400
    batch_size: int = 8
    crop_px: int = 256
    optimiser: str = "adamw"  # or muon
    learning_rate: float = 1.5e-3  # peak of the one-cycle schedule
    weight_decay: float = 1e-2
    gradient_clip: float = 1.0
    ema_decay: float = 0.995  # of the weights that ship
    seed: int = 0
    mpp: float = 0.5
    step_px: int = 1024  # write window of a tile
    halo_px: int = 192  # below this, the region classes show the grid: tests/bench/seams.py
    architecture: str = "PanopticNet"
    arguments: dict[str, Any] = field(default_factory=dict)
    encoder_weights: str | None = "packaged"
    start_from: str | None = None  # bundle whose weights training goes on with; folds never do, since it has seen them
    start_share: float = 0.0  # of that bundle's weights in those that ship, see pathopan.training.run.blend
    sets: dict[str, Any] = field(default_factory=lambda: dict(SETS))  # name of a reader -> see SETS
    shares: dict[str, float] = field(default_factory=lambda: {"BRCA-M2C": 0.55, "CoNSeP": 0.33, "DSB2018": 0.12})
    zooms: dict[str, list[float]] = field(
        default_factory=lambda: {"BRCA-M2C": [0.8, 1.25], "CoNSeP": [0.9, 1.6], "DSB2018": [0.7, 1.4]}
    )
    hold_out: list[str] = field(default_factory=list)  # groups (patients) never trained on
    folds: int = 5  # of the cross-validation
    fold_steps: int = 0  # of each fold; 0: as many as of the network that ships
    fold_sources: list[str] = field(default_factory=lambda: ["BRCA-M2C", "CoNSeP"])  # what folds hold out and report
    artefact_share: float = 0.2
    stain_strength: float = 0.3
    density: list[float] = field(default_factory=lambda: [1.0, 1.0])  # range of the factor on all stains alike
    stain_hue: float = 0.0  # how far the color of each stain may turn: see pathopan.training.augment.jitter_stain
    outline_step: int = 0  # from this step on, points have outlines by self-training; 0: never
    losses: LossWeights = field(default_factory=LossWeights)
    decode: DecodeRules = field(default_factory=DecodeRules)

    def __post_init__(self) -> None:
        """Check what resuming relies on, and that the data sets have readers and the optimiser is known."""
        if self.optimiser not in OPTIMISERS:
            msg = f"recipe {self.name!r}: no optimiser {self.optimiser!r}; known: {', '.join(OPTIMISERS)}"
            raise ConfigError(msg)
        if unknown := sorted(set(self.sets) - set(READERS)):
            msg = f"recipe {self.name!r}: no reader for data sets {unknown}; known: {', '.join(READERS)}"
            raise ConfigError(msg)
        for name, place in self.sets.items():
            if not isinstance(place["folder"] if isinstance(place, dict) and "folder" in place else place, str):
                msg = f"recipe {self.name!r}: sets: {name} must be a folder, or a folder and options: {{folder: mine}}"
                raise ConfigError(msg)
        if not 0 <= self.start_share < 1 or (self.start_share and not self.start_from):
            msg = f"recipe {self.name!r}: start_share {self.start_share} must be 0 to below 1, and needs a start_from"
            raise ConfigError(msg)
        self._check_stains()
        if self.outline_step % CHECKPOINT_EVERY or not 0 <= self.outline_step < max(1, self.steps):
            msg = (
                f"recipe {self.name!r}: outline_step {self.outline_step} must be a multiple of {CHECKPOINT_EVERY}, "
                f"where checkpoints are written, and lie before the last of {self.steps} steps"
            )
            raise ConfigError(msg)

    def _check_stains(self) -> None:
        if len(self.density) != 2 or not 0 < self.density[0] <= self.density[1] < inf:
            msg = f"recipe {self.name!r}: density {self.density} must be two factors above 0, the lower one first"
            raise ConfigError(msg)
        if not 0 <= self.stain_hue <= 1:
            msg = f"recipe {self.name!r}: stain_hue {self.stain_hue} must be 0 (none) to 1"
            raise ConfigError(msg)

    def to_dict(self) -> dict[str, Any]:
        """Give the form that a bundle's card and a checkpoint store; what was added since is told where it is used."""
        told = asdict(self)
        usual = {"sets": SETS, "optimiser": "adamw", "density": [1.0, 1.0], "start_share": 0.0, "stain_hue": 0.0}
        for name, value in usual.items():
            if told[name] == value:
                del told[name]
        return told

    def learns_as(self, stored: dict[str, Any]) -> bool:
        """Say whether a stored recipe trains alike, however slides are tiled, long folds are, and weights blended."""
        mine = json.loads(json.dumps(self.to_dict()))
        apart = {"step_px", "halo_px", "fold_steps", "start_share"}
        return all(mine.get(key) == stored.get(key) for key in {*mine, *stored} - apart)


def read_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe that ships with the package, by name, or one's own YAML file.

    Raises
    ------
    ConfigError
        If there is no such recipe, or a key is unknown or malformed.
    """
    path = _find_recipe(name_or_path)
    try:
        stored = yaml.safe_load(read_file(path))
        _check_keys(stored, path)
        losses, decode = LossWeights(**stored.pop("losses", {})), DecodeRules(**stored.pop("decode", {}))
        return Recipe(**stored, losses=losses, decode=decode)
    except ConfigError:
        raise
    except (OSError, *YAML_DAMAGE) as error:
        msg = f"{path}: not a readable recipe: {error}"
        raise ConfigError(msg) from error


def stored_recipe(stored: object, name: str) -> Recipe:
    """Take a recipe from what a bundle's card holds of it.

    Raises
    ------
    ConfigError
        If bundle ``name`` does not tell how it was trained, or as another version of pathopan did.
    """
    try:
        told: dict[str, Any] = dict(stored)  # type: ignore[call-overload]
        losses, decode = LossWeights(**told.pop("losses")), DecodeRules(**told.pop("decode"))
        return Recipe(**told, losses=losses, decode=decode)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        msg = f"bundle {name!r} does not tell a recipe that this pathopan knows: {error!r}"
        raise ConfigError(msg) from error


def read_notes(name_or_path: str | Path) -> tuple[dict[str, Any], list[Path]]:
    """Read what people know of a recipe's network and no program finds out, for its model card.

    It stands in a folder beside the recipe, ``RECIPE.card/``: ``card.yaml``, with any of ``NOTES``, and the pictures
    that it names. A recipe needs none.

    Returns
    -------
    notes : dict
        Keys and form as in :mod:`pathopan.training.card`; empty without such a folder.
    pictures : list of Path

    Raises
    ------
    ConfigError
        If the file cannot be read, has another key, or a picture is missing.
    """
    folder = _find_recipe(name_or_path).with_suffix(".card")
    path = folder / "card.yaml"
    if not folder.is_dir():
        return {}, []
    try:
        notes = yaml.safe_load(read_file(path))
        pictures = [folder / entry["picture"] for entry in notes.get("failures", []) if "picture" in entry]
    except (OSError, *YAML_DAMAGE) as error:
        msg = f"{path}: not readable notes for a model card: {error}"
        raise ConfigError(msg) from error
    unknown, missing = sorted(set(notes) - set(NOTES), key=str), [one.name for one in pictures if not one.is_file()]
    if unknown or missing:
        msg = f"{path}: unknown keys {unknown}, pictures that are missing {missing}; known keys: {list(NOTES)}"
        raise ConfigError(msg)
    return notes, pictures


def _find_recipe(name_or_path: str | Path) -> Path:
    packaged = Path(str(resources.files("pathopan"))) / "training" / "recipes" / f"{name_or_path}.yaml"
    return packaged if packaged.is_file() else Path(name_or_path)


def _check_keys(stored: dict[str, Any], path: Path) -> None:
    """Refuse unknown keys, and values of another kind than the defaults; a whole number may stand for a number."""
    known = {f.name for f in fields(Recipe)}
    unknown = sorted(set(stored) - known, key=str)
    if unknown:
        msg = f"{path}: unknown keys {reprlib.repr(unknown)}; known: {sorted(known)}"
        raise ConfigError(msg)
    for one in fields(Recipe):
        if one.name not in stored or one.name in ("losses", "decode"):
            continue
        value, default = stored[one.name], getattr(Recipe("default"), one.name)
        if one.name in ("encoder_weights", "start_from"):
            default = "" if value is not None else None
        kinds = (int, float) if isinstance(default, float) else type(default)
        if (
            not isinstance(value, kinds)
            or isinstance(value, bool)
            or (isinstance(value, float) and not isfinite(value))
        ):
            msg = f"{path}: {one.name} must be {type(default).__name__}, found {reprlib.repr(value)}"
            raise ConfigError(msg)


def read_samples(data: Path, recipe: Recipe, *, taxonomy: Taxonomy = BREAST) -> list[Sample]:
    """Read a recipe's data sets; regions are derived where nobody drew any and all nuclei have classes.

    Parameters
    ----------
    data : Path
        Folder with the folders that ``recipe.sets`` names.
    recipe : Recipe
        Whose.
    taxonomy : Taxonomy
        The classes.

    Raises
    ------
    DatasetError
        If a set is missing or malformed.
    ConfigError
        If the recipe holds out a group that no sample is of: it would be trained on without a word.
    """
    samples = [
        derive_missing_regions(sample, taxonomy=taxonomy)
        for name, place in recipe.sets.items()
        for sample in _read_set(name, data, place if isinstance(place, dict) else {"folder": place}, taxonomy)
    ]
    if unknown := sorted(set(recipe.hold_out) - {sample.group for sample in samples}):
        msg = f"recipe {recipe.name!r} holds out {', '.join(unknown)}, and {data} has no image of them"
        raise ConfigError(msg)
    return samples


def _read_set(name: str, data: Path, place: dict[str, Any], taxonomy: Taxonomy) -> Iterator[Sample]:
    options = {key: value for key, value in place.items() if key != "folder"}
    return read_dataset(name, data / place["folder"], taxonomy=taxonomy, **options)
