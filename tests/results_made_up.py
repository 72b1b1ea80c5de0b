"""A complete results folder made by hand, as a run leaves it: what `open_result`, the pages and the notebooks read."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from PIL import Image

from pathopan.classes import BREAST
from pathopan.contours import paint, region_polygons
from pathopan.export.geoparquet import write_geoparquet, write_table
from pathopan.stitcher.ngff import build_label_levels, create_panoptic
from pathopan.tables import Column, Schema, nuclei_schema

MPP_L0, LABEL_MPP, IMAGE_MPP = 0.5, 1.0, 8.0
SIZE_UM = (1024, 768)
REGIONS = Schema("regions", (Column("region_id", "int", "", ""), Column("geometry", "geometry", "level-0 px", "")))


def make_results(folder: Path) -> Path:
    """Write a run of two slides and a failed one; the slide file of the first still lies where it was."""
    source = folder.parent / "A.tif"
    Image.fromarray(_pixels(MPP_L0)).save(source)
    tables = [
        make_slide(folder / "slides" / name, path=path) for name, path in (("A", source), ("B", Path("/gone.svs")))
    ]
    run = {"pathopan": "0.1.0", "command": "pathopan run", "taxonomy": BREAST.to_dict(), "settings": {"seed": 0}}
    (folder / "run.json").write_text(json.dumps(run))
    scores = pd.DataFrame(
        {"slide_id": ["A", "B", "C"], "status": ["ok", "ok", "failed"], "stil_percent": [12.0, 3.0, np.nan]}
    )
    write_table(folder / "scores.parquet", scores)
    write_table(folder / "scores.csv", scores)
    failure = {
        "slide_id": "C", "path": "C.svs", "stage": "tile", "error": "MissingMpp", "message": "no mpp",
        "remedy": "pass --slide-mpp",
    }  # fmt: skip
    write_table(folder / "failures.csv", pd.DataFrame([failure]))
    together = pd.concat([t.assign(slide_id=n) for t, n in zip(tables, "AB", strict=True)], ignore_index=True)
    write_geoparquet(folder / "regions.parquet", gpd.GeoDataFrame(together, geometry="geometry"), schema=REGIONS)
    return folder


def make_slide(folder: Path, *, path: Path) -> gpd.GeoDataFrame:
    """Write one slide's files and give its regions."""
    folder.mkdir(parents=True)
    regions = region_map()
    nuclei = _nuclei(regions)
    arrays = create_panoptic(
        folder / "panoptic.ome.zarr",
        label_shape=regions.shape,
        label_mpp=LABEL_MPP,
        image=_pixels(IMAGE_MPP),
        image_mpp=IMAGE_MPP,
        taxonomy=BREAST,
    )
    arrays.regions[0][:] = regions
    scaled = shapely.transform(nuclei.geometry.to_numpy(), lambda xy: xy * MPP_L0 / LABEL_MPP)
    painted = paint(zip(scaled, nuclei["nucleus_id"].tolist(), strict=True), shape=regions.shape)
    arrays.nuclei[0][:] = painted.astype(np.uint32)
    build_label_levels(arrays.regions, method="mode")
    build_label_levels(arrays.nuclei, method="nearest")
    write_geoparquet(folder / "nuclei.parquet", nuclei, schema=nuclei_schema(BREAST))
    table = _regions(regions, nuclei)
    write_geoparquet(folder / "regions.parquet", table, schema=REGIONS)
    score = {"stil_percent": 12.0, "itil_per_mm2": None, "reasons": {"itil_per_mm2": "too little tumor"}}
    (folder / "score.json").write_text(json.dumps(score))
    stages = {
        "tile": {"tissue_mm2": 0.5, "tiles": 4, "slide_warnings": ["mpp was given"], "tissue_warnings": []},
        "stitch": {"nuclei": len(nuclei), "duplicates": 2, "seam_audit": {"ratio": 1.01}},
    }
    slide = {"path": str(path), "mpp_l0": [MPP_L0, MPP_L0], "size_l0": [int(n / MPP_L0) for n in SIZE_UM]}
    (folder / "record.json").write_text(json.dumps({"slide": slide, "stages": stages}))
    return table


def region_map() -> np.ndarray:
    """Give (768, 1024) class ids at 1 um/px: background, in it stroma, in it a square of tumor and one of TILs."""
    regions = np.full((SIZE_UM[1], SIZE_UM[0]), 5, np.uint8)
    regions[100:700, 100:900] = 2
    regions[200:500, 200:500] = 1
    regions[300:450, 650:800] = 3
    return regions


def _pixels(mpp: float) -> np.ndarray:
    places = [((np.arange(round(n / mpp)) + 0.5) * mpp).astype(int) for n in SIZE_UM]
    colors = np.array([[255] * 3, [150, 60, 140], [230, 160, 200], [90, 60, 150], [0] * 3, [245] * 3], np.uint8)
    return colors[region_map()[np.ix_(places[1], places[0])]]


def _nuclei(regions: np.ndarray) -> gpd.GeoDataFrame:
    """Place a nucleus of 8 um every 20 um of tissue: its kind follows its region, every fifth is a TIL."""
    y, x = (axis.ravel() for axis in np.mgrid[110:700:20, 110:900:20])
    under = regions[y, x]
    kinds = np.where((np.arange(len(x)) % 5 == 0) | (under == 3), 3, np.where(under == 1, 1, 2))
    n = len(x)
    columns = {column.name: np.zeros(n) for column in nuclei_schema(BREAST).columns if column.kind == "float"}
    columns |= {
        "nucleus_id": np.arange(1, n + 1),
        "class": [BREAST.nucleus(int(k)).name for k in kinds],
        "class_id": kinds.astype(np.int64),
        "prob": np.full(n, 0.9),
        "tile_index": np.zeros(n, np.int64),
        "x_um": x.astype(float),
        "y_um": y.astype(float),
        "area_um2": np.full(n, 16 * np.pi),
        "region_id": under.astype(np.int64),
        "compartment": np.where(under == 1, "tumor", "stroma"),
    }
    outlines = shapely.buffer(shapely.points(x / MPP_L0, y / MPP_L0), 4 / MPP_L0, quad_segs=3)
    table = gpd.GeoDataFrame(columns, geometry=outlines)
    return table[[*nuclei_schema(BREAST).names]]


def _regions(regions: np.ndarray, nuclei: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    rows, shapes = [], []
    for number, shape in region_polygons(np.where(regions == 5, 0, regions)).items():
        inside = nuclei[nuclei["region_id"] == number]
        area, til = shape.area * LABEL_MPP**2 / 1e6, int((inside["class"] == "til").sum())
        rows.append(
            {
                "region_id": number,
                "class": BREAST.region(number).name,
                "class_id": number,
                "area_mm2": area,
                "n_nuclei": len(inside),
                "n_til": til,
                "til_density_per_mm2": til / area,
                "til_density_ci_low": til / area * 0.8,
                "til_density_ci_high": til / area * 1.2,
                "til_area_percent": 100 * til * 16 * np.pi / (area * 1e6),
                "touches_border": False,
            }
        )
        shapes.append(shapely.transform(shape, lambda xy: xy * LABEL_MPP / MPP_L0))
    return gpd.GeoDataFrame(rows, geometry=shapes)
