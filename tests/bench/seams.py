"""Does the grid show? The same slide on several grids, compared. ``PYTHONPATH=tests python -m bench.seams SLIDE ...``.

Steps and shifts are multiples of 32 pixels: then the encoder's stride has the same phase on every grid, as it has on
every grid that pathopan itself lays.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from pathopan.geometry import Grid
from pathopan.inference.predict import DecodeTask, predict_tiles
from pathopan.inference.runtime import open_runtime
from pathopan.network.bundle import DEFAULT_BUNDLE, load_bundle
from pathopan.objects import find_objects
from pathopan.scores import score_slide
from pathopan.slide import open_slide
from pathopan.stages import to_level_0
from pathopan.stitcher.ngff import halve_labels
from pathopan.stitcher.nuclei import merge_nuclei
from pathopan.tiler.grid import make_grid
from pathopan.tiler.select import select_tiles
from pathopan.tiler.tissue import find_tissue

SEAM_MARGIN_UM = 3.0


@dataclass(frozen=True)
class Seen:
    """A slide as one grid shows it."""

    grid: Grid
    region: np.ndarray  # (Y, X) uint8
    nuclei: gpd.GeoDataFrame
    densities: dict[str, float]  # nuclei per mm2 by compartment

    @property
    def worst_overlap(self) -> float:
        """The largest share that two nuclei have of the smaller."""
        shapes = self.nuclei.geometry.to_numpy()
        left, right = shapely.STRtree(shapes).query(shapes, predicate="intersects")
        left, right = left[left < right], right[left < right]
        shared = shapely.area(shapely.intersection(shapes[left], shapes[right]))
        return float((shared / np.minimum(shapely.area(shapes[left]), shapely.area(shapes[right]))).max(initial=0))


class Looker:
    """Looks at one slide on any grid."""

    def __init__(self, path: Path, *, slide_mpp: float | None, bundle: str, precision: str, workers: int) -> None:
        self.description, self.net = load_bundle(bundle)
        self.path, self.slide_mpp, self.precision, self.workers = path, slide_mpp, precision, workers
        with self.open() as slide:
            self.info, self.tissue = slide.info, find_tissue(slide)

    def open(self):
        return open_slide(self.path, slide_id="seams", slide_mpp=self.slide_mpp)

    def look(self, step: int, halo: int, offset: int = 0) -> Seen:
        from dataclasses import replace

        bundle = replace(self.description, step=step, halo=halo)
        runtime = open_runtime(self.net, bundle, device="cpu", precision=self.precision)
        grid = make_grid(self.info, mpp=bundle.mpp, step=step, halo=halo, offset=(offset, offset))
        margin = SEAM_MARGIN_UM / grid.mpp
        task = DecodeTask(grid, bundle.taxonomy, self.tissue, bundle.decode, seam_margin_px=margin)
        region = np.zeros((grid.size[1], grid.size[0]), np.uint8)
        tables = []
        tiles = [grid.tile(int(i)) for i in select_tiles(grid, self.tissue)["tile_index"]]
        for seen in predict_tiles(self.open, runtime, tiles, task=task, workers=self.workers):
            inside = seen.tile.write.intersect(grid.plane)
            region[inside.slices] = seen.region[inside.relative_to(seen.tile.write).slices]
            tables.append(seen.nuclei)
        table = gpd.GeoDataFrame(pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True), crs=None)
        nuclei = merge_nuclei(table, grid, margin_px=margin)
        return Seen(grid, region, nuclei, self._densities(grid, region, nuclei))

    def _densities(self, grid: Grid, region: np.ndarray, nuclei: gpd.GeoDataFrame) -> dict[str, float]:
        coarse = halve_labels(halve_labels(region, method="mode"), method="mode")
        scale = tuple(4 * s for s in grid.scale_l0)
        objects = find_objects(
            coarse, to_level_0(nuclei, grid), taxonomy=self.description.taxonomy, mpp=4 * grid.mpp, scale_l0=scale
        )
        parts = score_slide(objects, slide_id="seams").to_dict()["compartments"]
        found = {}
        for name, part in parts.items():
            if part["area_mm2"] >= 0.05:
                count = sum(part[key] for key in part if key.startswith("n_") and key[2:] in self._kinds)
                found[name] = count / part["area_mm2"]
        return found

    @property
    def _kinds(self) -> set[str]:
        return {kind.name for kind in self.description.taxonomy.nuclei}


def compare(first: Seen, second: Seen) -> dict[str, float]:
    """Per cent by which two grids differ."""
    both = (first.region > 0) & (second.region > 0)
    density = max(
        (abs(second.densities[n] / d - 1) for n, d in first.densities.items() if d and n in second.densities), default=0
    )
    return {
        "region_percent": 100 * float((first.region != second.region)[both].mean()),
        "nuclei_percent": 100 * abs(len(second.nuclei) / max(1, len(first.nuclei)) - 1),
        "density_percent": 100 * density,
    }


def main(arguments: list[str]) -> None:
    """Print a table: every grid against the one with the widest tiles and halo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slides", nargs="+", type=Path)
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE)
    parser.add_argument("--slide-mpp", type=float)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--halos", type=int, nargs="+", default=[64, 128, 192, 256])
    parser.add_argument("--steps", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args(arguments)
    say = sys.stdout.write
    for path in asked.slides:
        mpp = asked.slide_mpp
        looker = Looker(path, slide_mpp=mpp, bundle=asked.bundle, precision=asked.precision, workers=asked.workers)
        for halo in asked.halos:
            grids = [(step, offset) for step in asked.steps for offset in (0, round(step / 96) * 32)]
            seen = [looker.look(step, halo, offset) for step, offset in grids]
            reference = seen[grids.index((max(asked.steps), 0))]
            for (step, offset), one in zip(grids, seen, strict=True):
                found = compare(reference, one)
                text = "  ".join(f"{name} {value:.3f}" for name, value in found.items())
                say(
                    f"{path.name:32s} halo {halo:3d} step {step:4d} shift {offset:3d}: {len(one.nuclei):6d} nuclei  "
                    f"{text}  overlap {one.worst_overlap:.2f}\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
