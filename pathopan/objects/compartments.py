"""Compartments: the parts of a slide that a TIL score speaks of, as bits of one map.

A *place* is what is known of one pixel: its class in the low byte and a bit for each of tumor front, near and mid
stroma, tumor-associated stroma, invasive margin, tumor bed, and the two exclusions. A compartment is a condition on
places, so every compartment of a slide is counted in one pass, and those that tile the tissue do so by construction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from pathopan.classes import Taxonomy
from pathopan.objects.bed import find_bed, paint_rows
from pathopan.objects.distances import DISTANCE_ROWS, MaskOf, distance_px, nearest_px
from pathopan.objects.regions import ClassMap, strips

PlaceMap = npt.NDArray[np.uint16]
Lookup = npt.NDArray[np.bool_]

FRONT, NEAR, MID, ASSOCIATED, MARGIN, BED, BUFFER, DRAWN_OUT = (1 << bit for bit in range(8, 16))
"""Bits of a place above its class: see `find_compartments`."""

N_PLACES = 1 << 16

_IN_SITU_OR_NORMAL = re.compile(r"normal|benign|in.?situ|dcis|lcis", re.IGNORECASE)
"""Names of epithelium around which TILs are not counted (Salgado et al. 2015, item 3)."""


@dataclass(frozen=True)
class CompartmentRules:
    """Lengths and areas that draw regions and compartments: a run's settings ``objects``, and ``scores.field_um``."""

    field_um: float = 500.0
    min_region_um2: float = 2_500.0
    front_um: float = 50.0
    near_um: float = 50.0
    mid_um: float = 200.0
    associated_um: float = 32.0
    associated_opening_um: float = 2.0
    margin_um: float = 500.0
    bed_closing_um: float = 500.0
    bed_min_piece_mm2: float = 0.005
    bed_concavity: float = 0.07
    exclusion_buffer_um: float = 50.0


@dataclass(frozen=True)
class Drawn:
    """What a person drew over the network's regions: in level-0 pixels, unless said otherwise."""

    excluded: shapely.Geometry | None = None  # in no denominator
    bed: shapely.Geometry | None = None  # replaces the computed tumor bed


@dataclass(frozen=True)
class Compartment:
    """A condition on places."""

    name: str
    parts: tuple[str, ...]  # of `part_of_place`
    needs: int = 0  # bits that must be set
    lacks: int = 0  # bits that must not be set
    scored: bool = True  # whether it is a denominator

    def holds(self, taxonomy: Taxonomy) -> Lookup:
        """Tell for each of the 65,536 places whether it belongs."""
        places = np.arange(N_PLACES)
        bits = (places & self.needs == self.needs) & (places & self.lacks == 0)
        return np.isin(part_of_place(taxonomy), [PARTS.index(part) for part in self.parts]) & bits


PARTS = ("not_analysed", "background", "excluded", "other", "tumor", "stroma", "dense")
"""What a pixel counts as: its class's role, unless it is excluded."""

_STROMA = ("stroma", "dense")
_SCORED = ("tumor", *_STROMA)

COMPARTMENTS: tuple[Compartment, ...] = (
    Compartment("tissue", ("excluded", "other", *_SCORED), scored=False),
    Compartment("tumor", ("tumor",)),
    Compartment("tumor_front", ("tumor",), needs=FRONT),
    Compartment("tumor_core", ("tumor",), lacks=FRONT),
    Compartment("tumor_in_bed", ("tumor",), needs=BED),
    Compartment("stroma", _STROMA),
    Compartment("stroma_near", _STROMA, needs=NEAR),
    Compartment("stroma_mid", _STROMA, needs=MID),
    Compartment("stroma_far", _STROMA, lacks=NEAR | MID),
    Compartment("stroma_associated", _STROMA, needs=ASSOCIATED),
    Compartment("stroma_dense", ("dense",)),
    Compartment("stroma_in_bed", _STROMA, needs=BED),
    Compartment("stroma_outside_bed", _STROMA, lacks=BED),
    Compartment("bed_inside", _SCORED, needs=BED),
    Compartment("bed_outside", _SCORED, lacks=BED),
    Compartment("margin_inside", _SCORED, needs=MARGIN | BED),
    Compartment("margin_outside", _SCORED, needs=MARGIN, lacks=BED),
    Compartment("other", ("other",), scored=False),
    Compartment("excluded", ("excluded",), scored=False),
    Compartment("background", ("background",), scored=False),
    Compartment("not_analysed", ("not_analysed",), scored=False),
)

TILES_OF: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("tumor", ("tumor_front", "tumor_core")),
    ("stroma", ("stroma_near", "stroma_mid", "stroma_far")),
    ("stroma", ("stroma_in_bed", "stroma_outside_bed")),
    ("bed_inside", ("tumor_in_bed", "stroma_in_bed")),
    ("tissue", ("tumor", "stroma", "other", "excluded")),
    ("tissue", ("bed_inside", "bed_outside", "other", "excluded")),
)
"""Compartments, and others that make them up without overlap."""

PARTITION = (
    "tumor_front",
    "tumor_core",
    "stroma_near",
    "stroma_mid",
    "stroma_far",
    "other",
    "excluded",
    "background",
    "not_analysed",
)
"""Compartments of which every pixel has exactly one: what a nucleus's column ``compartment`` says."""


def part_of_place(taxonomy: Taxonomy) -> npt.NDArray[np.uint8]:
    """Tell for each of the 65,536 places which of `PARTS` it counts as.

    What a person excluded is excluded if it is tissue; the buffer around normal and in-situ epithelium takes stroma.
    """
    roles = np.zeros(256, np.uint8)
    for kind in taxonomy.regions:
        roles[kind.id] = PARTS.index(kind.role)
    places = np.arange(N_PLACES)
    part = roles[places & 255]
    drawn_out = (places & DRAWN_OUT > 0) & (part >= PARTS.index("excluded"))
    buffered = (places & BUFFER > 0) & np.isin(part, [PARTS.index(name) for name in _STROMA])
    part[drawn_out | buffered] = PARTS.index("excluded")
    return part


def partition_of_place(taxonomy: Taxonomy) -> npt.NDArray[np.uint8]:
    """Tell for each of the 65,536 places which of `PARTITION` it lies in."""
    by_name = {compartment.name: compartment for compartment in COMPARTMENTS}
    index = np.zeros(N_PLACES, np.uint8)
    for number, name in enumerate(PARTITION):
        index[by_name[name].holds(taxonomy)] = number
    return index


def buffered_classes(taxonomy: Taxonomy) -> tuple[int, ...]:
    """List the excluded classes that are normal or in-situ epithelium, by their names."""
    return tuple(c.id for c in taxonomy.regions if c.role == "excluded" and _IN_SITU_OR_NORMAL.search(c.name))


@dataclass(frozen=True)
class Compartments:
    """All compartments of a slide."""

    places: PlaceMap
    bed: shapely.Geometry  # in pixels of the map
    distance_um: npt.NDArray[np.float64]  # (N,) of the points asked for; see `find_compartments`


def find_compartments(
    classes: ClassMap,
    *,
    taxonomy: Taxonomy,
    mpp: float,
    rules: CompartmentRules,
    points: npt.NDArray[np.int64],
    drawn: Drawn,
) -> Compartments:
    """Draw every compartment of a slide.

    Parameters
    ----------
    classes : (Y, X) uint8
        Region classes, islands already joined.
    taxonomy : Taxonomy
        What the classes mean.
    mpp : float
        Micrometres per pixel.
    rules : CompartmentRules
        Lengths and areas.
    points : (N,) int
        Pixels, as indices into the flattened map, at which the distance to tumor is wanted; -1 gives NaN.
    drawn : Drawn
        What a person excluded, and the tumor bed if a person drew one; in pixels of the map.

    Returns
    -------
    Compartments
        A distance is counted to the border, half a pixel short of the next pixel's centre: outside tumor to the
        nearest tumor, inside it minus that to the nearest stroma (the interface; a lumen or the slide's edge is
        none). NaN where the slide has no tumor, or inside tumor without any stroma.

    Notes
    -----
    Tumor-associated stroma: Liu et al. 2024 (MuTILs), stroma within 32 um of tumor opened by a disc of 2 um; on the
    whole slide here, so no seam cuts it. Front and bands: reference histomics lattice, 50 and 200 um.
    """
    places = classes.astype(np.uint16)
    del classes  # a caller that gives its only reference gets the memory back
    if drawn.excluded is not None:
        _mark_inside(places, drawn.excluded, DRAWN_OUT)
    _mark_buffer(places, taxonomy, rules.exclusion_buffer_um / mpp)
    part = part_of_place(taxonomy)
    tumor, stroma = part == PARTS.index("tumor"), np.isin(part, [PARTS.index(name) for name in _STROMA])
    bed = drawn.bed
    if bed is None:
        bed = find_bed(
            tumor[places],
            mpp=mpp,
            closing_um=rules.bed_closing_um,
            min_piece_mm2=rules.bed_min_piece_mm2,
            concavity=rules.bed_concavity,
        )
    _mark_inside(places, bed, BED)
    _mark_margin(places, rules.margin_um / mpp)
    stroma = _as_without_buffer(stroma)
    _mark_associated(places, tumor, stroma, rules, mpp)
    _mark_bands(places, tumor, stroma, rules, mpp)
    return Compartments(places, bed, _distances(places, tumor, stroma, mpp, points))


def _as_without_buffer(lookup: Lookup) -> Lookup:
    """Look a place up as if it lay in no buffer: stroma that is no denominator still makes an interface with tumor."""
    return lookup[np.arange(N_PLACES) & ~BUFFER]


def _set(places: PlaceMap, rows: slice, where: npt.NDArray[np.bool_], bit: int) -> None:
    places[rows] |= where.astype(np.uint16) * np.uint16(bit)


def _mark_inside(places: PlaceMap, geometry: shapely.Geometry, bit: int) -> None:
    """Mark what lies inside a geometry."""
    for rows in strips(len(places), DISTANCE_ROWS):
        _set(places, rows, paint_rows(geometry, rows, places.shape[1]), bit)


def _mark_buffer(places: PlaceMap, taxonomy: Taxonomy, radius: float) -> None:
    """Exclude stroma next to normal and in-situ epithelium."""
    inner = np.zeros(256, bool)
    inner[list(buffered_classes(taxonomy))] = True
    if radius <= 0 or not inner.any():
        return
    part = part_of_place(taxonomy)
    stroma = np.isin(part, [PARTS.index(name) for name in _STROMA])
    for rows in strips(len(places), DISTANCE_ROWS):
        away = distance_px(lambda wanted: inner[places[wanted] & 255], rows, len(places), limit=radius + 1)
        _set(places, rows, (away - 0.5 <= radius) & stroma[places[rows]], BUFFER)


def _mark_margin(places: PlaceMap, radius: float) -> None:
    """Mark what lies near the border of the bed, on either side."""
    if radius <= 0:
        return
    for rows in strips(len(places), DISTANCE_ROWS):
        in_bed = places[rows] & BED > 0
        outward = distance_px(lambda wanted: places[wanted] & BED > 0, rows, len(places), limit=radius + 1)
        _set(places, rows, ~in_bed & (outward - 0.5 <= radius), MARGIN)
        del outward
        inward = distance_px(lambda wanted: places[wanted] & BED == 0, rows, len(places), limit=radius + 1)
        _set(places, rows, in_bed & (inward - 0.5 <= radius), MARGIN)


def _mark_associated(places: PlaceMap, tumor: Lookup, stroma: Lookup, rules: CompartmentRules, mpp: float) -> None:
    """Mark stroma near opened tumor."""
    radius, opening = rules.associated_um / mpp, round(rules.associated_opening_um / mpp)
    if rules.associated_opening_um > 0:
        opening = max(1, opening)
    disc = np.hypot(*np.mgrid[-opening : opening + 1, -opening : opening + 1]) <= opening

    def opened(wanted: slice) -> npt.NDArray[np.bool_]:
        # Erosion and dilation each look one disc away, so the rows beyond the wanted ones decide at their border.
        top, bottom = max(0, wanted.start - 2 * opening), min(len(places), wanted.stop + 2 * opening)
        mask = cv2.morphologyEx(tumor[places[top:bottom]].view(np.uint8), cv2.MORPH_OPEN, disc.view(np.uint8))
        return np.ascontiguousarray(mask[wanted.start - top : wanted.stop - top]).view(bool)

    for rows in strips(len(places), DISTANCE_ROWS):
        away = distance_px(opened, rows, len(places), limit=radius + 1)
        _set(places, rows, (away - 0.5 <= radius) & stroma[places[rows]], ASSOCIATED)


def _mark_bands(places: PlaceMap, tumor: Lookup, stroma: Lookup, rules: CompartmentRules, mpp: float) -> None:
    """Mark tumor front, near and mid stroma."""
    for rows in strips(len(places), DISTANCE_ROWS):
        is_tumor, is_stroma = tumor[places[rows]], stroma[places[rows]]
        away = distance_px(_mask_of(places, tumor), rows, len(places), limit=rules.mid_um / mpp + 1)
        near = away - 0.5 <= rules.near_um / mpp
        _set(places, rows, is_stroma & near, NEAR)
        _set(places, rows, is_stroma & ~near & (away - 0.5 <= rules.mid_um / mpp), MID)
        depth = distance_px(_mask_of(places, stroma), rows, len(places), limit=rules.front_um / mpp + 1)
        _set(places, rows, is_tumor & (depth - 0.5 <= rules.front_um / mpp), FRONT)


def _distances(
    places: PlaceMap, tumor: Lookup, stroma: Lookup, mpp: float, points: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Measure from points to the nearest tumor or, negative, from those in tumor to the nearest stroma."""
    distance = np.full(len(points), np.nan)
    known = np.flatnonzero(points >= 0)
    rows, columns = np.divmod(points[known], max(places.shape[1], 1))
    in_tumor = tumor[places[rows, columns]]
    for chosen, target, sign in ((~in_tumor, tumor, 1.0), (in_tumor, stroma, -1.0)):
        mask_of = _mask_of(places, target)
        found = nearest_px(mask_of, len(places), rows=rows[chosen], columns=columns[chosen])
        distance[known[chosen]] = np.where(np.isfinite(found), sign * (found - 0.5) * mpp, np.nan)
    return distance


def _mask_of(places: PlaceMap, lookup: Lookup) -> MaskOf:
    return lambda wanted: lookup[places[wanted]]
