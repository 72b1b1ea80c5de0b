"""PanopTILs: regions and nuclei of breast carcinomas together (Liu et al., npj Breast Cancer 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.files import list_files, partner, read_channels, read_table, require_size, tcga_patient
from pathopan.datasets.labels import NUCLS_NUCLEI, Wishes, look_up, map_codes, nucleus_ids, region_ids
from pathopan.datasets.outlines import Nucleus, blank_sample, close_ring, crop_sample, paint_nuclei, read_ring
from pathopan.datasets.sample import Sample, Source, read_rgb, require_folder

SOURCE = Source(
    name="PanopTILs",
    licence="CC0-1.0",
    citation="Liu et al., A panoptic segmentation dataset and deep-learning approach for explainable scoring of "
    "tumor-infiltrating lymphocytes, npj Breast Cancer 10:52, 2024",
    organ="breast",
)
MPP = 0.3
"""Of both releases, though names (``MPP-0.2500``) and documentation say 0.25: a tile of 1,024 px spans 307 um of its
slide, see github.com/PathologyDataScience/MuTILs_Panoptic/issues/18. The Imaging Data Commons' converter of the set
(idc_annotation_conversion, ``RESAMPLED_SPACING``) found the same, and the set's authors agreed."""
REGIONS: dict[int, tuple[str, ...]] = {
    0: (),  # excluded
    1: ("tumor",),  # with DCIS, metaplasia and angioinvasion: the set does not tell them apart
    2: ("stroma",),
    3: ("dense",),
    4: ("normal", "other"),
    5: ("other",),  # necrosis, secretions, mucin and lymphatics in one
    6: ("blood", "other"),
    7: ("other",),
    8: ("background",),  # whitespace, with fat
}
NUCLEI: Wishes = {
    **NUCLS_NUCLEI,
    "CancerEpithelium": ("tumor",),
    "StromalCellNOS": ("stromal",),
    "ActiveStromalCellNOS": ("stromal",),
    "TILsCell": ("lymphocyte", "til"),
    "ActiveTILsCell": ("plasma_cell", "til"),
    "NormalEpithelium": ("normal_epithelium", "other"),
    "OtherCell": ("other",),
    "UnknownOrAmbiguousCell": (),
    "EXCLUDE": (),
    "BACKGROUND": (),
    "tumor_nonMitotic": ("tumor",),
    "tumor_mitotic": ("tumor",),
    "nonTILnonMQ_stromal": ("stromal",),
    "other_nucleus": ("other",),
    "AMBIGUOUS": (),
}
EXCLUDED_NUCLEI = 0
"""Nucleus code of pixels outside the field that was annotated; background inside it has a code of its own."""

Labels = Literal["raw_group", "group"]


def read(
    root: Path, *, labels: Labels = "raw_group", crop: bool = True, taxonomy: Taxonomy = BREAST
) -> Iterator[Sample]:
    """Yield the tiles with region maps, and nuclei with classes.

    A table's column ``type``, where there is one, tells outlines (``polyline``) from nuclei that were boxed or dotted
    only. Of the latter the middle counts, and a tile that has any has no instance map, since a map with gaps would
    teach background.

    Parameters
    ----------
    root : Path
        Either release: ``ManualNucleiManualRegions`` (``rgbs/ masks/ csv/``) or the bootstrap release (the same three
        folders, or a ``tcga/`` with them).
    labels : str
        Column that gives a nucleus its class. ``group`` is the release's final label; in the bootstrap release it was
        made to fit the region, so that a lymphocyte inside tumor became a cancer cell. ``raw_group`` is the label
        before that step, and the default, since intra-tumoral TILs would otherwise be taught away. ``notes`` tells how
        many nuclei of a tile the two labels disagree on.
    crop : bool
        Cut tiles to the field in which nuclei were annotated, where it is smaller than the tile. Pixels outside
        the field that the cut leaves, all of them without it, become blank glass.
    taxonomy : Taxonomy
        Classes are found by name, then by role.

    Raises
    ------
    DatasetError
        If a folder is missing, or a tile has no mask or table, or they do not fit.
    UnknownLabel
        If a mask or a table holds a label that PanopTILs does not have.
    """
    base = root / "tcga" if (root / "tcga").is_dir() else root
    require_folder(base, "rgbs", "masks", "csv")
    for path in list_files(base / "rgbs", "*.png"):
        mask_path = partner(path, folder=base / "masks", suffix=".png")
        table_path = partner(path, folder=base / "csv", suffix=".csv")
        image, mask = read_rgb(path), read_channels(mask_path, channels=3)
        require_size(mask, image, path=mask_path)
        table = read_table(table_path, columns=("coords_x", "coords_y", labels))
        kinds = nucleus_ids(NUCLEI, taxonomy)
        nuclei, instances = paint_nuclei(_nuclei(table, kinds, labels, table_path), shape=image.shape[:2])
        codes = region_ids({str(code): wish for code, wish in REGIONS.items()}, taxonomy)
        sample = Sample(
            sample_id=path.stem,
            image=image,
            mpp=MPP,
            group=tcga_patient(path.name) or path.stem,
            source=SOURCE,
            nuclei=nuclei,
            instances=instances,
            region=map_codes(mask[..., 0], {int(c): i for c, i in codes.items()}, path=mask_path),
            notes={"nucleus labels": labels, "relabelled nuclei": str(count_relabelled(table, kinds))},
        )
        yield _field(sample, mask[..., 1] != EXCLUDED_NUCLEI, crop=crop)


def _nuclei(table: pd.DataFrame, ids: dict[str, int], labels: str, path: Path) -> list[Nucleus]:
    found = []
    typed = table.assign(type=table.get("type", "polyline"))
    for label, kind, xs, ys in typed[[labels, "type", "coords_x", "coords_y"]].itertuples(index=False):
        name = str(label).removeprefix("correction_")
        if name.startswith("fov") or (pd.isna(xs) and pd.isna(ys)):
            continue
        found.append(Nucleus(_shape(kind, read_ring(str(xs), str(ys), path=path)), look_up(name, ids, path=path)))
    return found


def _shape(kind: str, ring: list[tuple[float, float]]) -> shapely.Polygon | shapely.Point:
    """Close an outline that a person drew; of anything else take the middle of its extent."""
    outline = close_ring(ring) if kind == "polyline" else None
    return shapely.Point((np.min(ring, axis=0) + np.max(ring, axis=0)) / 2) if outline is None else outline


def count_relabelled(table: pd.DataFrame, ids: Mapping[str, int]) -> int:
    """Count the nuclei of a tile's table whose ``group`` is of another class than their ``raw_group``; 0 without both.

    In the bootstrap release these are nuclei whose class was made to fit the region that they lie in.
    """
    if not {"raw_group", "group"} <= set(table.columns):
        return 0
    named = [[ids.get(str(v).removeprefix("correction_"), 0) for v in table[name]] for name in ("raw_group", "group")]
    return sum(before != after for before, after in zip(*named, strict=True))


def _field(sample: Sample, annotated: npt.NDArray[np.bool_], *, crop: bool) -> Sample:
    """Blank the pixels in which nuclei were not annotated, and cut to the others; leave the tile if there are none."""
    if not annotated.any():
        return sample
    blanked = blank_sample(sample, known=annotated)
    rows, columns = (np.flatnonzero(annotated.any(axis=axis)).tolist() for axis in (1, 0))
    return crop_sample(blanked, box=(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)) if crop else blanked
