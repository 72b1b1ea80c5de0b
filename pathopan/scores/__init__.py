"""TIL scores: tables in, numbers out. Each formula stands once, beside its source."""

from pathopan.scores.calibration import Calibration, apply_calibration, fit_calibration
from pathopan.scores.columns import lined_up, scores_schema, scores_table
from pathopan.scores.parts import ScoreRules
from pathopan.scores.regions import score_regions
from pathopan.scores.stability import Stability, score_stability
from pathopan.scores.summary import SlideScore, failed_score, score_slide
from pathopan.scores.verify import find_violations

__all__ = [
    "Calibration",
    "ScoreRules",
    "SlideScore",
    "Stability",
    "apply_calibration",
    "failed_score",
    "find_violations",
    "fit_calibration",
    "lined_up",
    "score_regions",
    "score_slide",
    "score_stability",
    "scores_schema",
    "scores_table",
]
