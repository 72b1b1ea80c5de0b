"""The taxonomy: which regions and nuclei a network tells apart, and what each means for a score.

A taxonomy is data. It travels inside a bundle, so a richer network (necrosis, plasma cells, in-situ epithelium) needs
no new code: scores look at a class's *role*, never at its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args

from pathopan.errors import IncompatibleBundle

Color = tuple[int, int, int]

RegionRole = Literal["tumor", "stroma", "dense", "other", "excluded", "background"]
"""tumor: invasive carcinoma · stroma · dense: lymphocyte-rich stroma (counts as stroma) · other: tissue in no
denominator · excluded: in no denominator and listed with its reason, which is the class's name (necrosis, normal,
in-situ, artefact) · background: no tissue."""

NucleusRole = Literal["tumor", "stromal", "til", "other"]

ClassT = TypeVar("ClassT", "RegionClass", "NucleusClass")

UNANALYSED = 0
"""Region id of pixels that no tile looked at."""


@dataclass(frozen=True)
class RegionClass:
    """One tissue class: a *stuff* class of the panoptic output."""

    id: int  # value in the region map, 1 to 255; 0 is UNANALYSED
    name: str
    role: RegionRole
    color: Color
    qupath: str  # QuPath's name for the class


@dataclass(frozen=True)
class NucleusClass:
    """One kind of nucleus: a *thing* class of the panoptic output."""

    id: int  # 1 upwards; 0 is background
    name: str
    role: NucleusRole
    color: Color
    qupath: str


@dataclass(frozen=True)
class Taxonomy:
    """The classes of a network, in the order of its output channels.

    Raises
    ------
    IncompatibleBundle
        If ids or names repeat, an id is out of range, or a role is unknown.
    """

    name: str
    regions: tuple[RegionClass, ...]
    nuclei: tuple[NucleusClass, ...]

    def __post_init__(self) -> None:
        """Refuse taxonomies in which a class could be mistaken for another."""
        for kind, classes, roles in (
            ("region", self.regions, get_args(RegionRole)),
            ("nucleus", self.nuclei, get_args(NucleusRole)),
        ):
            ids, names = [c.id for c in classes], [c.name for c in classes]
            if len(set(ids)) < len(ids) or len(set(names)) < len(names):
                msg = f"taxonomy {self.name!r}: {kind} ids {ids} and names {names} must each be unique"
                raise IncompatibleBundle(msg)
            if not all(0 < i < 256 for i in ids):
                msg = f"taxonomy {self.name!r}: {kind} ids {ids} must lie in 1..255"
                raise IncompatibleBundle(msg)
            unknown = {c.role for c in classes} - set(roles)
            if unknown:
                msg = f"taxonomy {self.name!r}: unknown {kind} roles {sorted(unknown)}; known: {sorted(roles)}"
                raise IncompatibleBundle(msg)

    def region_ids(self, *roles: RegionRole) -> tuple[int, ...]:
        """Ids of the region classes that play one of the roles."""
        return tuple(c.id for c in self.regions if c.role in roles)

    def nucleus_ids(self, *roles: NucleusRole) -> tuple[int, ...]:
        """Ids of the nucleus classes that play one of the roles."""
        return tuple(c.id for c in self.nuclei if c.role in roles)

    def region(self, key: int | str) -> RegionClass:
        """Find a region class by id or name."""
        return _find(self.regions, key)

    def nucleus(self, key: int | str) -> NucleusClass:
        """Find a nucleus class by id or name."""
        return _find(self.nuclei, key)

    def to_dict(self) -> dict[str, Any]:
        """Give the form in which a bundle stores it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Taxonomy:
        """Rebuild from the form in which a bundle stores it.

        Raises
        ------
        IncompatibleBundle
            If a field is missing or unknown.
        """
        try:
            return cls(
                stored["name"],
                tuple(RegionClass(**{**c, "color": tuple(c["color"])}) for c in stored["regions"]),
                tuple(NucleusClass(**{**c, "color": tuple(c["color"])}) for c in stored["nuclei"]),
            )
        except (KeyError, TypeError) as error:
            msg = f"the bundle's taxonomy cannot be read: {error!r}"
            raise IncompatibleBundle(msg) from error


def _find(classes: Iterable[ClassT], key: int | str) -> ClassT:
    for candidate in classes:
        if key in (candidate.id, candidate.name):
            return candidate
    raise KeyError(key)


BREAST = Taxonomy(
    name="breast-5-4",
    regions=(
        RegionClass(1, "tumor", "tumor", (200, 0, 0), "Tumor"),
        RegionClass(2, "stroma", "stroma", (150, 200, 150), "Stroma"),
        RegionClass(3, "tils", "dense", (110, 60, 190), "Immune cells"),
        RegionClass(4, "other", "other", (255, 200, 0), "Other"),
        RegionClass(5, "background", "background", (235, 235, 235), "Ignore*"),
    ),
    nuclei=(
        NucleusClass(1, "tumor", "tumor", (200, 0, 0), "Tumor"),
        NucleusClass(2, "stromal", "stromal", (0, 140, 80), "Stroma"),
        NucleusClass(3, "til", "til", (60, 60, 230), "Immune cells"),
        NucleusClass(4, "other", "other", (255, 170, 0), "Other"),
    ),
)
"""The classes that the shipped bundle was trained on."""
