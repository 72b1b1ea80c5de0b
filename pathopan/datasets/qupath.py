"""Your own annotations: QuPath GeoJSON over slides or images."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry import shape as to_shape

from pathopan.classes import BREAST, NucleusClass, RegionClass, Taxonomy
from pathopan.contours import paint
from pathopan.datasets.files import read_table, tcga_patient
from pathopan.datasets.outlines import Nucleus, blank_sample, paint_nuclei
from pathopan.datasets.sample import Sample, Source, require_folder
from pathopan.errors import DatasetError, UnknownLabel
from pathopan.geometry import Window
from pathopan.slide import Slide, open_slide

SOURCE = Source(
    name="QuPath",
    licence="not stated",
    citation="own annotations",
    organ="breast",
)
ROI_NAMES = frozenset({"roi", "region", "region*"})
"""Classes or names, in lower case, of annotations that bound what was annotated; the star is QuPath's own."""
MAX_PIXELS = 50_000_000
"""A sample is held in memory: larger slides need ROI annotations."""
PATIENTS = "patients.csv"
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".btf", ".qptiff"}
    | {".svs", ".svslide", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".dcm", ".czi"}
)
"""Endings, in lower case, that ``patients.csv`` may add to the name of a slide."""


@dataclass(frozen=True)
class Objects:
    """What a slide's GeoJSON holds, in level-0 pixels: name and shape of each object."""

    rois: tuple[shapely.Geometry, ...]
    regions: tuple[tuple[str, shapely.Geometry], ...]
    nuclei: tuple[tuple[str, shapely.Geometry], ...]


def read(
    root: Path,
    *,
    mpp: float = 0.5,
    slide_mpp: float | None = None,
    names: Mapping[str, str] | None = None,
    source: Source = SOURCE,
    taxonomy: Taxonomy = BREAST,
) -> Iterator[Sample]:
    """Yield one sample per ROI annotation, or per image where there is none.

    Annotations are regions, detections and cells and points are nuclei; what is inside an ROI and not annotated is
    unlabelled. Where annotations overlap, the smaller one is on top. Nuclei count as annotated if the slide has any. A
    sample is the rectangle around its ROI; what of it lies outside the ROI is blank glass, and nuclei that reach out
    are cut.

    Parameters
    ----------
    root : Path
        Folder with ``NAME.geojson`` or ``.geojson.gz`` (also ``NAME.regions.geojson`` with ``NAME.nuclei.geojson.gz``)
        beside the slide or image ``NAME.*``. ``patients.csv`` (slide, patient), where there is one, names the groups:
        a row for each slide, by ``NAME`` or its file's name.
    mpp : float
        Micrometres per pixel at which samples are read.
    slide_mpp : float, optional
        Of level 0, for images that do not say.
    names : mapping of str to str, optional
        Your class name -> name of a class of the taxonomy; "" is unlabelled. Without an entry, a name must be a
        class's own or its QuPath name.
    source : Source
        Licence and citation of your annotations.
    taxonomy : Taxonomy
        The classes.

    Raises
    ------
    DatasetError
        If a file is missing or malformed, a slide has no row in ``patients.csv``, or an image is too large and has no
        ROI.
    UnknownLabel
        If a class is not of the taxonomy.
    SlideError
        If a slide cannot be read at the mpp.
    """
    require_folder(root)
    annotated = _annotated(root)
    groups = _groups(root / PATIENTS, annotated)
    for name, paths in annotated.items():
        objects = [read_objects(path) for path in paths]
        merged = Objects(
            *(tuple(o for part in objects for o in getattr(part, f)) for f in ("rois", "regions", "nuclei"))
        )
        reader = _Reader(name, paths[0], merged, names or {}, taxonomy)
        with open_slide(_slide_path(paths[0], name), slide_id=name, slide_mpp=slide_mpp) as slide:
            for sample_id, roi in _rois(merged, slide, mpp, paths[0]):
                yield reader.sample(slide, roi, mpp=mpp, sample_id=sample_id, group=groups[name], source=source)


@dataclass(frozen=True)
class _Reader:
    name: str
    path: Path
    objects: Objects
    names: Mapping[str, str]
    taxonomy: Taxonomy

    def sample(
        self, slide: Slide, roi: shapely.Geometry, *, mpp: float, sample_id: str, group: str, source: Source
    ) -> Sample:
        scale = slide.info.scale_l0(mpp)
        corner_l0 = roi.bounds[:2]
        x, y = (int(np.floor(c / s)) for c, s in zip(corner_l0, scale, strict=True))
        width, height = (
            int(np.ceil(c / s - 1e-6)) - start for c, s, start in zip(roi.bounds[2:], scale, (x, y), strict=True)
        )
        matrix = [1 / scale[0], 0, 0, 1 / scale[1], -x, -y]

        def moved(shape: shapely.Geometry) -> shapely.Geometry:
            return affinity.affine_transform(shape, matrix)

        image = slide.read(Window(x, y, width, height), mpp)
        areas = [(moved(s), self._class_id(n, self.taxonomy.regions)) for n, s in self.objects.regions]
        inside = paint([(moved(roi), 1)], shape=(height, width))
        region = paint(sorted(areas, key=lambda a: a[0].area), shape=(height, width)) * inside
        nuclei, instances = paint_nuclei(
            [
                Nucleus(moved(s), self._class_id(n, self.taxonomy.nuclei))
                for n, s in self.objects.nuclei
                if roi.intersects(s)
            ],
            shape=(height, width),
        )
        sample = Sample(
            sample_id=sample_id,
            image=image,
            mpp=mpp,
            group=group,
            source=source,
            nuclei=nuclei,
            instances=instances if len(nuclei) else None,
            region=region.astype(np.uint8) if areas else None,
            labelled_nuclei=None if self.objects.nuclei else (),
        )
        reached = moved(roi).buffer(0.5, join_style="mitre")  # a pixel that the ROI's border crosses stays
        return blank_sample(sample, known=paint([(reached, 1)], shape=(height, width)) > 0)

    def _class_id(self, name: str, classes: Sequence[RegionClass] | Sequence[NucleusClass]) -> int:
        wanted = self.names.get(name, name)
        if wanted == "":
            return 0
        for candidate in classes:
            if wanted.lower() in (candidate.name.lower(), candidate.qupath.lower()):
                return candidate.id
        known = ", ".join(sorted({c.name for c in classes} | {c.qupath for c in classes}))
        msg = f"{self.path}: class {name!r} is none of {known}; give its meaning with names={{{name!r}: ...}}"
        raise UnknownLabel(msg)


def read_objects(path: Path) -> Objects:
    """Read a GeoJSON file.

    Raises
    ------
    DatasetError
        If it is missing, damaged or not GeoJSON.
    """
    try:
        raw = path.read_bytes()
        stored: Any = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
        features = stored["features"] if isinstance(stored, dict) else stored
        objects = [_read_feature(feature) for feature in features]
    except (EOFError, zlib.error) as error:
        msg = f"{path}: the compressed file is damaged or cut short; export it again: {error}"
        raise DatasetError(msg) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        msg = f"{path}: expected a GeoJSON FeatureCollection as QuPath exports it: {error!r}"
        raise DatasetError(msg) from error
    return Objects(
        rois=tuple(s for kind, name, s in objects if kind == "annotation" and name.lower() in ROI_NAMES),
        regions=tuple((n, s) for kind, n, s in objects if kind == "annotation" and n.lower() not in ROI_NAMES),
        nuclei=tuple((n, part) for kind, n, s in objects if kind == "nucleus" for part in _nuclei_parts(s)),
    )


def _read_feature(feature: Mapping[str, Any]) -> tuple[str, str, shapely.Geometry]:
    """Give a feature's kind, its class name (else its own name) and its valid shape."""
    properties = feature.get("properties") or {}
    classification = properties.get("classification") or {}
    if isinstance(classification, str):
        classification = {"name": classification}
    name = classification.get("name") or ": ".join(classification.get("names", ())) or properties.get("name") or ""
    shape = shapely.make_valid(to_shape(feature.get("nucleusGeometry") or feature["geometry"]))
    dotted = shape.geom_type in ("Point", "MultiPoint")
    detected = properties.get("objectType", properties.get("object_type")) in ("detection", "cell")
    return "nucleus" if dotted or detected else "annotation", name, shape


def _nuclei_parts(shape: shapely.Geometry) -> list[shapely.Geometry]:
    """Split a set of points; an outline stays one nucleus."""
    return list(shapely.get_parts(shape)) if shape.geom_type == "MultiPoint" else [shape]


def _annotated(root: Path) -> dict[str, list[Path]]:
    """Find the GeoJSON files of each slide."""
    found: dict[str, list[Path]] = {}
    for path in sorted([*root.glob("*.geojson"), *root.glob("*.geojson.gz")]):
        name = path.name.removesuffix(".gz").removesuffix(".geojson")
        found.setdefault(name.removesuffix(".regions").removesuffix(".nuclei"), []).append(path)
    if not found:
        msg = f"{root}: holds no *.geojson or *.geojson.gz"
        raise DatasetError(msg)
    return found


def _slide_path(annotation: Path, name: str) -> Path:
    for path in sorted(annotation.parent.glob(f"{name}.*")):
        if path.suffix not in (".geojson", ".gz", ".json", ".csv"):
            return path
    msg = f"{annotation}: has no slide or image {name}.* beside it"
    raise DatasetError(msg)


def _rois(objects: Objects, slide: Slide, mpp: float, path: Path) -> list[tuple[str, shapely.Geometry]]:
    name = slide.info.slide_id
    if objects.rois:
        return [(f"{name}_{index}", roi) for index, roi in enumerate(objects.rois)]
    width, height = slide.info.size_px(mpp)
    if width * height > MAX_PIXELS:
        msg = f"{path}: the slide has {width} x {height} pixels at {mpp} um/px; draw annotations of class ROI"
        raise DatasetError(msg)
    return [(name, shapely.box(0, 0, *slide.info.size_l0))]


def _groups(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Name the patient of each slide: by the table where there is one, else by barcode, else each slide is its own."""
    if not path.exists():
        return {name: tcga_patient(name) or name for name in names}
    table = read_table(path, columns=("slide", "patient"), as_written=True)
    patients = {_bare(slide): patient.strip() for slide, patient in zip(table["slide"], table["patient"], strict=True)}
    groups = {name: patients.get(_bare(name), "") for name in names}
    missing = [name for name, patient in groups.items() if not patient]
    if missing:
        msg = f"{path}: names no patient for the slide {', '.join(missing)}; add a row 'slide,patient' for each"
        raise DatasetError(msg)
    return groups


def _bare(name: str) -> str:
    """Take the ending of an image file off a slide's name, which may hold other dots."""
    name = name.strip()
    ending = Path(name).suffix
    return name.removesuffix(ending).removesuffix(".ome") if ending.lower() in IMAGE_SUFFIXES else name
