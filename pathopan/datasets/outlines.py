"""Outlined, boxed or dotted nuclei to an instance map and a nucleus table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from scipy import ndimage

from pathopan.contours import paint
from pathopan.datasets.sample import Sample, empty_nuclei
from pathopan.errors import DatasetError

GLASS = 255
"""Level of red, green and blue where there is no tissue."""


@dataclass(frozen=True)
class Nucleus:
    """One annotated nucleus, in image pixels; a Point where nobody drew its outline."""

    shape: shapely.Polygon | shapely.MultiPolygon | shapely.Point
    class_id: int

    @property
    def outlined(self) -> bool:
        """Whether there is an outline."""
        return bool(self.shape.area > 0)


def paint_nuclei(
    nuclei: Sequence[Nucleus], *, shape: tuple[int, int]
) -> tuple[pd.DataFrame, npt.NDArray[np.int32] | None]:
    """List nuclei and paint their outlines, smaller ones on top.

    Parameters
    ----------
    nuclei : sequence of Nucleus
        Of those whose centre lies outside the image, what reaches in is painted, and its own centre stands in the
        table; where nothing does, or there are points only, they are left out.
    shape : (int, int)
        Rows and columns of the image.

    Returns
    -------
    table : DataFrame
        As :class:`pathopan.datasets.sample.Sample` wants it; ids are positions in ``nuclei`` + 1.
    instances : (Y, X) int32 or None
        ``None`` if a nucleus inside the image has no outline: a map with gaps would teach background.
    """
    centres = np.array([[n.shape.centroid.x, n.shape.centroid.y] for n in nuclei]).reshape(-1, 2)
    inside = np.all((centres >= 0) & (centres < [shape[1], shape[0]]), axis=1)
    whole = all(nuclei[i].outlined for i in np.flatnonzero(inside).tolist())
    instances = None
    painted = np.zeros(len(nuclei) + 1, dtype=np.bool_)
    if whole:
        order = sorted((n.shape.area, i) for i, n in enumerate(nuclei) if n.outlined)
        instances = paint([(nuclei[i].shape, i + 1) for _, i in order], shape=shape)
        painted[np.unique(instances)] = True
    rows = np.flatnonzero(inside | painted[1:])
    if len(rows) == 0:
        return empty_nuclei(), instances
    if instances is not None:
        cut = np.flatnonzero(~inside & painted[1:])
        centres[cut] = _middles(instances, cut + 1)
    table = pd.DataFrame(
        {
            "x_px": centres[rows, 0],
            "y_px": centres[rows, 1],
            "class_id": np.array([nuclei[i].class_id for i in rows.tolist()], dtype=np.int64),
            "instance_id": np.where(painted[rows + 1], rows + 1, 0),
        }
    )
    return table, instances


def _middles(instances: npt.NDArray[np.int32], ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Give the (N, 2) centres xy of what a map shows of some nuclei."""
    middles = ndimage.center_of_mass(instances > 0, instances, ids)
    return np.asarray(middles, np.float64).reshape(-1, 2)[:, ::-1] + 0.5


def read_ring(xs: str, ys: str, *, path: Path) -> list[tuple[float, float]]:
    """Read points xy, in pixels, from two comma-separated lists of numbers.

    Raises
    ------
    DatasetError
        If the lists hold no finite numbers or differ in length.
    """
    try:
        ring = [(float(x), float(y)) for x, y in zip(xs.split(","), ys.split(","), strict=True)]
    except ValueError as error:
        msg = f"{path}: coords_x and coords_y must be equally long lists of numbers: {error}"
        raise DatasetError(msg) from error
    if not np.isfinite(ring).all():
        msg = f"{path}: coords_x and coords_y must be numbers, found {xs} and {ys}"
        raise DatasetError(msg)
    return ring


def close_ring(ring: Sequence[tuple[float, float]]) -> shapely.Polygon | None:
    """Build a valid polygon, the largest piece of what the ring encloses; ``None`` if it encloses nothing."""
    if len(ring) < 3:
        return None
    parts = shapely.get_parts(shapely.make_valid(shapely.Polygon(ring)))
    polygons = [part for part in parts if part.geom_type == "Polygon" and part.area > 0]
    return max(polygons, key=lambda part: part.area) if polygons else None


def crop_sample(sample: Sample, *, box: tuple[int, int, int, int]) -> Sample:
    """Cut a sample to ``(x0, y0, x1, y1)`` pixels; nuclei whose centre and outline lie outside are dropped.

    A nucleus whose centre lies outside and whose outline reaches in has the centre of what is left.

    Raises
    ------
    DatasetError
        If nothing of the image lies in the box.
    """
    height, width = sample.image.shape[:2]
    x0, y0, x1, y1 = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
    if x0 >= x1 or y0 >= y1:
        where = f"{sample.source.name} {sample.sample_id}"
        msg = f"{where}: the labelled area {box} lies outside the {width} x {height} image"
        raise DatasetError(msg)
    window = np.s_[y0:y1, x0:x1]
    instances = None if sample.instances is None else sample.instances[window]
    nuclei = sample.nuclei.assign(x_px=sample.nuclei["x_px"] - x0, y_px=sample.nuclei["y_px"] - y0)
    inside = nuclei["x_px"].between(0, x1 - x0, inclusive="left") & nuclei["y_px"].between(0, y1 - y0, inclusive="left")
    return replace(
        sample,
        image=sample.image[window],
        nuclei=_keep_seen(nuclei, inside, instances),
        instances=instances,
        region=None if sample.region is None else sample.region[window],
    )


def blank_sample(sample: Sample, *, known: npt.NDArray[np.bool_]) -> Sample:
    """Turn what nobody annotated into blank glass, where nothing is to be found; regions are unlabelled there.

    A :class:`Sample` has no other way to say that nuclei are unlabelled in a part of an image: without rows there, it
    would count as tissue without nuclei. Nuclei are dropped or cut as by :func:`crop_sample`.

    Parameters
    ----------
    sample : Sample
        Its arrays are left as they are.
    known : (Y, X) bool
        Pixels that were annotated.
    """
    rows, columns = (sample.nuclei[axis].to_numpy().astype(np.int64) for axis in ("y_px", "x_px"))
    inside = pd.Series(known[rows, columns], index=sample.nuclei.index)
    instances = None if sample.instances is None else sample.instances * known
    return replace(
        sample,
        image=np.where(known[..., None], sample.image, np.uint8(GLASS)),
        nuclei=_keep_seen(sample.nuclei, inside, instances),
        instances=instances,
        region=None if sample.region is None else sample.region * known,
    )


def _keep_seen(nuclei: pd.DataFrame, inside: pd.Series[bool], instances: npt.NDArray[np.int32] | None) -> pd.DataFrame:
    """Keep nuclei whose centre is inside or of whose outline something is left; give the latter the centre of that."""
    if instances is not None:
        there = nuclei["instance_id"].isin(np.unique(instances[instances > 0]))
        nuclei = nuclei.assign(instance_id=nuclei["instance_id"].where(there, 0))
        cut = nuclei[there & ~inside]
        nuclei.loc[cut.index, ["x_px", "y_px"]] = _middles(instances, cut["instance_id"].to_numpy())
        inside = inside | there
    return nuclei[inside].reset_index(drop=True)
