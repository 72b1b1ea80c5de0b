"""The stages of one slide: each reads files, calls a room, writes files, and enters itself into the slide's record."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from pathopan.classes import Taxonomy
from pathopan.collecting import collecting_rarely
from pathopan.config import Config
from pathopan.errors import ConfigError, UnreadableSlide
from pathopan.export.parquet_parts import GeoParquetWriter
from pathopan.files import atomic_path, shown
from pathopan.geometry import Grid
from pathopan.inference.child import unheard
from pathopan.inference.predict import DecodeTask, predict_tiles, rim_px
from pathopan.inference.runtime import Runtime, open_runtime
from pathopan.inference.shards import (
    ShardPlan,
    iter_nuclei,
    missing_shards,
    read_regions,
    remove_shards,
    require_shards,
    write_shard,
)
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import Bundle, load_bundle, read_bundle
from pathopan.network.flips import FlippedNet
from pathopan.network.quantised import INT8_FILES, find_quantised, quantised_entry
from pathopan.nucleus_stream import NucleusStream
from pathopan.outputs import later_prints
from pathopan.record import SlideRecord, fingerprint
from pathopan.slide import Slide, SlideInfo, check_mpp, open_slide, read_overview
from pathopan.slide.open import other_files
from pathopan.stitcher.ngff import Version, open_panoptic
from pathopan.stitcher.store import Found, write_panoptic
from pathopan.tables import detections_schema
from pathopan.tiler.drawn import tissue_from_geojson, tissue_from_image
from pathopan.tiler.grid import make_grid
from pathopan.tiler.select import select_tiles
from pathopan.tiler.tissue import TissueMask, find_tissue

_STITCHERS = 2
"""Threads beside the one that merges, at most: each holds 512 rows of the slide, and more of them gain little."""

Progress = Callable[[str, int, int], None]
"""Told (stage, done, total): tiles while predicting."""


class Engine:
    """A bundle and who executes it; the network is loaded only when a tile needs it.

    Parameters
    ----------
    bundle : str or Path
        Name or folder.
    config : Config
        Settings.
    device : str
        ``auto``, ``cpu`` or ``cuda``: what was asked for, and what results are told apart by.
    place : str, optional
        Which of several such devices, as ``cuda:1``.
    runtime : Runtime, optional
        In place of the bundle's network.
    """

    def __init__(
        self,
        bundle: str | Path,
        config: Config,
        *,
        device: str = "auto",
        place: str = "",
        runtime: Runtime | None = None,
    ) -> None:
        self.given = runtime  # in place of the bundle's network
        self.name = bundle
        self.device = device
        self.place = place or device
        self.config = config.inference
        self.bundle: Bundle = read_bundle(bundle)

    @cached_property
    def runtime(self) -> Runtime:
        """The network, ready to run."""
        if self.given is not None:
            return self.given
        bundle, net = load_bundle(self.name)
        config = self.config
        crop = rim_px(bundle)
        chosen = {"device": self.place, "runtime": config.runtime, "precision": config.precision}
        quantised = find_quantised(self.name) if config.precision == "int8" else None
        net = FlippedNet(net) if config.mirrored else net
        return open_runtime(net, bundle, crop=crop, quantised=quantised, **chosen)


@dataclass(frozen=True)
class Job:
    """One slide's work: what to run, how, and where its files go."""

    entry: SlideEntry
    config: Config
    engine: Engine
    folder: Path
    workers: int = 2
    tissue: Path | None = None  # GeoJSON or image that says where the tissue is

    @property
    def taxonomy(self) -> Taxonomy:
        """Classes of the bundle."""
        return self.engine.bundle.taxonomy

    def open(self) -> Slide:
        """Open the slide."""
        return open_slide(self.entry.path, slide_id=self.entry.slide_id, slide_mpp=self.mpp)

    @cached_property
    def mpp(self) -> float | None:
        """The mpp that the slide is opened with, if its file does not tell."""
        return self.entry.mpp_to_give()

    @cached_property
    def prints(self) -> dict[str, str]:
        """Fingerprint of each stage: of the slide, the bundle, and the settings that it and earlier stages use."""
        config, bundle = self.config, self.engine.bundle
        inference = config.inference
        chain: dict[str, list[Any]] = {
            "tile": [
                _slide_print(self.entry.path, self.mpp), _file_print(self.tissue),
                config.tiler, bundle.mpp, bundle.step,
            ],
            "predict": [
                bundle.sha256, bundle.taxonomy, bundle.arguments, bundle.mean, bundle.std, bundle.decode, bundle.halo,
                config.stitcher.seam_margin_um,
                inference.runtime, inference.precision, self.engine.device,
                *_eight_bits(self.engine), *(["mirrored"] if inference.mirrored else []),
            ],
            "stitch": [config.stitcher, config.export.ngff, config.export.image_mpp],
        }  # fmt: skip
        prints, before = {}, ""
        for stage, parts in chain.items():
            before = prints[stage] = fingerprint(before, *(str(part) for part in parts))
        return prints | later_prints(before, config)


def _eight_bits(engine: Engine) -> list[str]:
    """Tell the network in 8 bits apart, where it is the one that runs."""
    told = quantised_entry(engine.bundle) if engine.config.precision == "int8" else None
    return [told["sha256"][name] for name in INT8_FILES if name in told["sha256"]] if told else []


def describe_bundle(engine: Engine) -> dict[str, Any]:
    """Give what ``run.json`` and a stitched slide's record hold of a bundle."""
    bundle, eight_bits = engine.bundle, _eight_bits(engine)
    return {
        "name": bundle.name,
        "path": str(engine.name),
        "sha256": bundle.sha256,
        "licence": bundle.licence,
        "mpp": bundle.mpp,
        "prob_calibrated": (bundle.decode.prob_slope, bundle.decode.prob_intercept) != (1.0, 0.0),
        **({"int8_sha256": eight_bits} if eight_bits else {}),
    }


def _slide_print(path: Path, mpp: float | None) -> str:
    try:
        stat = path.stat()
        others = [file.stat() for file in other_files(path)]
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        msg = f"{path} cannot be read: {told}; check the path and the permissions"
        raise UnreadableSlide(msg) from error
    return fingerprint(stat.st_size, stat.st_mtime_ns, mpp, *([o.st_size, o.st_mtime_ns] for o in others))


def _file_print(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return fingerprint(path.read_bytes().hex())
    except OSError as error:
        msg = f"--tissue {path}: cannot be read: {error.strerror}"
        raise ConfigError(msg) from error


@dataclass(frozen=True)
class Tiling:
    """Where a slide is looked at."""

    info: SlideInfo
    grid: Grid
    tissue: TissueMask
    tiles: pd.DataFrame


def tile_slide(job: Job, record: SlideRecord) -> Tiling:
    """Lay the grid, find the tissue and choose the tiles; writes ``tiles.parquet`` and ``tissue.png``."""
    started = time.monotonic()
    bundle, config = job.engine.bundle, job.config.tiler
    mask_path, table_path = job.folder / "tissue.png", job.folder / "tiles.parquet"
    print_ = job.prints["tile"]
    with job.open() as slide:
        info = slide.info
        check_mpp(info, bundle.mpp)
        record.entries["slide"] = describe_slide(info)
        grid = make_grid(info, mpp=bundle.mpp, step=bundle.step, halo=bundle.halo)
        if is_tiled(job, record):
            noted = record.notes("tile")
            mask = np.asarray(cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE)) > 0
            warnings = tuple(noted["tissue_warnings"])
            tissue = TissueMask(mask, noted["tissue_mpp"], noted["reason"], warnings, noted["glass_level"])
            return Tiling(info, grid, tissue, pd.read_parquet(table_path))
        tissue = _tissue(job, slide)
    tiles = select_tiles(grid, tissue, min_tissue_fraction=config.min_tissue_fraction)
    record.forget("tile")  # if this is stopped between two files, they do not pass for those of earlier settings
    record.claim(mask_path, table_path)
    with atomic_path(mask_path) as temporary:
        _, png = cv2.imencode(".png", tissue.mask.astype(np.uint8) * 255)
        temporary.write_bytes(png.tobytes())
    with atomic_path(table_path) as temporary:
        tiles.to_parquet(temporary)
    notes = {
        "tiles": len(tiles),
        "tissue_mm2": tissue.area_mm2,
        "tissue_mpp": tissue.mpp,
        "glass_level": tissue.glass_level,
        "reason": tissue.reason,
        "slide_warnings": list(info.warnings),
        "tissue_warnings": list(tissue.warnings),
    }
    record.finish("tile", print_, seconds=time.monotonic() - started, notes=notes)
    return Tiling(info, grid, tissue, tiles)


def is_tiled(job: Job, record: SlideRecord) -> bool:
    """Say whether the tiles of these settings have been chosen."""
    return record.is_current("tile", job.prints["tile"], [job.folder / "tissue.png", job.folder / "tiles.parquet"])


def is_stitched(job: Job, record: SlideRecord) -> bool:
    """Say whether the slide has been stitched by these settings."""
    tables = [job.folder / name for name in ("detections.parquet", "nuclei.parquet")]
    found = next((path for path in tables if path.is_file()), tables[0])
    return record.is_current("stitch", job.prints["stitch"], [job.folder / "panoptic.ome.zarr", found])


def describe_slide(info: SlideInfo) -> dict[str, Any]:
    """Give what a record keeps of a slide."""
    return {
        "path": shown(info.path),
        "size_l0": list(info.size_l0),
        "mpp_l0": list(info.mpp_l0),
        "bounds_l0": list(info.bounds_l0),
        "format": info.vendor,
    }


def _tissue(job: Job, slide: Slide) -> TissueMask:
    config = job.config.tiler
    if job.tissue is None:
        return find_tissue(slide, mpp=config.tissue_mpp, min_tissue_um2=config.min_tissue_um2)
    if job.tissue.suffix.lower() in (".json", ".geojson"):
        return tissue_from_geojson(job.tissue, slide.info, config.tissue_mpp)
    return tissue_from_image(job.tissue, slide.info, config.tissue_mpp)


Predict = Callable[[Job, Tiling, range, Progress], dict[str, Any]]
"""Looks at the tiles of some shards; see :func:`predict_shards`."""


def predict_slide(job: Job, tiling: Tiling, record: SlideRecord, progress: Progress, *, predict: Predict) -> ShardPlan:
    """Look at every tile whose shard is not there yet, by ``predict``; writes ``shards/<fingerprint>/``."""
    started = time.monotonic()
    plan = shard_plan(job, tiling)
    notes = predict(job, tiling, range(len(plan)), progress)
    if notes["computed"]:
        notes = {name: notes[name] for name in ("runtime", "device", "precision", "tiles")}
        record.finish("predict", job.prints["predict"], seconds=time.monotonic() - started, notes=notes)
    return plan


def shard_plan(job: Job, tiling: Tiling) -> ShardPlan:
    """Say which of a slide's tiles are written together."""
    indices = tuple(int(index) for index in tiling.tiles["tile_index"])
    return ShardPlan(indices, job.config.inference.shard_tiles)


def predict_shards(job: Job, tiling: Tiling, shards: range, progress: Progress) -> dict[str, Any]:
    """Look at the tiles of some shards; those that are there already are kept.

    Returns
    -------
    dict
        ``tiles`` of these shards, how many were ``computed``, and by which ``runtime``, ``device`` and ``precision``
        if any was.
    """
    plan, folder = shard_plan(job, tiling), shard_folder(job)
    missing = missing_shards(folder, shards)
    total = sum(len(plan.tiles(shard)) for shard in shards)
    to_do = sum(len(plan.tiles(shard)) for shard in missing)
    progress("predict", total - to_do, total)
    if not missing:
        return {"tiles": total, "computed": 0}
    folder.mkdir(parents=True, exist_ok=True)
    task = DecodeTask(
        grid=tiling.grid,
        taxonomy=job.taxonomy,
        tissue=tiling.tissue,
        rules=job.engine.bundle.decode,
        seam_margin_px=job.config.stitcher.seam_margin_um / tiling.grid.mpp,
    )
    runtime = job.engine.runtime
    predictions = predict_tiles(
        job.open,
        runtime,
        (tiling.grid.tile(index) for shard in missing for index in plan.tiles(shard)),
        task=task,
        workers=job.workers,
        batch_size=job.config.inference.batch_size,
    )
    done = total - to_do
    with ExitStack() as stack:
        stack.callback(runtime.release)  # after the threads that look have ended; the later stages need the memory
        stack.enter_context(closing(predictions))
        for shard in missing:
            collected = []
            for _ in plan.tiles(shard):
                collected.append(next(predictions))
                done += 1
                progress("predict", done, total)
            write_shard(folder, shard, collected)
    told = {"runtime": runtime.name, "device": runtime.device, "precision": runtime.precision}
    return {"tiles": total, "computed": to_do, **told}


def shard_folder(job: Job) -> Path:
    """Name the folder of a job's predictions; other settings have another, and so have shards of another size."""
    return job.folder / "shards" / f"{job.prints['predict']}-{job.config.inference.shard_tiles}"


@collecting_rarely()
def stitch_slide(
    job: Job, tiling: Tiling, plan: ShardPlan, record: SlideRecord, *, progress: Progress = unheard
) -> None:
    """Merge the tiles, row by row; writes ``panoptic.ome.zarr`` and ``detections.parquet`` (level-0 pixels)."""
    started = time.monotonic()
    grid, config, path = tiling.grid, job.config, job.folder / "panoptic.ome.zarr"
    require_shards(shard_folder(job), range(len(plan)))
    with job.open() as slide:
        picture = read_overview(slide, config.export.image_mpp)
    version: Version = "0.4" if config.export.ngff == "0.4" else "0.5"
    found = job.folder / "detections.parquet"
    record.forget("stitch", "score", "export")
    record.claim(path, found)
    with GeoParquetWriter(found, schema=detections_schema(job.taxonomy)) as table:
        nuclei = NucleusStream(
            iter_nuclei(shard_folder(job), range(len(plan))),
            grid,
            table,
            taxonomy=job.taxonomy,
            um_per_px=tiling.info.mpp_l0,
            # who waits for a slide knows by it that it is slow, and does not hang
            beat=partial(progress, "stitch", len(tiling.tiles), len(tiling.tiles)),
        )
        with closing(nuclei.merged(config.stitcher, workers=job.workers)) as parts:  # whose thread writes the table
            write_panoptic(
                path,
                Found(read_regions(shard_folder(job), plan, step=grid.step), parts),
                grid=grid,
                taxonomy=job.taxonomy,
                picture=(picture, config.export.image_mpp),
                version=version,
                workers=min(job.workers, _STITCHERS),
            )
    arrays = open_panoptic(path)
    coarse = min(range(len(arrays.regions)), key=lambda i: abs(arrays.label_mpp * 2**i - config.objects.region_mpp))
    audit = nuclei.seams.result(arrays.regions[coarse], arrays.label_mpp * 2**coarse)
    kept, seen = nuclei.counts["nuclei"], nuclei.counts["candidates"]
    notes = {
        "nuclei": kept,
        "duplicates": seen - kept,
        "seam_audit": audit.to_dict(),
        "bundle": describe_bundle(job.engine),
    }
    record.finish("stitch", job.prints["stitch"], seconds=time.monotonic() - started, notes=notes)
    remove_shards(job.folder / "shards")
