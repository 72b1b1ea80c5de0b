"""Bundles: a network as a folder with ``bundle.json`` and ``weights.safetensors``, verified before it is built."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from pathopan.classes import Taxonomy
from pathopan.errors import BundleError, ChecksumMismatch, IncompatibleBundle, UnknownBundle
from pathopan.files import atomic_path, read_file
from pathopan.network.model import ARCHITECTURES
from pathopan.network.targets import DecodeRules
from pathopan.options import DEFAULT_BUNDLE as DEFAULT_BUNDLE

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Bundle:
    """Everything that inference needs to know of a network but its weights."""

    name: str
    taxonomy: Taxonomy
    architecture: str  # key of ARCHITECTURES
    arguments: dict[str, Any]  # of the architecture, beyond the numbers of classes
    mpp: float  # um/px the network was trained at
    step: int  # side of a tile's write window, in pixels at mpp
    halo: int  # margin read around it
    mean: tuple[float, float, float]  # of RGB in 0..1
    std: tuple[float, float, float]
    decode: DecodeRules
    sha256: str = ""  # of weights.safetensors
    licence: str = ""
    card: dict[str, Any] = field(default_factory=dict)  # data, recipe, commit, measured quality: for people
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Check what tiling relies on."""
        if self.architecture not in ARCHITECTURES:
            msg = f"bundle {self.name!r}: unknown architecture {self.architecture!r}; known: {sorted(ARCHITECTURES)}"
            raise IncompatibleBundle(msg)
        if self.step <= 0 or self.halo < 0 or (self.step + 2 * self.halo) % 32:
            msg = f"bundle {self.name!r}: step {self.step} + 2 x halo {self.halo} must be a positive multiple of 32"
            raise IncompatibleBundle(msg)
        if not (math.isfinite(self.mpp) and self.mpp > 0):
            msg = f"bundle {self.name!r}: mpp {self.mpp} must be a positive number"
            raise IncompatibleBundle(msg)
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            msg = (
                f"bundle {self.name!r}: mean and std must each be three numbers, std positive: {self.mean}, {self.std}"
            )
            raise IncompatibleBundle(msg)

    def build(self, *, weights: str | None = None) -> nn.Module:
        """Build the network, without the bundle's weights.

        Raises
        ------
        IncompatibleBundle
            If the architecture does not take the bundle's arguments.
        """
        try:
            net: nn.Module = ARCHITECTURES[self.architecture](
                len(self.taxonomy.regions), len(self.taxonomy.nuclei), weights=weights, **self.arguments
            )
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
            msg = f"bundle {self.name!r}: {self.architecture} cannot be built with {self.arguments}: {error}"
            raise IncompatibleBundle(msg) from error
        return net


def list_bundles() -> dict[str, Path]:
    """Name the bundles that ship with the package, and their folders."""
    root = Path(str(resources.files("pathopan"))) / "bundles"
    found = sorted(root.glob("*/bundle.json"))
    return {path.parent.name: path.parent for path in found if not path.parent.name.startswith(".")}


def find_bundle(name_or_path: str | Path) -> Path:
    """Find a bundle's folder by name or path.

    Raises
    ------
    UnknownBundle
        If there is none; lists the known names.
    BundleError
        If a file is named that might hold a pickle.
    """
    known = list_bundles()
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    path = Path(name_or_path)
    if path.is_file():
        msg = (
            f"{path}: a bundle is a folder with bundle.json and weights.safetensors; files such as .pt are never loaded"
        )
        raise BundleError(msg)
    if not (path / "bundle.json").is_file():
        msg = f"no bundle {str(name_or_path)!r}: neither one of {sorted(known)} nor a folder with a bundle.json"
        raise UnknownBundle(msg)
    return path


def read_bundle(name_or_path: str | Path) -> Bundle:
    """Read and check ``bundle.json``, without the weights.

    Raises
    ------
    UnknownBundle, BundleError
        See :func:`find_bundle`.
    IncompatibleBundle
        If it is of another format version, or a field is missing, unknown or impossible.
    """
    path = find_bundle(name_or_path) / "bundle.json"
    try:
        stored = json.loads(read_file(path))
        version = stored["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"{path}: not a readable bundle.json: {error!r}"
        raise IncompatibleBundle(msg) from error
    if version != FORMAT_VERSION:
        msg = f"{path}: format version {version}; this pathopan reads version {FORMAT_VERSION}"
        raise IncompatibleBundle(msg)
    unknown = sorted(set(stored) - {f.name for f in fields(Bundle)})
    if unknown:
        msg = f"{path}: unknown fields {unknown}"
        raise IncompatibleBundle(msg)
    try:
        return Bundle(
            **{
                **stored,
                "taxonomy": Taxonomy.from_dict(stored["taxonomy"]),
                "decode": DecodeRules(**stored["decode"]),
                "mean": tuple(stored["mean"]),
                "std": tuple(stored["std"]),
            }
        )
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if isinstance(error, BundleError):
            raise
        msg = f"{path}: a field is missing or malformed: {error!r}"
        raise IncompatibleBundle(msg) from error


def load_bundle(name_or_path: str | Path) -> tuple[Bundle, nn.Module]:
    """Read a bundle, verify its weights and build the network, in evaluation mode and float32.

    Raises
    ------
    ChecksumMismatch
        If the weights are not those that ``bundle.json`` promises; shows both sums.
    IncompatibleBundle
        If tensors are missing, superfluous or of another shape.
    """
    bundle = read_bundle(name_or_path)
    path = find_bundle(name_or_path) / "weights.safetensors"
    blob = read_verified(path, bundle.sha256)
    net = bundle.build()
    try:
        tensors = load_tensors(blob)
        broken = [key for key, tensor in tensors.items() if not torch.isfinite(tensor.float()).all()]
        if broken:
            msg = f"{path}: {broken[0]} holds values that are no numbers: training went wrong, or the file was changed"
            raise IncompatibleBundle(msg)
        net.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    except (RuntimeError, SafetensorError) as error:
        msg = f"{path}: the tensors do not fit {bundle.architecture}: {error}"
        raise IncompatibleBundle(msg) from error
    return bundle, net.eval()


def read_verified(path: Path, promised: object) -> bytes:
    """Read a file of a bundle whose sha256 ``bundle.json`` promises.

    Raises
    ------
    ChecksumMismatch
        If it is another file; shows both sums.
    IncompatibleBundle
        If it cannot be read.
    """
    try:
        content = read_file(path)
    except OSError as error:
        msg = f"{path}: cannot be read: {error}"
        raise IncompatibleBundle(msg) from error
    found = hashlib.sha256(content).hexdigest()
    if found != promised:
        msg = f"{path}: sha256 is {found}, bundle.json says {promised}: the file is damaged or was replaced"
        raise ChecksumMismatch(msg)
    return content


def save_bundle(folder: Path, bundle: Bundle, net: nn.Module) -> Bundle:
    """Write a bundle; kernels are stored as float16, everything one-dimensional as float32.

    Returns
    -------
    Bundle
        The same, with the sha256 of the weights.
    """
    tensors = {
        key: (tensor.half() if tensor.ndim > 1 else tensor.float()).contiguous()
        for key, tensor in net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    counters = {key: torch.zeros(()) for key in net.state_dict() if key.endswith("num_batches_tracked")}
    blob = save_tensors({**tensors, **counters})
    saved = replace(bundle, sha256=hashlib.sha256(blob).hexdigest())
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        (temporary / "weights.safetensors").write_bytes(blob)
        write_description(temporary, saved)
    return saved


def write_description(folder: Path, bundle: Bundle) -> None:
    """Write a bundle's ``bundle.json``, beside weights that are there."""
    with atomic_path(folder / "bundle.json") as temporary:
        temporary.write_text(json.dumps(asdict(bundle), indent=2) + "\n", encoding="utf-8")
