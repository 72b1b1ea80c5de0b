"""OME-NGFF: the picture of a slide, with its region and nucleus maps as labels that other viewers open.

::

    panoptic.ome.zarr/          image (c, y, x) at a coarse mpp
      0 1 2 ...                 each level half as wide as the one before
      labels/regions/0 1 2 ...  (y, x) uint8, class ids, with a color for each class
      labels/nuclei/0 1 2 ...   (y, x) uint32, instance ids, equal to nucleus_id

Version 0.4 on Zarr 2 is what QuPath and napari read today; version 0.5 on Zarr 3 is what comes. A level's scale is in
micrometres, and its translation puts the slide's corner at the origin, so levels of any mpp lie upon each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec
from zarr.errors import NodeNotFoundError

from pathopan.classes import Taxonomy
from pathopan.errors import ResultError, ShapeMismatch
from pathopan.files import check_regular_tree
from pathopan.inference.ordered import in_turn

Version = Literal["0.4", "0.5"]
LabelArray = npt.NDArray[Any]

CHUNK = 512
"""Side of the squares that label maps are stored in."""

_COARSEST = 1024
"""Levels are added until the label maps fit into a square of this side: one screen."""


@dataclass(frozen=True)
class PanopticArrays:
    """The levels of an open ``panoptic.ome.zarr``, finest first, and the mpp of the finest."""

    image: tuple[zarr.Array, ...]  # (3, Y, X) uint8
    regions: tuple[zarr.Array, ...]  # (Y, X) uint8
    nuclei: tuple[zarr.Array, ...]  # (Y, X) uint32
    image_mpp: float
    label_mpp: float


@dataclass(frozen=True)
class _Pyramid:
    """What one multiscale image is made of."""

    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    mpp: float
    method: str


def create_panoptic(
    path: Path,
    *,
    label_shape: tuple[int, int],
    label_mpp: float,
    image: npt.NDArray[np.uint8],
    image_mpp: float,
    taxonomy: Taxonomy,
    version: Version = "0.4",
) -> PanopticArrays:
    """Make the whole group: every array and all metadata; the picture is filled in, the label maps are still empty.

    Parameters
    ----------
    path : Path
        Folder to create; it must not exist.
    label_shape : (int, int)
        Rows and columns of the label maps.
    label_mpp : float
        Micrometres per pixel of the label maps.
    image : (Y, X, 3) uint8
        RGB picture of the same plane.
    image_mpp : float
        Micrometres per pixel of the picture.
    taxonomy : Taxonomy
        Names and colors of the region classes.
    version : {"0.4", "0.5"}
        Of OME-NGFF: 0.4 is Zarr 2, 0.5 is Zarr 3.

    Returns
    -------
    PanopticArrays
        Write level 0 of ``regions`` and ``nuclei``, then call `build_label_levels` on each.

    Raises
    ------
    ShapeMismatch
        If the picture is not RGB or has no pixels.
    """
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        msg = f"the picture must be (Y, X, 3) with pixels in it, found {image.shape}"
        raise ShapeMismatch(msg)
    count = _count_levels(label_shape)
    root = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
    shapes = [(3, *shape) for shape in _level_shapes((image.shape[0], image.shape[1]), count)]
    picture = _add_pyramid(root, "slide", _Pyramid(tuple(shapes), "uint8", image_mpp, "mean"), version=version)
    _put_attributes(root, version, {"omero": _RGB_CHANNELS})
    _fill_image(picture, image)
    labels = root.create_group("labels")
    _put_attributes(labels, version, {"labels": ["regions", "nuclei"]})
    planes = tuple(_level_shapes(label_shape, count))
    regions = labels.create_group("regions")
    nuclei = labels.create_group("nuclei")
    region_levels = _add_pyramid(regions, "regions", _Pyramid(planes, "uint8", label_mpp, "mode"), version=version)
    nucleus_levels = _add_pyramid(nuclei, "nuclei", _Pyramid(planes, "uint32", label_mpp, "nearest"), version=version)
    _put_attributes(regions, version, {"image-label": _region_label(taxonomy, version)})
    _put_attributes(nuclei, version, {"image-label": _image_label(version)})
    return PanopticArrays(picture, region_levels, nucleus_levels, image_mpp, label_mpp)


def open_panoptic(path: Path) -> PanopticArrays:
    """Open what `create_panoptic` made, for reading.

    Raises
    ------
    ResultError
        If the folder is missing, or is not such a group.
    """
    try:
        check_regular_tree(path)
        root = zarr.open_group(str(path), mode="r")
        image, image_mpp = _open_pyramid(root)
        regions, label_mpp = _open_pyramid(root["labels/regions"])
        nuclei, _ = _open_pyramid(root["labels/nuclei"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, NodeNotFoundError) as error:
        msg = f"{path}: no OME-Zarr group with labels/regions and labels/nuclei; run this slide again ({error!r})"
        raise ResultError(msg) from error
    return PanopticArrays(image, regions, nuclei, image_mpp, label_mpp)


def build_label_levels(levels: Sequence[zarr.Array], *, method: Literal["mode", "nearest"], workers: int = 0) -> None:
    """Fill the coarser levels of a label map from its finest, block by block.

    Parameters
    ----------
    levels : sequence of (Y, X) arrays
        Finest first, each half the size of the one before (rounded up). Level 0 is full.
    method : {"mode", "nearest"}
        The most frequent of four ids (a tie goes to the upper left one, and to the lower right one where the next level
        is made, so that borders do not wander), or one of the four. Ids are never mixed.
    workers : int
        Threads; 0 works in line, with the same result.

    Notes
    -----
    Memory: a block of four chunks for each thread. Blocks that are wholly 0 are not written.
    """
    for number, (fine, coarse) in enumerate(pairwise(levels)):
        halve = partial(_halve_block, fine, coarse, method=method, times=number)
        in_turn(halve, _blocks(coarse), workers=workers)


def _halve_block(
    fine: zarr.Array,
    coarse: zarr.Array,
    place: tuple[slice, slice],
    *,
    method: Literal["mode", "nearest"],
    times: int,
) -> None:
    rows, columns = place
    block = fine[rows.start * 2 : rows.stop * 2, columns.start * 2 : columns.stop * 2]
    if block.any():
        coarse[rows, columns] = halve_labels(block, method=method, times=times)


def halve_labels(labels: LabelArray, *, method: Literal["mode", "nearest"], times: int = 0) -> LabelArray:
    """Make a label map half as wide and high, rounded up; ``times`` it was halved already, see `build_label_levels`."""
    even = _even(labels)
    if method == "nearest":
        return _one_of_four(even)
    if times % 2:
        return _mode_of_four(even[::-1, ::-1])[::-1, ::-1]
    return _mode_of_four(even)


def _count_levels(shape: tuple[int, int]) -> int:
    return 1 + max(0, int(np.ceil(np.log2(max(*shape, 1) / _COARSEST))))


def _level_shapes(shape: tuple[int, int], count: int) -> Iterator[tuple[int, int]]:
    return ((_halved(shape[0], level), _halved(shape[1], level)) for level in range(count))


def _halved(size: int, times: int) -> int:
    return max(1, -(-size // 2**times))


def _blocks(array: zarr.Array) -> Iterator[tuple[slice, slice]]:
    starts = [range(0, size, step) for size, step in zip(array.shape, array.chunks, strict=True)]
    for row, column in product(*starts):
        yield (
            slice(row, min(row + array.chunks[0], array.shape[0])),
            slice(column, min(column + array.chunks[1], array.shape[1])),
        )


def _even(block: LabelArray) -> LabelArray:
    """Repeat the last row and column where their number is odd."""
    return np.pad(block, [(0, size % 2) for size in block.shape], mode="edge")


def _mode_of_four(block: LabelArray) -> LabelArray:
    a, b, c, d = block[::2, ::2], block[::2, 1::2], block[1::2, ::2], block[1::2, 1::2]
    first = (a == b) | (a == c) | (a == d)
    second = (b == c) | (b == d)
    return np.where(first | ~(second | (c == d)), a, np.where(second, b, c))


def _one_of_four(block: LabelArray) -> LabelArray:
    return block[::2, ::2]


def _fill_image(levels: Sequence[zarr.Array], image: npt.NDArray[np.uint8]) -> None:
    """Write the picture and its halvings; a pixel is the mean of the area that it covers."""
    for level in levels:
        height, width = level.shape[1:]
        if image.shape[:2] != (height, width):
            padded = np.pad(image, [(0, height * 2 - image.shape[0]), (0, width * 2 - image.shape[1]), (0, 0)], "edge")
            image = cv2.resize(padded, (width, height), interpolation=cv2.INTER_AREA)
        level[:] = np.moveaxis(image, 2, 0)


def _add_pyramid(group: zarr.Group, name: str, pyramid: _Pyramid, *, version: Version) -> tuple[zarr.Array, ...]:
    """Create the arrays of a multiscale image, and say in the group what they are."""
    axes = ["c", "y", "x"][-len(pyramid.shapes[0]) :]
    spatial = {"type": "space", "unit": "micrometer"}
    multiscale = {
        "name": name,
        "axes": [{"name": axis, **({"type": "channel"} if axis == "c" else spatial)} for axis in axes],
        "datasets": [
            {"path": str(level), "coordinateTransformations": _transforms(pyramid.mpp * 2**level, len(axes))}
            for level in range(len(pyramid.shapes))
        ],
        "type": pyramid.method,
    }
    _put_attributes(group, version, {"multiscales": [{**multiscale, **_version_key(version)}]})
    return tuple(
        group.create_array(
            str(level),
            shape=shape,
            dtype=pyramid.dtype,
            chunks=(1,) * (len(axes) - 2) + (CHUNK, CHUNK),
            fill_value=0,
            config={"write_empty_chunks": False},
            **_storage(version, axes),
        )
        for level, shape in enumerate(pyramid.shapes)
    )


def _storage(version: Version, axes: list[str]) -> dict[str, Any]:
    """Say how chunks are compressed: ids repeat along rows, so bytes stay in place (shuffled, files grow by half)."""
    if version == "0.4":
        return {
            "compressors": Blosc(cname="zstd", clevel=3, shuffle=Blosc.NOSHUFFLE),
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
        }
    return {"compressors": BloscCodec(cname="zstd", clevel=3, shuffle="noshuffle"), "dimension_names": axes}


def _transforms(mpp: float, dimensions: int) -> list[dict[str, Any]]:
    """Scale, then shift by half a pixel: the first pixel's centre lies half a pixel from the slide's corner."""
    channels = dimensions - 2
    scale = [1.0] * channels + [mpp, mpp]
    shift = [0.0] * channels + [mpp / 2, mpp / 2]
    return [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]


def _open_pyramid(group: Any) -> tuple[tuple[zarr.Array, ...], float]:
    attributes = group.attrs.asdict()
    multiscale = attributes.get("ome", attributes)["multiscales"][0]
    levels = tuple(group[entry["path"]] for entry in multiscale["datasets"])
    return levels, float(multiscale["datasets"][0]["coordinateTransformations"][0]["scale"][-1])


def _put_attributes(group: zarr.Group, version: Version, entries: dict[str, Any]) -> None:
    if version == "0.4":
        group.attrs.update(entries)
    else:
        group.attrs["ome"] = {"version": version, **group.attrs.asdict().get("ome", {}), **entries}


def _version_key(version: Version) -> dict[str, str]:
    """In 0.4 each object names its version; in 0.5 the group does."""
    return {"version": version} if version == "0.4" else {}


def _image_label(version: Version) -> dict[str, Any]:
    return {**_version_key(version), "source": {"image": "../../"}}


def _region_label(taxonomy: Taxonomy, version: Version) -> dict[str, Any]:
    return {
        **_image_label(version),
        "colors": [{"label-value": c.id, "rgba": [*c.color, 255]} for c in taxonomy.regions],
        "properties": [{"label-value": c.id, "class": c.name} for c in taxonomy.regions],
    }


_RGB_CHANNELS = {
    "channels": [
        {"label": label, "color": color, "active": True, "window": {"min": 0, "max": 255, "start": 0, "end": 255}}
        for label, color in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    ],
    "rdefs": {"model": "color"},
}
