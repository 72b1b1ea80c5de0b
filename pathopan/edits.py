"""Regions that a pathologist edited in QuPath: kept beside the slide's results, and burned over the network's map.

The file ``regions.edited.geojson`` in a slide's folder *is* the edit: while it lies there, every scoring of the slide
uses it, also one by a later ``pathopan run``. The network's own map in ``panoptic.ome.zarr`` is never changed.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import shapely

from pathopan.classes import UNANALYSED, Taxonomy
from pathopan.errors import ConfigError, ResultError
from pathopan.export.annotations import EDITED_REGIONS, match_region_classes, read_regions_geojson
from pathopan.export.geojson import object_uuid
from pathopan.files import atomic_path
from pathopan.objects import Annotation, Drawn, burn_annotations, find_regions
from pathopan.objects.drawn import BED_NAMES, EXCLUDE_NAMES
from pathopan.record import SlideRecord, command_line, now
from pathopan.result import Result
from pathopan.written import set_aside, settle

SET_ASIDE = "regions.set-aside.geojson"
"""Where an edit lies after a return to the network's regions; give it to ``--regions`` to have it back."""

IGNORED = "ignore*"
"""QuPath's class for what shall not be looked at: an exclusion, unless the taxonomy has such a tissue class."""

ClassMap = npt.NDArray[np.uint8]

_NOT_DRAWN = 255


@dataclass(frozen=True)
class Edit:
    """What a person drew, in level-0 pixels."""

    annotations: tuple[Annotation, ...]
    sha256: str  # of the file

    @property
    def replaces(self) -> bool:
        """Tell whether it holds regions, which then stand for all of the network's; else it only lies over them."""
        return any(a.name not in (*EXCLUDE_NAMES, *BED_NAMES) for a in self.annotations)

    @property
    def counts(self) -> dict[str, int]:
        """Count annotations by what they are called."""
        return dict(sorted(Counter(a.name for a in self.annotations).items()))


class EditedMap(NamedTuple):
    """A region map with an edit in it."""

    classes: ClassMap  # (Y, X)
    drawn: Drawn
    unscored_px: int  # analysed tissue that no region of the file covers


def read_edit(path: Path, taxonomy: Taxonomy) -> Edit:
    """Read annotations that QuPath exported.

    Parameters
    ----------
    path : Path
        GeoJSON, plain or ``.gz``. Detections in it, such as nuclei, are left out.
    taxonomy : Taxonomy
        Classes are found by QuPath's names or their own, in any case. An annotation whose class or name is *Exclude*,
        or whose class is QuPath's ``Ignore*``, is in no denominator; one whose class or name is *Tumor bed* replaces
        the computed bed, together with others of that name.

    Raises
    ------
    ConfigError
        If the file cannot be read, holds no annotation, or one without a class that the taxonomy knows.
    """
    drawn = read_regions_geojson(path)
    drawn = drawn[drawn["object_type"] == "annotation"]
    if drawn.empty:
        msg = f"{path}: holds no annotation that encloses anything; in QuPath select all annotations and export again"
        raise ConfigError(msg)
    special = [_special_name(row, taxonomy) for _, row in drawn.iterrows()]
    try:
        regions = match_region_classes(drawn[[not name for name in special]], taxonomy)
    except ConfigError as error:
        msg = f"{path}: {error}"
        raise ConfigError(msg) from error
    annotations = [Annotation(shape, name) for shape, name in zip(drawn.geometry, special, strict=True) if name]
    annotations += [Annotation(shape, name) for shape, name in zip(regions.geometry, regions["class"], strict=True)]
    return Edit(tuple(annotations), _sha256(path.read_bytes()))


def _special_name(row: Any, taxonomy: Taxonomy) -> str:
    """Give the name of an exclusion or a bed, and nothing for a region."""
    called = {str(row["class"]).strip().lower(), str(row["name"]).strip().lower()}
    if called & set(BED_NAMES):
        return BED_NAMES[0]
    is_tissue = any(c.qupath.lower() == IGNORED for c in taxonomy.regions if c.role != "background")
    if called & set(EXCLUDE_NAMES) or (str(row["class"]).strip().lower() == IGNORED and not is_tissue):
        return EXCLUDE_NAMES[0]
    return ""


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def find_edited_slide(path: Path, result: Result) -> str:
    """Find the slide that a file of edited regions belongs to: by the objects' ids, else by the file's name.

    Parameters
    ----------
    path : Path
        GeoJSON that QuPath exported; ids of regions that came from a run survive that.
    result : Result
        The run.

    Raises
    ------
    ConfigError
        If the file says nothing of its slide, or of several.
    """
    known = result.regions[["slide_id", "region_id"]]
    ids = set(read_regions_geojson(path)["uuid"])
    pairs = zip(known["slide_id"], known["region_id"], strict=True)
    found = {str(slide) for slide, number in pairs if object_uuid(str(slide), "region", int(number)) in ids}
    found = found or {name for name in result.slide_ids if path.name.startswith(f"{name}.")}
    found = found or (set(result.slide_ids) if len(result) == 1 else set())
    if len(found) == 1:
        return found.pop()
    belongs = f"holds regions of {', '.join(sorted(found))}" if found else "does not tell its slide"
    msg = f"{path}: {belongs}; name the slide with --slide, one of {', '.join(result.slide_ids)}"
    raise ConfigError(msg)


def keep_edit(path: Path, folder: Path, record: SlideRecord, *, taxonomy: Taxonomy) -> None:
    """Copy a file of edited regions into a slide's folder, in place of an earlier one, and note it in the record.

    Raises
    ------
    ConfigError
        If the file cannot be used, or none of it lies on the slide.
    """
    edit, size = read_edit(path, taxonomy), record.entries["slide"]["size_l0"]
    if not any(a.geometry.intersects(shapely.box(0, 0, *size)) for a in edit.annotations):
        msg = f"{path}: nothing in it lies on slide {folder.name}, which has {size[0]} x {size[1]} pixels"
        raise ConfigError(msg)
    raw = path.read_bytes()
    record.claim(folder / EDITED_REGIONS)
    with atomic_path(folder / EDITED_REGIONS) as temporary:
        temporary.write_bytes(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    note = {"file": str(path.resolve()), "sha256": edit.sha256, "time": now(), "command": command_line()}
    record.entries["regions_edited"] = {**note, "annotations": edit.counts, "size_l0": size}
    record.entries.setdefault("region_edits", []).append({"done": "edited", **note})
    settle(folder, record.entries["written"])
    record.write()


def set_edit_aside(folder: Path, record: SlideRecord) -> None:
    """Return a slide to the network's regions; the edit stays as ``regions.set-aside.geojson``."""
    if (folder / EDITED_REGIONS).is_file():
        if (folder / SET_ASIDE).exists():
            set_aside(folder / SET_ASIDE)
        (folder / EDITED_REGIONS).replace(folder / SET_ASIDE)
    record.entries.pop("regions_edited", None)
    done = {"done": "returned to the network's regions", "time": now(), "command": command_line()}
    record.entries.setdefault("region_edits", []).append(done)
    record.write()


def is_edited(folder: Path, record: SlideRecord) -> bool:
    """Tell whether a person's regions are in force.

    Raises
    ------
    ResultError
        If the record says so and the file is gone, or it was drawn on another slide: an edit never vanishes quietly.
    """
    note, path = record.entries.get("regions_edited"), folder / EDITED_REGIONS
    remedy = "give it again with `pathopan score --regions`, or return to the network's regions with `--original`"
    if note and not path.is_file():
        msg = f"{path} is missing, and record.json says that these regions were edited; {remedy}"
        raise ResultError(msg)
    size = record.entries.get("slide", {}).get("size_l0")
    if note and size is not None and note.get("size_l0", size) != size:
        msg = f"{path} was drawn on a slide of {note['size_l0']} pixels, and this one has {size}; {remedy}"
        raise ResultError(msg)
    return path.is_file()


def edit_print(folder: Path, record: SlideRecord) -> str:
    """Sum up a slide's edit, as part of what its scores depend on; empty without one."""
    return _sha256((folder / EDITED_REGIONS).read_bytes()) if is_edited(folder, record) else ""


def load_edit(folder: Path, record: SlideRecord, *, taxonomy: Taxonomy) -> Edit | None:
    """Read the edit that is in force for a slide, if there is one."""
    return read_edit(folder / EDITED_REGIONS, taxonomy) if is_edited(folder, record) else None


def edit_map(
    classes: ClassMap,
    edit: Edit,
    *,
    taxonomy: Taxonomy,
    mpp: float,
    scale_l0: tuple[float, float],
    min_region_um2: float,
) -> EditedMap:
    """Put a person's regions in place of the network's.

    Parameters
    ----------
    classes : (Y, X) uint8
        The network's map.
    edit : Edit
        What a person drew.
    taxonomy : Taxonomy
        What the classes mean.
    mpp : float
        Micrometres per pixel of the map.
    scale_l0 : (float, float)
        Level-0 pixels per pixel of the map, along x and y.
    min_region_um2 : float
        Smaller pieces of tissue that no region covers, such as the gap beside a moved border, join what surrounds
        them. What a person drew stays as drawn, however small.

    Returns
    -------
    EditedMap
        Within what was analysed. Tissue that no region of the file covers is of the taxonomy's class for *other*
        tissue: a deleted region is in no denominator. Background stays, unless a region covers it.

    Raises
    ------
    ConfigError
        If the taxonomy has no class for tissue in no denominator, and the edit replaces the network's regions.
    """
    if not edit.replaces:
        burned = burn_annotations(classes, edit.annotations, taxonomy=taxonomy, scale_l0=scale_l0)
        return EditedMap(burned.classes, burned.drawn, 0)
    # QuPath was shown the map after the island filter, so this is what the person edited.
    shown = find_regions(classes, taxonomy=taxonomy, mpp=mpp, min_region_um2=min_region_um2).classes()
    nothing, analysed = _unscored_class(taxonomy), shown != UNANALYSED
    shown[analysed & ~np.isin(shown, taxonomy.region_ids("background"))] = nothing
    blank = np.full(shown.shape, _NOT_DRAWN, np.uint8)
    painted, drawn = burn_annotations(blank, edit.annotations, taxonomy=taxonomy, scale_l0=scale_l0)
    covered = analysed & (painted != _NOT_DRAWN)
    shown[covered] = painted[covered]
    settled = find_regions(shown, taxonomy=taxonomy, mpp=mpp, min_region_um2=min_region_um2).classes()
    settled[covered] = painted[covered]
    return EditedMap(settled, drawn, int((~covered & (settled == nothing)).sum()))


def _unscored_class(taxonomy: Taxonomy) -> int:
    found = (*taxonomy.region_ids("other"), *taxonomy.region_ids("excluded"))
    if found:
        return found[0]
    msg = f"taxonomy {taxonomy.name!r} has no class for tissue that is not scored, so its regions cannot be edited"
    raise ConfigError(msg)
