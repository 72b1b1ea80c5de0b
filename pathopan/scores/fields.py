"""Fields: the slide in squares, with everything that a score needs counted in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pathopan.classes import Taxonomy
from pathopan.errors import ConfigError
from pathopan.objects import SlideObjects
from pathopan.objects.compartments import N_PLACES, Lookup
from pathopan.objects.features import values_at

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """What a compartment holds, field by field."""

    area_mm2: FloatArray  # (F,)
    counts: IntArray  # (F, C) nuclei by class, in the taxonomy's order
    til_area_um2: FloatArray  # (F,) segmented area of TIL nuclei


@dataclass(frozen=True)
class FieldTally:
    """Pixels and nuclei of each place in each field. All scores of a slide are sums over parts of it."""

    taxonomy: Taxonomy
    mpp: float
    field_um: float
    start_um: tuple[float, float]  # x and y of the first field's corner, 0 or less
    shape: tuple[int, int]  # rows and columns of fields
    places: npt.NDArray[np.int64]  # (P,) places that occur
    pixels: IntArray  # (F, P)
    counts: IntArray  # (F, P, C)
    til_area_um2: FloatArray  # (F, P)

    def part(self, lookup: Lookup) -> Part:
        """Sum over the places that a lookup of all 65,536 marks."""
        chosen = lookup[self.places]
        area = self.pixels[:, chosen].sum(axis=1) * (self.mpp / 1000) ** 2
        return Part(area, self.counts[:, chosen].sum(axis=1), self.til_area_um2[:, chosen].sum(axis=1))

    def corners_um(self) -> FloatArray:
        """Give the (F, 2) x and y of each field's corner."""
        rows, columns = np.divmod(np.arange(self.shape[0] * self.shape[1]), self.shape[1])
        return np.column_stack([columns, rows]) * self.field_um + np.asarray(self.start_um)


def tally_fields(objects: SlideObjects, *, field_um: float, shift_um: tuple[float, float] = (0.0, 0.0)) -> FieldTally:
    """Count the pixels and nuclei of every place in every field.

    Parameters
    ----------
    objects : SlideObjects
        The slide.
    field_um : float
        Side of a field.
    shift_um : (float, float)
        How far the first field starts left of and above the slide.

    Returns
    -------
    FieldTally
        A pixel belongs to the field that holds its centre, a nucleus goes with the pixel of its centroid. Nuclei
        outside the map count as not analysed, in the nearest field.

    Raises
    ------
    ConfigError
        If fields are smaller than a pixel, or shifted by a field or more.
    """
    if field_um < objects.mpp or not all(0 <= shift < field_um for shift in shift_um):
        msg = (
            f"fields of {field_um} um, shifted by {shift_um}, on a map of {objects.mpp} um/px: shift less than a field"
        )
        raise ConfigError(msg)
    taxonomy, places, mpp = objects.taxonomy, objects.places, objects.mpp
    height, width = places.shape
    row_field = _shifted_fields(height, field_um / mpp, shift_um[1] / mpp)
    column_field = _shifted_fields(width, field_um / mpp, shift_um[0] / mpp)
    shape = (int(row_field[-1]) + 1, int(column_field[-1]) + 1)
    points = objects.nucleus_pixels()
    at_nuclei = values_at(places, points, outside=0).astype(np.int64)
    pixels, occurring = _count_pixels(places, row_field[:height], column_field[:width], (shape[1], at_nuclei))
    row, column = _nearest(objects, points)
    field = row_field[row] * shape[1] + column_field[column]
    place = np.searchsorted(occurring, at_nuclei)
    class_ids = np.array([c.id for c in taxonomy.nuclei])
    order = np.argsort(class_ids)
    kind = order[np.searchsorted(class_ids[order], objects.nuclei["class_id"].to_numpy())]
    cells = field * len(occurring) + place
    n_cells, n_classes = shape[0] * shape[1] * len(occurring), len(class_ids)
    counts = np.bincount(cells * n_classes + kind, minlength=n_cells * n_classes)
    is_til = np.isin(objects.nuclei["class_id"].to_numpy(), taxonomy.nucleus_ids("til"))
    til_area = np.bincount(cells, weights=objects.nuclei["area_um2"].to_numpy() * is_til, minlength=n_cells)
    return FieldTally(
        taxonomy=taxonomy,
        mpp=mpp,
        field_um=field_um,
        start_um=(-shift_um[0], -shift_um[1]),
        shape=shape,
        places=occurring,
        pixels=pixels.reshape(shape[0] * shape[1], len(occurring)),
        counts=counts.reshape(shape[0] * shape[1], len(occurring), n_classes),
        til_area_um2=til_area.astype(np.float64).reshape(shape[0] * shape[1], len(occurring)),
    )


def _shifted_fields(count: int, field_px: float, shift_px: float) -> IntArray:
    """Give the field of each row or column; at least one entry, so that an empty map has one empty field."""
    return np.floor((np.arange(max(count, 1)) + 0.5 + shift_px) / field_px).astype(np.int64)


def _nearest(objects: SlideObjects, points: IntArray) -> tuple[IntArray, IntArray]:
    """Give row and column of each nucleus's pixel, the nearest in the map for those outside."""
    height, width = objects.places.shape
    row, column = np.divmod(points, max(width, 1))
    outside = points < 0
    if outside.any():
        for values, name, size in ((row, "y_um", height), (column, "x_um", width)):
            away = objects.nuclei[name].to_numpy()[outside] // objects.mpp
            values[outside] = np.clip(away, 0, max(size - 1, 0)).astype(np.int64)
    return row, column


def _count_pixels(
    places: npt.NDArray[np.uint16], row_field: IntArray, column_field: IntArray, extra: tuple[int, IntArray]
) -> tuple[IntArray, IntArray]:
    """Count each place in each field; give also the places that occur, those of nuclei included."""
    columns, at_nuclei = extra
    present = np.bincount(at_nuclei, minlength=N_PLACES) > 0
    rows_of = [slice(*np.searchsorted(row_field, (row, row + 1))) for row in np.unique(row_field)]
    for lines in rows_of:
        present |= np.bincount(places[lines].ravel(), minlength=N_PLACES) > 0
    occurring = np.flatnonzero(present)
    compact = np.zeros(N_PLACES, np.int64)
    compact[occurring] = np.arange(len(occurring))
    offset = column_field * len(occurring)
    found = [
        np.bincount((compact[places[lines]] + offset).ravel(), minlength=columns * len(occurring)) for lines in rows_of
    ]
    return np.concatenate(found or [np.zeros(columns * len(occurring), np.int64)]), occurring
