"""The phantoms' table: what closed forms say, and what pathopan finds. ``PYTHONPATH=tests python -m phantom_table``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import shapely
from phantoms import RICH, STROMA, TIL, TILS, TUMOR, TUMOR_CELL, areas, disc_in_stroma, nuclei_at, radius_map

from pathopan.classes import BREAST
from pathopan.objects import CompartmentRules, Drawn, find_objects
from pathopan.scores import ScoreRules, score_regions, score_slide

SIDE, RADIUS = 3000.0, 700.0
RULES = CompartmentRules(min_region_um2=0, margin_um=200)


class Row(NamedTuple):
    """One line of the table."""

    phantom: str
    quantity: str
    expected: float
    got: float
    tolerance: float  # relative, or absolute where 0 is expected

    @property
    def fits(self) -> bool:
        """Whether the two agree."""
        return abs(self.got - self.expected) <= self.tolerance * (abs(self.expected) or 1)


def look(classes, nuclei=None, mpp=4.0, *, taxonomy=BREAST, drawn=None, rules=RULES):
    detections = nuclei_at([], TIL, taxonomy=taxonomy) if nuclei is None else nuclei
    scale = (mpp / 0.5, mpp / 0.5)
    return find_objects(classes, detections, taxonomy=taxonomy, mpp=mpp, scale_l0=scale, rules=rules, drawn=drawn)


def ring_mm2(inner: float, outer: float) -> float:
    """Area between two circles of these radii in um."""
    return float(np.pi * (outer**2 - inner**2) / 1e6)


def lattice(side_um: float, pitch_um: float) -> np.ndarray:
    steps = np.arange(pitch_um / 2, side_um, pitch_um)
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)


def rings() -> Iterator[Row]:
    """A disc of tumor in stroma: every band is a ring, and its border lies within half a pixel."""
    for mpp in (1.0, 2.0, 4.0):
        side = 2400.0 if mpp == 1.0 else SIDE
        found = areas(look(disc_in_stroma(side, RADIUS, mpp=mpp), mpp=mpp))
        name, r = f"disc of 700 um at {mpp:g} um/px", RADIUS
        expected = {
            "tumor": ring_mm2(0, r),
            "tumor_front": ring_mm2(r - 50, r),
            "tumor_core": ring_mm2(0, r - 50),
            "stroma": side**2 / 1e6 - ring_mm2(0, r),
            "stroma_near": ring_mm2(r, r + 50),
            "stroma_mid": ring_mm2(r + 50, r + 200),
            "stroma_associated": ring_mm2(r, r + 32),
            "bed_inside": ring_mm2(0, r),
            "margin_outside": ring_mm2(r, r + 200),
            "margin_inside": ring_mm2(r - 200, r),
        }
        width = {"front": 50, "near": 50, "mid": 150, "associated": 32}
        for part, area in expected.items():
            band = width.get(part.split("_")[-1], (r - 50) / 2)  # of a disc, area over length of border
            drawn_coarsely = "bed" in part or "margin" in part  # at 8 um/px
            tolerance = 0.02 if drawn_coarsely else 0.5 * mpp / band
            yield Row(name, f"{part}, mm2", area, found[part], tolerance)


def borders() -> Iterator[Row]:
    """A quarter of the disc, cut by two borders of the slide: bands go on to the border, and no further."""
    quarter = np.where(radius_map(1500, 2.0, (0.0, 0.0)) <= RADIUS, TUMOR, STROMA).astype(np.uint8)
    found = areas(look(quarter, mpp=2.0))
    for part, area in (("tumor", ring_mm2(0, 700)), ("stroma_near", ring_mm2(700, 750)),
                       ("stroma_mid", ring_mm2(750, 900)), ("tumor_front", ring_mm2(650, 700))):  # fmt: skip
        yield Row("quarter disc at the slide's corner", f"{part}, mm2", area / 4, found[part], 0.02)


def holes() -> Iterator[Row]:
    """A ring of tumor round stroma: the bed has no hole, so the stroma inside counts."""
    classes = disc_in_stroma(SIDE, 800, mpp=4.0)
    classes[radius_map(SIDE, 4.0) <= 400] = STROMA
    objects = look(classes, nuclei_at(lattice(SIDE, 20), TIL))
    score = score_slide(objects, slide_id="ring", rules=ScoreRules(bootstrap=100))
    head, name = score.headline, "ring of 400 to 800 um, a TIL each 20 um"
    yield Row(name, "stroma in bed, mm2", ring_mm2(0, 400), head["stil_area_mm2"], 0.03)
    yield Row(name, "sTIL density, 1/mm2", 2500, head["stil_density_per_mm2"], 0.02)
    yield Row(name, "sTIL, % (64 um2 each)", 16, head["stil_percent"], 0.02)
    yield Row(name, "iTIL density, 1/mm2", 2500, head["itil_per_mm2"], 0.02)
    yield Row(name, "sTIL over iTIL", 1, head["stil_itil_ratio"], 0.03)
    yield Row(name, "TIL nuclei of all compartments", 22_500, sum(
        score.compartments[part]["n_til"] for part in ("tumor", "stroma", "other", "excluded")), 0.0)  # fmt: skip
    area = 16 * 8 * np.sin(np.pi / 8)  # of a 16-gon of radius 4 um
    yield Row(name, "sTIL area fraction", 2500 * area / 1e6, head["stil_area_fraction"], 0.02)


def counts() -> Iterator[Row]:
    """Painted lymphocytes: one in four nuclei of a nest."""
    xy = lattice(SIDE, 20)
    nest = np.hypot(*(xy - SIDE / 2).T) < 600
    kinds = np.where(np.arange(nest.sum()) % 4, TUMOR_CELL, TIL)
    head = score_slide(look(disc_in_stroma(SIDE, RADIUS), nuclei_at(xy[nest], kinds)), slide_id="nest").headline
    yield Row(
        "nest with a TIL each 3 tumor cells",
        "iTIL per 100 tumor cells",
        100 / 3,
        head["itil_per_100_tumor_cells"],
        0.01,
    )
    yield Row(
        "nest with a TIL each 3 tumor cells", "TILs in the nest", int((kinds == TIL).sum()), head["itil_n_til"], 0.0
    )
    yield Row("nest with a TIL each 3 tumor cells", "sTILs", 0, head["stil_n_til"], 0.0)


def pieces() -> Iterator[Row]:
    """Regions: connected by 8 neighbours; what is too small joins what surrounds it."""
    classes = np.full((300, 300), STROMA, np.uint8)
    classes[50:100, 50:100] = classes[100:150, 100:150] = TUMOR  # touch at a corner
    classes[200:250, 200:250] = TUMOR
    classes[20:24, 20:24] = TUMOR  # 256 um2
    classes[200:250, 50:100] = TILS
    regions = score_regions(look(classes, rules=CompartmentRules(min_region_um2=2500)))
    tumor = regions[regions["class"] == "tumor"]
    yield Row("squares of 200 um, two touch at a corner", "tumor regions", 2, len(tumor), 0.0)
    yield Row("squares of 200 um, two touch at a corner", "the pair, mm2", 0.08, tumor["area_mm2"].max(), 1e-9)
    yield Row("an island of 256 um2, 2,500 um2 at least", "all regions", 4, len(regions), 0.0)
    outlines = float(regions.geometry.area.sum()) * 0.25 / 1e6
    yield Row("the same", "outlines over raster", 1, outlines / regions["area_mm2"].sum(), 1e-9)


def exclusions() -> Iterator[Row]:
    """Epithelium in situ with its buffer, and what a person draws."""
    dcis = RICH.region("dcis").id
    classes = np.where(radius_map(1200, 4.0) <= 200, dcis, STROMA).astype(np.uint8)
    found = areas(look(classes, taxonomy=RICH))
    yield Row("DCIS of 200 um in stroma, buffer 50 um", "excluded, mm2", ring_mm2(0, 250), found["excluded"], 0.02)
    drawn = Drawn(excluded=shapely.box(0, 0, 3000, 6000))
    found = areas(look(disc_in_stroma(SIDE, RADIUS), drawn=drawn))
    yield Row("half of the slide drawn out by a person", "tumor, mm2", ring_mm2(0, 700) / 2, found["tumor"], 0.01)
    yield Row("half of the slide drawn out by a person", "excluded, mm2", 4.5, found["excluded"], 1e-9)
    bed = Drawn(bed=shapely.box(0, 0, 6000, 3000))
    found = areas(look(disc_in_stroma(SIDE, RADIUS), drawn=bed))
    yield Row("a bed drawn by a person", "bed, mm2", 4.5, found["bed_inside"], 1e-9)


def table() -> list[Row]:
    """All phantoms."""
    return [row for make in (rings, borders, holes, counts, pieces, exclusions) for row in make()]


def as_text(rows: list[Row]) -> str:
    """Lay the table out for a terminal, or for a note in Markdown."""
    lines = ["| phantom | quantity | expected | got | off |", "|---|---|---:|---:|---:|"]
    for row in rows:
        off = f"{100 * (row.got / row.expected - 1):+.2f} %" if row.expected else f"{row.got:+g}"
        lines.append(f"| {row.phantom} | {row.quantity} | {row.expected:.6g} | {row.got:.6g} | {off} |")
    return "\n".join([*lines, "", f"{sum(row.fits for row in rows)} of {len(rows)} within tolerance"])


if __name__ == "__main__":
    sys.stdout.write(as_text(table()) + "\n")
