"""MoNuSeg and MoNuSAC: nuclei of several organs outlined in ImageScope XML (Kumar et al. 2020; Verma et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import shapely

from pathopan.classes import BREAST, Taxonomy
from pathopan.datasets.files import first_existing, list_files, read_picture, tcga_patient
from pathopan.datasets.labels import Wishes, look_up, nucleus_ids
from pathopan.datasets.outlines import Nucleus, close_ring, paint_nuclei
from pathopan.datasets.sample import Sample, Source, require_folder
from pathopan.errors import DatasetError

MONUSEG = Source(
    name="MoNuSeg",
    licence="CC-BY-NC-SA-4.0",
    citation="Kumar et al., A Multi-Organ Nucleus Segmentation Challenge, IEEE TMI 39:1380, 2020",
    organ="mixed",
)
MONUSAC = Source(
    name="MoNuSAC",
    licence="CC-BY-NC-SA-4.0",
    citation="Verma et al., MoNuSAC2020, IEEE TMI 40:3413, 2021",
    organ="mixed",
)
MPP = 0.25
CLASSES: Wishes = {
    "Epithelial": ("tumor",),  # healthy and malignant alike
    "Lymphocyte": ("lymphocyte", "til"),
    "Macrophage": ("macrophage", "stromal"),
    "Neutrophil": ("granulocyte", "other"),
    "Ambiguous": (),
}


def read(root: Path) -> Iterator[Sample]:
    """Yield MoNuSeg's tiles with outlines; classes and regions are unlabelled.

    Parameters
    ----------
    root : Path
        Either ``Tissue Images/NAME.tif`` (or ``Tissue images``) and ``Annotations/NAME.xml`` (training data), or both
        in one folder (test).

    Raises
    ------
    DatasetError
        If there are no annotations, one is malformed, or one has no image.
    """
    require_folder(root)
    folder = root / "Annotations" if (root / "Annotations").is_dir() else root
    for path in list_files(folder, "*.xml"):
        beside = (root / name / f"{path.stem}.tif" for name in ("Tissue Images", "Tissue images"))
        places = (*beside, path.with_suffix(".tif"))
        image = read_picture(first_existing(places, what=f"the image of {path}"))
        nuclei, instances = paint_nuclei([Nucleus(ring, 0) for _, ring in read_regions(path)], shape=image.shape[:2])
        yield Sample(
            sample_id=path.stem,
            image=image,
            mpp=MPP,
            group=tcga_patient(path.name) or path.stem,
            source=MONUSEG,
            nuclei=nuclei,
            instances=instances,
        )


def read_monusac(root: Path, *, taxonomy: Taxonomy = BREAST) -> Iterator[Sample]:
    """Yield MoNuSAC's sub-images with outlines and classes; stromal nuclei and regions are unlabelled.

    Only epithelial cells, lymphocytes, macrophages and neutrophils were annotated.

    Parameters
    ----------
    root : Path
        Folder with one folder a patient, each with ``NAME.xml`` beside ``NAME.tif`` or ``NAME.svs``.
    taxonomy : Taxonomy
        Classes are found by name, then by role.

    Raises
    ------
    DatasetError
        If there are no annotations, one is malformed, or one has no image.
    UnknownLabel
        If an annotation has a name that MoNuSAC does not have.
    """
    require_folder(root)
    ids = nucleus_ids(CLASSES, taxonomy)
    complete = {ids[name] for name in ("Epithelial", "Lymphocyte")} - {0}
    for path in list_files(root, "*/*.xml"):
        places = (path.with_suffix(".tif"), path.with_suffix(".svs"))
        image = read_picture(first_existing(places, what=f"the image of {path}"))
        outlined = [Nucleus(ring, look_up(name, ids, path=path)) for name, ring in read_regions(path)]
        nuclei, instances = paint_nuclei(outlined, shape=image.shape[:2])
        yield Sample(
            sample_id=path.stem,
            image=image,
            mpp=MPP,
            group=tcga_patient(path.parent.name) or path.parent.name,
            source=MONUSAC,
            nuclei=nuclei,
            instances=instances,
            labelled_nuclei=tuple(sorted(complete)),
        )


def read_regions(path: Path) -> Iterator[tuple[str, shapely.Polygon]]:
    """Yield the name of each annotation layer and an outline in it, once per outline that encloses anything.

    Raises
    ------
    DatasetError
        If the file is missing or no ImageScope XML, or a vertex has no numbers.
    """
    try:
        layers = ElementTree.parse(path).getroot().findall("Annotation")
    except (OSError, ElementTree.ParseError) as error:
        msg = f"{path}: cannot be read as ImageScope XML: {error}"
        raise DatasetError(msg) from error
    for layer in layers:
        named = layer.find("Attributes/Attribute")
        name = "" if named is None else named.get("Name", "")
        for region in layer.findall("Regions/Region"):
            outline = close_ring(_vertices(region, path))
            if outline is not None:
                yield name, outline


def _vertices(region: ElementTree.Element, path: Path) -> list[tuple[float, float]]:
    try:
        points = [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.findall("Vertices/Vertex")]
    except (ValueError, KeyError) as error:
        msg = f"{path}: every Vertex must have numbers X and Y: {error!r}"
        raise DatasetError(msg) from error
    if not np.isfinite(points).all():
        msg = f"{path}: every Vertex must have finite X and Y, found {points}"
        raise DatasetError(msg)
    return points
