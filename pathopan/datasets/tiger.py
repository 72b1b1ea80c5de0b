"""TIGER WSIROIS: regions, and lymphocytes with plasma cells, of breast carcinomas (Rijthoven et al.)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.files import list_files, partner, require_size, tcga_patient
from pathopan.datasets.labels import map_codes, resolve
from pathopan.datasets.sample import Sample, Source, empty_nuclei, read_labels, read_rgb, require_folder
from pathopan.errors import DatasetError, UnknownLabel

SOURCE = Source(
    name="TIGER",
    licence="CC-BY-NC-4.0",
    citation="van Rijthoven et al., TIGER: tumor-infiltrating lymphocytes in breast cancer, tiger.grand-challenge.org",
    organ="breast",
)
MPP = 0.5
REGIONS: dict[int, tuple[str, ...]] = {
    0: (),  # not annotated
    1: ("tumor",),
    2: ("stroma",),  # tumor-associated
    3: ("in-situ", "other"),
    4: ("normal", "other"),  # healthy glands
    5: ("necrosis", "other"),
    6: ("dense",),  # inflamed stroma
    7: ("other",),  # the rest: healthy stroma, fat, erythrocytes, skin
}
CELLS = "lymphocytes and plasma cells"


def read(root: Path, *, taxonomy: Taxonomy = BREAST) -> Iterator[Sample]:
    """Yield the annotated regions of interest; of the nuclei, only TILs are labelled, and in ``tissue-cells`` only.

    Parameters
    ----------
    root : Path
        ``wsirois`` or its ``roi-level-annotations``, with ``tissue-bcss/`` or ``tissue-cells/`` or both; each has
        ``images/NAME.png`` and ``masks/NAME.png``, and ``tissue-cells`` has ``tiger-coco.json``.
    taxonomy : Taxonomy
        Regions are found by name, then by role; TILs by role.

    Raises
    ------
    DatasetError
        If a folder or the JSON is missing or malformed, or an image has no mask or of another size.
    UnknownLabel
        If a mask holds a value above 7, or the JSON another category.
    """
    base = root / "roi-level-annotations" if (root / "roi-level-annotations").is_dir() else root
    present = [name for name in ("tissue-bcss", "tissue-cells") if (base / name).is_dir()]
    if not present:
        require_folder(base, "tissue-bcss", "tissue-cells")
    til_id = resolve(("til",), taxonomy.nuclei)
    ids = {code: resolve(wish, taxonomy.regions) for code, wish in REGIONS.items()}
    for name in present:
        require_folder(base / name, "images", "masks")
        boxes = read_boxes(base / name / "tiger-coco.json") if name == "tissue-cells" else {}
        for path in list_files(base / name / "images", "*.png"):
            mask_path = partner(path, folder=base / name / "masks", suffix=".png")
            image, codes = read_rgb(path), read_labels(mask_path)
            require_size(codes, image, path=mask_path)
            yield Sample(
                sample_id=f"{name}/{path.stem}",
                image=image,
                mpp=MPP,
                group=tcga_patient(path.name) or path.stem.split("_")[0],
                source=SOURCE,
                nuclei=_points(boxes.get(path.name, []), til_id),
                region=map_codes(codes, ids, path=mask_path),
                labelled_nuclei=(til_id,) if name == "tissue-cells" else (),
            )


def read_boxes(path: Path) -> dict[str, list[tuple[float, float, float, float]]]:
    """Read the boxes ``(x, y, width, height)`` of each image, keyed by file name.

    Raises
    ------
    DatasetError
        If the file is missing or not COCO's JSON.
    UnknownLabel
        If a box has another category than lymphocytes and plasma cells.
    """
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = {image["id"]: Path(image["file_name"]).name for image in stored["images"]}
        categories = {category["id"]: category["name"] for category in stored["categories"]}
        rows = [(names[a["image_id"]], categories[a["category_id"]], _box(a["bbox"])) for a in stored["annotations"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path}: expected COCO's images, categories and annotations, each with a bbox of four: {error!r}"
        raise DatasetError(msg) from error
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    for name, category, box in rows:
        if category != CELLS:
            msg = f"{path}: unknown category {category!r}; known: {CELLS!r}"
            raise UnknownLabel(msg)
        boxes.setdefault(name, []).append(box)
    return boxes


def _box(stored: Iterable[float]) -> tuple[float, float, float, float]:
    x, y, width, height = (float(number) for number in stored)
    return x, y, width, height


def _points(boxes: list[tuple[float, float, float, float]], class_id: int) -> pd.DataFrame:
    if not boxes:
        return empty_nuclei()
    table = np.array(boxes, dtype=np.float64)
    return pd.DataFrame(
        {
            "x_px": table[:, 0] + table[:, 2] / 2,
            "y_px": table[:, 1] + table[:, 3] / 2,
            "class_id": np.full(len(table), class_id, dtype=np.int64),
            "instance_id": np.zeros(len(table), dtype=np.int64),
        }
    )
