"""What a person drew or edited, burned into the region map: scores can then be computed again without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely

from pathopan.classes import Taxonomy
from pathopan.contours import paint
from pathopan.errors import UnknownLabel
from pathopan.objects.compartments import Drawn
from pathopan.objects.regions import STRIP_ROWS, ClassMap, strips

EXCLUDE_NAMES = ("exclude", "excluded")
"""Annotations of this name are in no denominator, whatever class lies below."""

BED_NAMES = ("tumor bed", "tumour bed")
"""Annotations of this name, together, replace the computed tumor bed."""


@dataclass(frozen=True)
class Annotation:
    """A shape that a person drew, and what it is called."""

    geometry: shapely.Geometry  # polygons in level-0 pixels
    name: str  # a region class (its own name or QuPath's), one of EXCLUDE_NAMES or of BED_NAMES


class Burned(NamedTuple):
    """A region map with annotations in it, and those that are no class."""

    classes: ClassMap
    drawn: Drawn


def burn_annotations(
    classes: ClassMap, annotations: Sequence[Annotation], *, taxonomy: Taxonomy, scale_l0: tuple[float, float]
) -> Burned:
    """Let annotations overrule a region map.

    Parameters
    ----------
    classes : (Y, X) uint8
        The map below: where no annotation lies, it stays. It is not changed.
    annotations : sequence of Annotation
        Where two classes overlap, the smaller shape wins, as it lies on top in QuPath; so their order is no matter.
    taxonomy : Taxonomy
        What the classes mean.
    scale_l0 : (float, float)
        Level-0 pixels per pixel of the map, along x and y.

    Returns
    -------
    Burned
        The map, and what to hand to `find_objects` as ``drawn``. A pixel belongs to the shape that holds its centre.
        What was not analysed stays so: no network looked for nuclei there.

    Raises
    ------
    UnknownLabel
        If an annotation is called something else.

    Examples
    --------
    >>> from pathopan.classes import BREAST
    >>> drawn = [Annotation(shapely.box(0, 0, 8, 8), "Tumor")]
    >>> burn_annotations(np.full((2, 3), 2, np.uint8), drawn, taxonomy=BREAST, scale_l0=(8.0, 8.0)).classes
    array([[1, 2, 2],
           [2, 2, 2]], dtype=uint8)
    """
    ids = _class_ids(taxonomy)
    shapes = []
    for annotation in sorted(annotations, key=lambda a: (a.geometry.area, a.geometry.wkb)):
        name = annotation.name.strip().lower()
        if name in ids:
            shapes.append((shapely.transform(annotation.geometry, lambda xy: xy / np.asarray(scale_l0)), ids[name]))
        elif name not in (*EXCLUDE_NAMES, *BED_NAMES):
            known = ", ".join(sorted({*ids, *EXCLUDE_NAMES, *BED_NAMES}))
            msg = f"an annotation is called {annotation.name!r}; set one of {known} in QuPath and export again"
            raise UnknownLabel(msg)
    burned = classes.copy()
    painted = paint(shapes, shape=classes.shape)
    for rows in strips(len(classes), STRIP_ROWS):
        over = (painted[rows] > 0) & (classes[rows] > 0)
        burned[rows][over] = painted[rows][over]
    return Burned(burned, Drawn(_union(annotations, EXCLUDE_NAMES), _union(annotations, BED_NAMES)))


def _class_ids(taxonomy: Taxonomy) -> dict[str, int]:
    """Find classes by QuPath's name or, which wins, by their own."""
    by_qupath = {c.qupath.lower(): c.id for c in reversed(taxonomy.regions)}
    return by_qupath | {c.name.lower(): c.id for c in taxonomy.regions}


def _union(annotations: Sequence[Annotation], names: Sequence[str]) -> shapely.Geometry | None:
    found = [a.geometry for a in annotations if a.name.strip().lower() in names]
    return shapely.union_all(found) if found else None
