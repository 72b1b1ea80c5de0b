"""BCSS: regions of breast carcinomas, drawn by pathologists and students (Amgad et al., Bioinformatics 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.files import (
    first_existing,
    list_files,
    named_mpp,
    partner,
    read_table,
    require_size,
    tcga_patient,
)
from pathopan.datasets.labels import BCSS_REGIONS, look_up, map_codes, region_ids
from pathopan.datasets.sample import Sample, Source, empty_nuclei, read_labels, read_rgb, require_folder

SOURCE = Source(
    name="BCSS",
    licence="CC0-1.0",
    citation="Amgad et al., Structured crowdsourcing enables convolutional segmentation of histology images, "
    "Bioinformatics 35:3461, 2019",
    organ="breast",
)
MPP = 0.25
CODES = {
    0: "outside_roi",
    1: "tumor",
    2: "stroma",
    3: "lymphocytic_infiltrate",
    4: "necrosis_or_debris",
    5: "glandular_secretions",
    6: "blood",
    7: "exclude",
    8: "metaplasia_NOS",
    9: "fat",
    10: "plasma_cells",
    11: "other_immune_infiltrate",
    12: "mucoid_material",
    13: "normal_acinus_or_duct",
    14: "lymphatics",
    15: "undetermined",
    16: "nerve",
    17: "skin_adnexa",
    18: "blood_vessel",
    19: "angioinvasion",
    20: "dcis",
    21: "other",
}


def read(root: Path, *, taxonomy: Taxonomy = BREAST) -> Iterator[Sample]:
    """Yield the regions of interest with their region maps; nuclei are unlabelled.

    Parameters
    ----------
    root : Path
        Folder with ``masks/NAME.png`` (one channel of codes) and the images under ``images/``, ``rgbs/`` or
        ``rgbs_colorNormalized/``, equal names. A code table ``*GTcodes.csv`` or ``meta/gtruth_codes.tsv`` is used where
        there is one. mpp is read from names that hold it (``MPP-0.2500``), else 0.25.
    taxonomy : Taxonomy
        Regions are found by name, then by role.

    Raises
    ------
    DatasetError
        If a folder is missing, or an image has no mask or of another size.
    UnknownLabel
        If a mask holds a code, or the table a group, that BCSS does not have.
    """
    require_folder(root, "masks")
    names = ("images", "rgbs", "rgbs_colorNormalized")
    folder = first_existing((root / name for name in names), what="the folder of images")
    ids = _code_ids(root, taxonomy)
    for path in list_files(folder, "*.png"):
        mask_path = partner(path, folder=root / "masks", suffix=".png")
        image, codes = read_rgb(path), read_labels(mask_path)
        require_size(codes, image, path=mask_path)
        yield Sample(
            sample_id=path.stem,
            image=image,
            mpp=named_mpp(path.name, otherwise=MPP),
            group=tcga_patient(path.name) or path.stem,
            source=SOURCE,
            nuclei=empty_nuclei(),
            region=map_codes(codes, ids, path=mask_path),
            labelled_nuclei=(),
        )


def _code_ids(root: Path, taxonomy: Taxonomy) -> dict[int, int]:
    """Translate codes to region ids, by the folder's own code table where it has one."""
    ids = region_ids(BCSS_REGIONS, taxonomy)
    for path, separator, label in (
        *((found, ",", "group") for found in sorted(root.glob("*GTcodes.csv"))),
        *((found, "\t", "label") for found in sorted((root / "meta").glob("gtruth_codes.tsv"))),
    ):
        table = read_table(path, columns=(label, "GT_code"), separator=separator)
        named = {
            int(code): look_up(str(name).removeprefix("mostly_"), ids, path=path)
            for name, code in zip(table[label], table["GT_code"], strict=True)
        }
        return {0: 0, **named}
    return {code: ids[name] for code, name in CODES.items()}
