"""Immune phenotype: inflamed, excluded or desert."""

from __future__ import annotations

from pathopan.scores.ratio import Ratio


def find_phenotype(
    stil_percent: Ratio, itil_per_mm2: Ratio, *, inflamed_stil_percent: float, inflamed_itil_per_mm2: float
) -> tuple[str, str]:
    """Name the pattern of infiltration.

    Parameters
    ----------
    stil_percent, itil_per_mm2 : Ratio
        The headline scores.
    inflamed_stil_percent, inflamed_itil_per_mm2 : float
        At or above these, stroma and tumor count as infiltrated. No guideline fixes them.

    Returns
    -------
    phenotype : str
        ``inflamed``: tumor nests are infiltrated · ``excluded``: stroma is, tumor is not · ``desert``: neither. Empty
        where a score is.
    reason : str
        Why it is empty.

    Notes
    -----
    Chen & Mellman, "Elements of cancer immunity", Nature 2017; nests infiltrated through poor stroma still are.

    Examples
    --------
    >>> find_phenotype(Ratio(30.0), Ratio(20.0), inflamed_stil_percent=10, inflamed_itil_per_mm2=100)
    ('excluded', '')
    """
    if stil_percent.value is None:
        return "", f"no sTIL: {stil_percent.reason}"
    if itil_per_mm2.value is None:
        return "", f"no iTIL: {itil_per_mm2.reason}"
    if itil_per_mm2.value >= inflamed_itil_per_mm2:
        return "inflamed", ""
    return ("excluded" if stil_percent.value >= inflamed_stil_percent else "desert"), ""
