"""Intra-tumoral TILs: those whose centroid lies in a tumor nest. Reported beside sTIL, never in it."""

from __future__ import annotations

from pathopan.scores.ratio import Number, Ratio, divide
from pathopan.scores.stil import til_density_per_mm2


def itil_per_mm2(n_til: Number, tumor_mm2: float, *, where: str, least_mm2: float) -> Ratio:
    """Give TILs per mm2 of tumor nests.

    Notes
    -----
    Salgado et al., Ann Oncol 2015: TILs in contact with carcinoma cells, without intervening stroma.
    """
    return til_density_per_mm2(n_til, tumor_mm2, where=where, least_mm2=least_mm2)


def itil_per_100_tumor_cells(n_til: Number, n_tumor_cells: Number) -> Ratio:
    """Give intra-tumoral TILs for every hundred tumor nuclei in the same nests.

    Examples
    --------
    >>> itil_per_100_tumor_cells(5, 200).value
    2.5
    """
    return divide(n_til, n_tumor_cells, what="tumor nuclei").times(100)
