"""Conservation: what a finished slide's tables and scores must agree on, whatever was on the slide."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from pathopan.classes import Taxonomy
from pathopan.objects import PARTITION, TILES_OF

RELATIVE = 1e-6
"""Areas are sums of the same pixels, so they differ by rounding only."""


def find_violations(
    score: Mapping[str, Any],
    regions: gpd.GeoDataFrame,
    nuclei: pd.DataFrame,
    *,
    taxonomy: Taxonomy,
    mpp_l0: tuple[float, float],
) -> list[str]:
    """Check that areas and nuclei are conserved.

    Parameters
    ----------
    score : dict
        ``score.json`` of the slide.
    regions : GeoDataFrame
        Its rows of ``regions.parquet``.
    nuclei : DataFrame
        Its ``nuclei.parquet``.
    taxonomy : Taxonomy
        What the classes mean.
    mpp_l0 : (float, float)
        Micrometres per level-0 pixel, along x and y.

    Returns
    -------
    list of str
        One sentence for each thing that does not add up; empty if all does.
    """
    if score.get("status") == "failed":
        return []
    parts = score["compartments"]
    return [
        *_tilings(parts),
        *_nuclei_by_compartment(parts, nuclei, taxonomy),
        *_nuclei_by_region(regions, nuclei, taxonomy),
        *_regions_and_score(parts, regions),
        *_outlines(regions, mpp_l0),
        *_ratios(parts),
    ]


def _differ(first: float, second: float) -> bool:
    return not math.isclose(first, second, rel_tol=RELATIVE, abs_tol=1e-9)


def _tilings(parts: Mapping[str, Any]) -> Iterator[str]:
    """Compartments that make up another sum to it, in area and in nuclei."""
    for whole, pieces in TILES_OF:
        for name in ("area_mm2", "n_nuclei", "n_til"):
            total = sum(parts[piece][name] for piece in pieces)
            if _differ(total, parts[whole][name]):
                yield f"{name} of {' + '.join(pieces)} is {total}, of {whole} {parts[whole][name]}"


def _nuclei_by_compartment(parts: Mapping[str, Any], nuclei: pd.DataFrame, taxonomy: Taxonomy) -> Iterator[str]:
    """Every nucleus is in one compartment, and the score counts it there."""
    found = pd.crosstab(nuclei["compartment"], nuclei["class"])
    stray = sorted(set(found.index) - set(PARTITION))
    if stray:
        yield f"nuclei lie in unknown compartments {stray}"
    for name in PARTITION:
        for kind in taxonomy.nuclei:
            counted = int(found[kind.name].get(name, 0)) if kind.name in found else 0
            if counted != parts[name][f"n_{kind.name}"] and not _is_role_count(kind.name, taxonomy):
                yield f"the table has {counted} {kind.name} nuclei in {name}, the score {parts[name][f'n_{kind.name}']}"
    total = sum(parts[name]["n_nuclei"] for name in PARTITION)
    if total != len(nuclei):
        yield f"the compartments hold {total} nuclei, the table has {len(nuclei)}"


def _is_role_count(name: str, taxonomy: Taxonomy) -> bool:
    """Tell whether n_<class> is taken by the count of all TILs."""
    return name == "til" and len(taxonomy.nucleus_ids("til")) > 1


def _nuclei_by_region(regions: gpd.GeoDataFrame, nuclei: pd.DataFrame, taxonomy: Taxonomy) -> Iterator[str]:
    """Every nucleus is counted in its region, and in no other."""
    inside = nuclei[nuclei["region_id"] > 0]
    stray = sorted(set(inside["region_id"]) - set(regions["region_id"]))
    if stray:
        yield f"nuclei lie in the regions {stray[:5]}, which the table of regions lacks"
    til = inside[inside["class_id"].isin(taxonomy.nucleus_ids("til"))]
    for column, rows in (("n_nuclei", inside), ("n_til", til)):
        counted = rows["region_id"].value_counts().reindex(regions["region_id"], fill_value=0).to_numpy()
        wrong = np.flatnonzero(counted != regions[column].to_numpy())
        if len(wrong):
            row = regions.iloc[int(wrong[0])]
            yield (
                f"{column} differs in {len(wrong)} regions; region {row['region_id']} says {row[column]}, "
                f"the nuclei {counted[wrong[0]]}"
            )


def _regions_and_score(parts: Mapping[str, Any], regions: gpd.GeoDataFrame) -> Iterator[str]:
    """Regions are the tissue: their sums are the score's."""
    for name in ("area_mm2", "n_nuclei", "n_til"):
        total = float(regions[name].sum())
        if _differ(total, parts["tissue"][name]):
            yield f"{name} of all regions is {total}, of the tissue {parts['tissue'][name]}"


def _outlines(regions: gpd.GeoDataFrame, mpp_l0: tuple[float, float]) -> Iterator[str]:
    """Outlines are valid, and enclose the area that the table states."""
    broken = regions.loc[~regions.geometry.is_valid, "region_id"].tolist()
    if broken:
        yield f"the outlines of regions {broken[:5]} are not valid"
    area = regions.geometry.area.to_numpy() * mpp_l0[0] * mpp_l0[1] / 1e6
    wrong = ~np.isclose(area, regions["area_mm2"].to_numpy(), rtol=1e-4, atol=1e-9)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        stated = regions["area_mm2"].iloc[row]
        yield f"{int(wrong.sum())} outlines differ in area from the table; the first has {area[row]}, stated {stated}"


def _ratios(parts: Mapping[str, Any]) -> Iterator[str]:
    """Compare each density with its numerator and denominator; an empty one has a reason."""
    for name, part in parts.items():
        if "til_density_per_mm2" not in part:
            continue
        density, reason = part["til_density_per_mm2"], part.get("reasons", {}).get("til_density_per_mm2")
        if density is None and not reason:
            yield f"the density of {name} is empty without a reason"
        elif density is not None and (part["area_mm2"] <= 0 or _differ(density, part["n_til"] / part["area_mm2"])):
            yield f"the density of {name} is {density}, but n_til {part['n_til']} over area {part['area_mm2']} is not"
