"""NuCLS: nuclei of breast carcinomas, some outlined and some boxed (Amgad et al., GigaScience 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import shapely
from shapely import affinity

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.files import first_existing, list_files, partner, read_table, tcga_patient
from pathopan.datasets.labels import NUCLS_NUCLEI, look_up, nucleus_ids
from pathopan.datasets.outlines import Nucleus, close_ring, crop_sample, paint_nuclei, read_ring
from pathopan.datasets.sample import Sample, Source, read_rgb, require_folder
from pathopan.errors import DatasetError

SOURCE = Source(
    name="NuCLS",
    licence="CC0-1.0",
    citation="Amgad et al., NuCLS: a scalable crowdsourcing approach and dataset for nucleus classification and "
    "segmentation in breast cancer, GigaScience 11, 2022",
    organ="breast",
)
MPP = 0.2
FOV_TABLE = "ALL_FOV_LOCATIONS.csv"
_BOUNDS = ("xmin", "ymin", "xmax", "ymax")


def read(
    root: Path, *, boxes: Literal["points", "ellipses"] = "points", taxonomy: Taxonomy = BREAST
) -> Iterator[Sample]:
    """Yield the fields of view with classified nuclei; regions are unlabelled.

    Parameters
    ----------
    root : Path
        Folder with ``rgb/`` (or ``rgbs/``) and ``csv/``, equal names. ``csv/ALL_FOV_LOCATIONS.csv``, where there is
        one, bounds the annotated area, to which images are cut.
    boxes : str
        What becomes of a nucleus that was boxed and not outlined. ``points``: its centre only, and no instance map for
        that field, since a map with gaps would teach background. ``ellipses``: the ellipse that the box encloses.
    taxonomy : Taxonomy
        Classes are found by name, then by role.

    Raises
    ------
    DatasetError
        If a folder is missing, an image has no table, or a table lacks a column or has text where numbers belong.
    UnknownLabel
        If a nucleus has a class that NuCLS does not have.
    """
    require_folder(root, "csv")
    folder = first_existing((root / "rgb", root / "rgbs"), what="the folder of images")
    fields = _fields(root / "csv")
    ids = nucleus_ids(NUCLS_NUCLEI, taxonomy)
    for path in list_files(folder, "*.png"):
        table_path = partner(path, folder=root / "csv", suffix=".csv")
        table = read_table(table_path, columns=("type", *_BOUNDS, "coords_x", "coords_y"))
        image = read_rgb(path)
        nuclei, instances = paint_nuclei(_nuclei(table, ids, boxes, table_path), shape=image.shape[:2])
        sample = Sample(
            sample_id=path.stem,
            image=image,
            mpp=MPP,
            group=tcga_patient(path.name) or path.stem,
            source=SOURCE,
            nuclei=nuclei,
            instances=instances,
            notes={"boxes": boxes},
        )
        yield crop_sample(sample, box=fields[path.stem]) if path.stem in fields else sample


def _fields(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Read the annotated area of each field of view."""
    path = folder / FOV_TABLE
    if not path.exists():
        return {}
    table = read_table(path, columns=("fovname", *_BOUNDS))
    fields = {}
    for name, *cells in table[["fovname", *_BOUNDS]].itertuples(index=False):
        x0, y0, x1, y1 = _numbers(cells, path)
        stem = Path(str(name)).stem if str(name).endswith(".png") else str(name)
        fields[stem] = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    return fields


def _nuclei(table: pd.DataFrame, ids: dict[str, int], boxes: str, path: Path) -> list[Nucleus]:
    column = "raw_classification" if "raw_classification" in table.columns else "group"
    if column not in table.columns:
        msg = f"{path}: lacks a column raw_classification or group; it has {list(table.columns)}"
        raise DatasetError(msg)
    found = []
    for label, kind, xs, ys, *box in table[[column, "type", "coords_x", "coords_y", *_BOUNDS]].itertuples(index=False):
        name = str(label).removeprefix("correction_")
        if name.startswith("fov"):
            continue
        drawn = kind == "polyline" and not pd.isna(xs)
        outline = close_ring(read_ring(str(xs), str(ys), path=path)) if drawn else None
        if outline is None:
            outline = _from_box(_numbers(box, path), boxes)
        found.append(Nucleus(outline, look_up(name, ids, path=path)))
    return found


def _numbers(cells: Sequence[float | str], path: Path) -> list[float]:
    """Read the four numbers of a box."""
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        msg = f"{path}: {', '.join(_BOUNDS)} must be numbers, found {', '.join(map(str, cells))}"
        raise DatasetError(msg)
    return numbers


def _from_box(box: Sequence[float], boxes: str) -> shapely.Polygon | shapely.Point:
    x0, y0, x1, y1 = box
    centre = shapely.Point((x0 + x1) / 2, (y0 + y1) / 2)
    if boxes == "points":
        return centre
    return affinity.scale(centre.buffer(1.0), (x1 - x0) / 2, (y1 - y0) / 2)
