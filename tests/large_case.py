"""Time and memory of a whole slide of 6.25 cm2 with a million nuclei. ``python tests/large_case.py [side nuclei]``.

100,000 x 100,000 px at 0.25 um/px are 12,500 x 12,500 pixels at 2 um/px, the resolution of compartments. All of it is
tissue: blobs of tumor in stroma, lymphocyte-rich patches, some 2,000 regions.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path

import cv2
import geopandas as gpd
import numpy as np
import shapely

from pathopan.classes import BREAST
from pathopan.objects import find_objects
from pathopan.scores import find_violations, score_regions, score_slide

MPP, MPP_L0 = 2.0, 0.25


def blobs(side: int, *, grain: int = 60, seed: int = 0) -> np.ndarray:
    """Tumor, stroma and lymphocyte-rich stroma by smoothed noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(2, side // grain + 4, side // grain + 4)).astype(np.float32)
    tumor, dense = (cv2.resize(cv2.GaussianBlur(layer, (0, 0), 1.2), (side, side)) for layer in coarse)
    classes = np.full((side, side), BREAST.region("stroma").id, np.uint8)
    classes[dense > 1.6 * dense.std()] = BREAST.region("tils").id
    classes[tumor > 0.6 * tumor.std()] = BREAST.region("tumor").id
    return classes


def detections(side: int, count: int, *, seed: int = 1) -> gpd.GeoDataFrame:
    """Nuclei of 14 vertices, anywhere."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice([c.id for c in BREAST.nuclei], count, p=[0.45, 0.3, 0.2, 0.05])
    centres = rng.random((count, 2)) * side * MPP / MPP_L0
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    ring = np.column_stack([np.cos(angle) * 16, np.sin(angle) * 12])
    parts = [shapely.polygons(centres[i : i + 50_000, None] + ring) for i in range(0, count, 50_000)]
    columns = {
        "nucleus_id": np.arange(1, count + 1),
        "class_id": kinds,
        "prob": np.ones(count),
        "tile_index": np.zeros(count, np.int64),
        "hematoxylin_mean": np.ones(count),
        **{f"prob_{c.name}": (kinds == c.id) * 1.0 for c in BREAST.nuclei},
    }
    return gpd.GeoDataFrame(columns, geometry=np.concatenate(parts), crs=None)


def memory_mib(name: str) -> float:
    """Read ``VmHWM`` (peak) or ``VmRSS`` (present) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def main(side: int = 12_500, count: int = 1_000_000) -> None:
    """Measure and print."""
    classes, nuclei = blobs(side), detections(side, count)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    given, marks = memory_mib("VmRSS"), [("", time.perf_counter())]
    objects = find_objects(classes, nuclei, taxonomy=BREAST, mpp=MPP, scale_l0=(MPP / MPP_L0, MPP / MPP_L0))
    marks.append(("objects, compartments, distances", time.perf_counter()))
    score = score_slide(objects, slide_id="large")
    marks.append(("score of the slide", time.perf_counter()))
    regions = score_regions(objects)
    marks.append(("scores of the regions", time.perf_counter()))
    for (_, start), (what, stop) in pairwise(marks):
        sys.stdout.write(f"{what}: {stop - start:.1f} s\n")
    total, peak = marks[-1][1] - marks[0][1], memory_mib("VmHWM")
    sys.stdout.write(f"{side} x {side} px, {len(nuclei):,} nuclei, {len(regions):,} regions: {total:.1f} s, ")
    sys.stdout.write(f"peak {peak:.0f} MiB, of which {given:.0f} MiB before it began\n")
    wrong = find_violations(score.to_dict(), regions, objects.nuclei, taxonomy=BREAST, mpp_l0=(MPP_L0, MPP_L0))
    sys.stdout.write(f"violations: {wrong}\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
