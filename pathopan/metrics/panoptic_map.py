"""Panoptic quality over stuff and things together: one segment per region class and one per nucleus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pathopan.errors import ShapeMismatch
from pathopan.metrics.panoptic import PanopticCounts, count_by_class, match_instances

IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True)
class PanopticMap:
    """A region map, the nuclei that lie on it, and each nucleus's class.

    Parameters
    ----------
    region : (Y, X) int
        Region class ids; 0 is not analysed, or void in a truth.
    instances : (Y, X) int
        Nucleus ids; 0 is none. A nucleus covers the region below it.
    classes : mapping of int to int
        Nucleus class id of each instance id.

    Raises
    ------
    ShapeMismatch
        If the two maps differ in shape.
    """

    region: IntArray
    instances: IntArray
    classes: Mapping[int, int]

    def __post_init__(self) -> None:
        """Check that the maps belong together."""
        if self.region.shape != self.instances.shape:
            msg = f"the region map is {self.region.shape}, the instance map {self.instances.shape}"
            raise ShapeMismatch(msg)

    def segments(self) -> tuple[npt.NDArray[np.int64], dict[int, int]]:
        """Give every segment its own number: regions their class id, nuclei their id plus 256.

        Returns
        -------
        labels : (Y, X) int
            0 is void.
        classes : dict of int to int
            Class of each segment: regions are negative ``-region_id``, nuclei ``class_id``.
        """
        offset = 256
        nuclei = self.instances > 0
        labels = np.where(nuclei, self.instances.astype(np.int64) + offset, self.region.astype(np.int64))
        classes = {int(r): -int(r) for r in np.unique(self.region) if r}
        classes |= {int(i) + offset: self.classes[int(i)] for i in np.unique(self.instances[nuclei])}
        return labels, classes


def count_panoptic(
    truth: PanopticMap, pred: PanopticMap, *, region_ids: Sequence[int], nucleus_ids: Sequence[int]
) -> tuple[dict[int, PanopticCounts], dict[int, PanopticCounts]]:
    """Count the matches of stuff and of things in one image.

    Pixels whose truth is void (region 0 and no nucleus) count in no overlap, and an unmatched predicted segment that
    lies mostly there is no false positive.

    Parameters
    ----------
    truth, pred : PanopticMap
        Of the same image at the same mpp.
    region_ids, nucleus_ids : sequence of int
        Classes to count.

    Returns
    -------
    stuff, things : dict of int to PanopticCounts
        By region class and by nucleus class. Panoptic quality is :func:`pathopan.metrics.panoptic.mean_pq` over the
        classes of both, of counts pooled over images.

    Raises
    ------
    ShapeMismatch
        If the two images differ in shape.

    Notes
    -----
    Kirillov et al., Panoptic Segmentation, CVPR 2019, sections 4.1 and 4.2.
    """
    truth_labels, truth_classes = truth.segments()
    pred_labels, pred_classes = pred.segments()
    matches = match_instances(truth_labels, pred_labels, void=truth_labels == 0)
    wanted = [*(-r for r in region_ids), *nucleus_ids]
    counts = count_by_class(matches, truth_classes, pred_classes, class_ids=wanted)
    return {r: counts[-r] for r in region_ids}, {n: counts[n] for n in nucleus_ids}
