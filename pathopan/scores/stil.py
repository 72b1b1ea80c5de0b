"""Stromal TILs: each formula once. TILs are lymphocytes and plasma cells whose centroid lies in stroma."""

from __future__ import annotations

from pathopan.scores.ratio import Number, Ratio, divide

MM2 = 1e6
"""um2 in a mm2."""


def til_density_per_mm2(n_til: Number, area_mm2: float, *, where: str, least_mm2: float) -> Ratio:
    """Divide a pooled count by a pooled area; never a mean of densities.

    Notes
    -----
    Salgado et al., Ann Oncol 2015, items 1 and 8: the denominator is an area, and the average is taken, not hot spots.

    Examples
    --------
    >>> round(til_density_per_mm2(174, 0.0849, where="stroma", least_mm2=0.01).value)
    2049
    """
    return divide(n_til, area_mm2, what=where, least=least_mm2, unit="mm2")


def til_area_percent(til_area_um2: float, area_mm2: float, *, where: str, least_mm2: float) -> Ratio:
    """Give the segmented area of TIL nuclei as per cent of the area.

    Notes
    -----
    Salgado et al. 2015, item 1: area occupied by mononuclear cells over area of stroma. Nuclei are smaller than cells.
    """
    return divide(til_area_um2 / MM2, area_mm2, what=where, least=least_mm2, unit="mm2").times(100)


def til_area_percent_fixed(
    n_til: Number, area_mm2: float, *, footprint_um2: float, where: str, least_mm2: float
) -> Ratio:
    """Give the area that TILs stand for, the same for each, as per cent of the area: the headline in stroma.

    Notes
    -----
    TIGER's baseline (tiger.grand-challenge.org): 8 um x 8 um = 64 um2 a TIL. Independent of how outlines are drawn.

    Examples
    --------
    >>> til_area_percent_fixed(1000, 0.64, footprint_um2=64, where="stroma", least_mm2=0.01).value
    10.0
    """
    return divide(n_til * footprint_um2 / MM2, area_mm2, what=where, least=least_mm2, unit="mm2").times(100)


def til_area_percent_dense(dense_mm2: float, area_mm2: float, *, where: str, least_mm2: float) -> Ratio:
    """Give lymphocyte-rich stroma as per cent of all stroma.

    Notes
    -----
    MuTILs' TILs2AnyStromaRatio (Liu et al., npj Breast Cancer 2024); nearest to how the eye judges an infiltrate.
    """
    return divide(dense_mm2, area_mm2, what=where, least=least_mm2, unit="mm2").times(100)


def til_fraction_of_nuclei(n_til: Number, n_nuclei: Number) -> Ratio:
    """Give the share of TILs among all nuclei."""
    return divide(n_til, n_nuclei, what="nuclei")


def tils_per_tumor_cell(n_til: Number, n_tumor_cells: Number) -> Ratio:
    """Give the number of TILs for each tumor nucleus."""
    return divide(n_til, n_tumor_cells, what="tumor nuclei")


def stil_itil_ratio(stil_density: Ratio, itil_density: Ratio) -> Ratio:
    """Divide the density of stromal by that of intra-tumoral TILs."""
    for name, density in (("sTIL", stil_density), ("iTIL", itil_density)):
        if density.value is None:
            return Ratio(None, f"no {name} density: {density.reason}")
    return divide(stil_density.value or 0.0, itil_density.value or 0.0, what="iTIL")
