"""Does the grid show? The same slide on several grids, compared. ``PYTHONPATH=tests python -m bench.seams SLIDE ...``.

Steps and shifts are multiples of 32 pixels: then the encoder's stride has the same phase on every grid, as it has on
every grid that pathopan itself lays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from pathopan.geometry import Grid
from pathopan.inference.predict import DecodeTask, predict_tiles
from pathopan.inference.runtime import Runtime, open_runtime
from pathopan.network.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from pathopan.nucleus_stream import to_level_0
from pathopan.objects import find_objects
from pathopan.scores import score_slide
from pathopan.slide import Slide, open_slide
from pathopan.stitcher.ngff import halve_labels
from pathopan.stitcher.nuclei import merge_nuclei
from pathopan.tiler.grid import make_grid
from pathopan.tiler.select import select_tiles
from pathopan.tiler.tissue import TissueMask, find_tissue

SEAM_MARGIN_UM = 3.0
FEWEST = 500  # nuclei of a compartment whose density can tell one per cent


@dataclass(frozen=True)
class Seen:
    """A slide as one grid shows it."""

    grid: Grid
    region: np.ndarray  # (Y, X) uint8
    nuclei: gpd.GeoDataFrame
    densities: dict[str, tuple[int, float]]  # nuclei, and nuclei per mm2, by compartment

    @property
    def worst_overlap(self) -> float:
        """The largest share that two nuclei have of the smaller."""
        shapes = self.nuclei.geometry.to_numpy()
        left, right = shapely.STRtree(shapes).query(shapes, predicate="intersects")
        left, right = left[left < right], right[left < right]
        shared = shapely.area(shapely.intersection(shapes[left], shapes[right]))
        return float((shared / np.minimum(shapely.area(shapes[left]), shapely.area(shapes[right]))).max(initial=0))


class Looker:
    """Looks at one slide on any grid.

    Parameters
    ----------
    open_reader : callable
        Opens the slide.
    bundle : Bundle
        Its classes and thresholds.
    open_runtime : callable
        Gives who executes the network, for the bundle with another step and halo.
    everywhere : bool
        Take all of the slide for tissue.
    """

    def __init__(
        self,
        open_reader: Callable[[], Slide],
        bundle: Bundle,
        open_runtime: Callable[[Bundle], Runtime],
        *,
        everywhere: bool = False,
        workers: int = 2,
    ) -> None:
        self.description, self.open, self._runtime, self._workers = bundle, open_reader, open_runtime, workers
        with self.open() as slide:
            self.info = slide.info
            longest = max(slide.info.size_px(bundle.mpp)) * bundle.mpp
            all_of_it = TissueMask(np.ones((1, 1), bool), mpp=longest + 1)
            self.tissue = all_of_it if everywhere else find_tissue(slide)

    def look(self, step: int, halo: int, offset: int = 0) -> Seen:
        bundle = replace(self.description, step=step, halo=halo)
        grid = make_grid(self.info, mpp=bundle.mpp, step=step, halo=halo, offset=(offset, offset))
        margin = SEAM_MARGIN_UM / grid.mpp
        task = DecodeTask(grid, bundle.taxonomy, self.tissue, bundle.decode, seam_margin_px=margin)
        region = np.zeros((grid.size[1], grid.size[0]), np.uint8)
        tables = []
        tiles = [grid.tile(int(i)) for i in select_tiles(grid, self.tissue)["tile_index"]]
        for seen in predict_tiles(self.open, self._runtime(bundle), tiles, task=task, workers=self._workers):
            inside = seen.tile.write.intersect(grid.plane)
            region[inside.slices] = seen.region[inside.relative_to(seen.tile.write).slices]
            tables.append(seen.nuclei)
        table = gpd.GeoDataFrame(pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True), crs=None)
        nuclei = merge_nuclei(table, grid, margin_px=margin)
        return Seen(grid, region, nuclei, self._densities(grid, region, nuclei))

    def _densities(self, grid: Grid, region: np.ndarray, nuclei: gpd.GeoDataFrame) -> dict[str, tuple[int, float]]:
        coarse = halve_labels(halve_labels(region, method="mode"), method="mode", times=1)
        scale = tuple(4 * s for s in grid.scale_l0)
        objects = find_objects(
            coarse, to_level_0(nuclei, grid), taxonomy=self.description.taxonomy, mpp=4 * grid.mpp, scale_l0=scale
        )
        parts = score_slide(objects, slide_id="seams").to_dict()["compartments"]
        kinds = {f"n_{kind.name}" for kind in self.description.taxonomy.nuclei}
        counts = {name: sum(part[key] for key in kinds) for name, part in parts.items()}
        return {
            name: (counts[name], counts[name] / part["area_mm2"]) for name, part in parts.items() if part["area_mm2"]
        }


def compare(first: Seen, second: Seen) -> dict[str, float]:
    """Per cent by which two grids differ."""
    both = (first.region > 0) & (second.region > 0)
    alike = [
        (first.densities[name][0], abs(second.densities[name][1] / density - 1))
        for name, (count, density) in first.densities.items()
        if count >= FEWEST and name in second.densities
    ]
    return {
        "region_percent": 100 * float((first.region != second.region)[both].mean()),
        "nuclei_percent": 100 * abs(len(second.nuclei) / max(1, len(first.nuclei)) - 1),
        "density_percent": 100 * max((differs for _, differs in alike), default=0.0),
        "pooled_density_percent": 100 * float(np.average([d for _, d in alike], weights=[n for n, _ in alike]))
        if alike
        else 0.0,
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
    description, net = load_bundle(asked.bundle)
    for path in asked.slides:
        looker = Looker(
            partial(open_slide, path, slide_id="seams", slide_mpp=asked.slide_mpp),
            description,
            lambda bundle: open_runtime(net, bundle, device="cpu", precision=asked.precision),
            workers=asked.workers,
        )
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
