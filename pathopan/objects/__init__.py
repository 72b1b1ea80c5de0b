"""Merged maps become tables: regions, nuclei and the compartments that hold them."""

from pathopan.objects.compartments import (
    COMPARTMENTS,
    PARTITION,
    TILES_OF,
    Compartment,
    CompartmentRules,
    Drawn,
    find_compartments,
)
from pathopan.objects.drawn import Annotation, burn_annotations
from pathopan.objects.features import morphology
from pathopan.objects.outlines import region_outlines
from pathopan.objects.regions import find_regions, regions_table
from pathopan.objects.slide_objects import SlideObjects, find_objects, measure_nuclei

__all__ = [
    "COMPARTMENTS",
    "PARTITION",
    "TILES_OF",
    "Annotation",
    "Compartment",
    "CompartmentRules",
    "Drawn",
    "SlideObjects",
    "burn_annotations",
    "find_compartments",
    "find_objects",
    "find_regions",
    "measure_nuclei",
    "morphology",
    "region_outlines",
    "regions_table",
]
