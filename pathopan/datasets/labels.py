"""From a data set's labels to our class ids, by name where the taxonomy has the class, else by role."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pathopan.classes import NucleusClass, RegionClass, Taxonomy
from pathopan.errors import UnknownLabel

Wishes = Mapping[str, tuple[str, ...]]
"""Label -> names or roles, the first that the taxonomy has is taken; none wished for or found is 0, unlabelled."""

BCSS_REGIONS: Wishes = {
    "outside_roi": (),
    "outside_tissue": (),
    "exclude": (),
    "undetermined": (),
    "roi": (),
    "evaluation_roi": (),
    "tumor": ("tumor",),
    "metaplasia_NOS": ("tumor",),
    "angioinvasion": ("tumor",),
    "dcis": ("in-situ", "other"),  # not invasive: the guideline keeps it out of every denominator
    "stroma": ("stroma",),
    "lymphocytic_infiltrate": ("dense",),
    "plasma_cells": ("dense",),
    "other_immune_infiltrate": ("dense",),
    "normal_acinus_or_duct": ("normal", "other"),
    "necrosis_or_debris": ("necrosis", "other"),
    "glandular_secretions": ("secretions", "other"),
    "mucoid_material": ("mucin", "other"),
    "lymphatics": ("vessel", "other"),
    "blood": ("blood", "other"),
    "blood_vessel": ("vessel", "other"),
    "fat": ("fat", "other"),
    "nerve": ("other",),
    "skin_adnexa": ("other",),
    "skin_adnexia": ("other",),  # so spelt in some code tables
    "other": ("other",),
    "blue_sharpie": ("artefact", "other"),
    "whitespace": ("background",),
}
"""Region labels of BCSS, also drawn in PanopTILs."""

NUCLS_NUCLEI: Wishes = {
    "tumor": ("tumor",),
    "mitotic_figure": ("tumor",),
    "fibroblast": ("stromal",),
    "vascular_endothelium": ("endothelium", "stromal"),
    "myoepithelium": ("myoepithelium", "stromal"),
    "macrophage": ("macrophage", "stromal"),  # an inflammatory cell that is no TIL
    "lymphocyte": ("lymphocyte", "til"),
    "plasma_cell": ("plasma_cell", "til"),
    "neutrophil": ("granulocyte", "other"),
    "eosinophil": ("granulocyte", "other"),
    "ductal_epithelium": ("normal_epithelium", "other"),
    "apoptotic_body": (),
    "unlabeled": (),
    "ambiguous": (),
}
"""Nucleus labels of NuCLS as its raters gave them."""


def resolve(wishes: tuple[str, ...], classes: tuple[RegionClass, ...] | tuple[NucleusClass, ...]) -> int:
    """Find the id of the first wish that is a class's name or, if there is no such name, a role; else 0.

    Examples
    --------
    >>> from pathopan.classes import BREAST
    >>> resolve(("necrosis", "other"), BREAST.regions), resolve((), BREAST.regions)
    (4, 0)
    """
    for wish in wishes:
        by_name = [c.id for c in classes if c.name == wish]
        by_role = [c.id for c in classes if c.role == wish]
        if by_name or by_role:
            return (by_name or by_role)[0]
    return 0


def region_ids(wishes: Wishes, taxonomy: Taxonomy) -> dict[str, int]:
    """Give the region class id of each label."""
    return {label: resolve(wish, taxonomy.regions) for label, wish in wishes.items()}


def nucleus_ids(wishes: Wishes, taxonomy: Taxonomy) -> dict[str, int]:
    """Give the nucleus class id of each label."""
    return {label: resolve(wish, taxonomy.nuclei) for label, wish in wishes.items()}


def look_up(label: str, ids: Mapping[str, int], *, path: Path) -> int:
    """Translate one label.

    Raises
    ------
    UnknownLabel
        If the mapping lacks it.
    """
    if label not in ids:
        msg = f"{path}: unknown label {label!r}; known: {', '.join(sorted(ids))}"
        raise UnknownLabel(msg)
    return ids[label]


def map_codes(codes: npt.NDArray[np.integer], ids: Mapping[int, int], *, path: Path) -> npt.NDArray[np.uint8]:
    """Translate an image of codes (uint8 range) to class ids.

    Raises
    ------
    UnknownLabel
        If the image holds a code that the mapping lacks.
    """
    unknown = sorted(set(np.unique(codes).tolist()) - set(ids))
    if unknown:
        msg = f"{path}: unknown codes {unknown}; known: {sorted(ids)}"
        raise UnknownLabel(msg)
    lookup = np.zeros(max(ids) + 1, dtype=np.uint8)
    lookup[list(ids)] = list(ids.values())
    return lookup[codes]
