"""A slide as SpatialData, for the scverse tools: nuclei and regions as shapes, their numbers as annotated tables.

::

    <slide>.spatialdata.zarr
      shapes   nuclei, regions          level-0 pixels, with a scale to micrometres ("global")
      tables   nuclei_table             X: what was measured of each nucleus; obs: class, region, compartment, ...
               regions_table            X: counts and TIL scores of each region; uns["pathopan"]: the slide's score

No pixel is copied: the picture and the label maps stand in the run's ``panoptic.ome.zarr``.
Needs ``pip install 'pathopan[spatialdata]'``.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from pathopan.errors import MissingExtra
from pathopan.files import atomic_path

if TYPE_CHECKING:
    from anndata import AnnData

REGION_KEY, INSTANCE_KEY = "element", "instance_id"
"""Columns of a table's ``obs`` that say which shape a row is about: the element's name, and the shape's index in it."""

_FLOAT_KINDS = "fiu"


@dataclass(frozen=True)
class SpatialSlide:
    """What is written of one slide."""

    slide_id: str
    nuclei: gpd.GeoDataFrame  # rows of nuclei.parquet
    regions: gpd.GeoDataFrame  # rows of regions.parquet
    mpp_l0: tuple[float, float]
    score: Mapping[str, Any]


def write_spatialdata(path: Path, slide: SpatialSlide) -> None:
    """Write a slide as a SpatialData Zarr store, in which one unit of ``global`` is a micrometre.

    Parameters
    ----------
    path : Path
        Folder to write; replaced as a whole, or not at all.
    slide : SpatialSlide
        A slide's tables and its score.

    Raises
    ------
    MissingExtra
        If spatialdata is not installed.

    Notes
    -----
    Memory: all of the slide's nuclei, about 2 kB each, for SpatialData writes tables as a whole.
    """
    if importlib.util.find_spec("spatialdata") is None:
        msg = "this format needs spatialdata: pip install 'pathopan[spatialdata]'"
        raise MissingExtra(msg)
    with _quiet():
        from spatialdata import SpatialData
        from spatialdata.models import ShapesModel
        from spatialdata.transformations import Scale

        to_um = {"global": Scale(np.array(slide.mpp_l0), axes=("x", "y"))}
        nuclei, regions = (_solid(t, f"{n}_id") for n, t in (("nucleus", slide.nuclei), ("region", slide.regions)))
        elements: dict[str, Any] = {}
        for name, table in (("nuclei", nuclei), ("regions", regions)):
            if len(table):  # SpatialData knows no element without shapes
                elements[name] = ShapesModel.parse(table[["geometry"]], transformations=to_um)
                elements[f"{name}_table"] = _table(table, name, slide)
        with atomic_path(path) as temporary:
            SpatialData.init_from_elements(elements).write(temporary)


def _solid(table: gpd.GeoDataFrame, number: str) -> gpd.GeoDataFrame:
    """Give shapes their id as index, and drop empty ones, which SpatialData refuses."""
    whole = ~(shapely.is_missing(table.geometry.to_numpy()) | shapely.is_empty(table.geometry.to_numpy()))
    return table[whole].set_index(number, drop=False).rename_axis(None)


def _table(table: gpd.GeoDataFrame, name: str, slide: SpatialSlide) -> AnnData:
    """Make the annotated table of an element: numbers in X, and everything that names or places a row in obs."""
    from anndata import AnnData
    from spatialdata.models import TableModel

    plain = pd.DataFrame(table.drop(columns="geometry"))
    named = [c for c in plain.columns if plain[c].dtype.kind not in _FLOAT_KINDS or c.endswith(("_id", "_index"))]
    numbers = plain.drop(columns=[*named])
    observed = pd.DataFrame({c: _plain(plain[c]) for c in named}, index=_texts(plain.index))
    observed[REGION_KEY] = pd.Categorical(_texts([name] * len(plain)))
    observed[INSTANCE_KEY] = plain.index.to_numpy()
    matrix: npt.NDArray[np.float32] = numbers.to_numpy(np.float32, na_value=np.nan)
    annotated = AnnData(matrix, obs=observed, var=pd.DataFrame(index=_texts(numbers.columns)))
    if {"x_um", "y_um"} <= set(plain.columns):
        annotated.obsm["spatial"] = plain[["x_um", "y_um"]].to_numpy(np.float64)
    annotated.uns["pathopan"] = {"slide_id": slide.slide_id, "score": json.dumps(slide.score, default=str)}
    return TableModel.parse(annotated, region=name, region_key=REGION_KEY, instance_key=INSTANCE_KEY)


def _plain(values: pd.Series) -> Any:
    """Give a column as AnnData stores it: numbers as they are, texts as categories."""
    return values.to_numpy() if values.dtype.kind in "iub" else pd.Categorical(_texts(values))


def _texts(values: Iterable[Any]) -> pd.Index:
    """Give texts as Python objects: AnnData knows no other strings of pandas."""
    return pd.Index([str(value) for value in values], dtype=object)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' notes about each other to themselves."""
    level = logging.getLogger("spatialdata").level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("spatialdata").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("spatialdata").setLevel(level)
