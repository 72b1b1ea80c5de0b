"""Agreement with truth: nuclei are matched once, and every figure is a function of counts that add.

``panoptic`` PQ, SQ, RQ, mPQ, mPQ+ of nuclei · ``panoptic_map`` of regions and nuclei together · ``overlap`` AJI, AJI+,
Dice · ``detection`` F1 of centres · ``semantic`` Dice and IoU of regions · ``agreement`` ICC, rank correlation,
Bland-Altman, kappa, bootstrap · ``reliability, calibrate`` whether probabilities are honest · ``evaluate`` all of
them, of anyone's predictions.
"""

from pathopan.metrics.evaluate import EvaluationResult, evaluate, pool, read_pairs
from pathopan.metrics.panoptic import Matches, PanopticCounts, match_instances
from pathopan.metrics.prediction import Prediction, read_prediction

__all__ = [
    "EvaluationResult",
    "Matches",
    "PanopticCounts",
    "Prediction",
    "evaluate",
    "match_instances",
    "pool",
    "read_pairs",
    "read_prediction",
]
