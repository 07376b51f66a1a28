"""Evaluate models on AudioSet: which clips, how good, how sure, and what is confused with what.

>>> from audioset.evaluate import evaluate_scores, read_scores, read_targets
>>> scores = read_scores("scores.npz").scores  # doctest: +SKIP
>>> evaluation, clips = evaluate_scores(scores, read_targets("eval_segments.csv", scores.labels))  # doctest: +SKIP
>>> evaluation.metrics["mean_ap"], evaluation.intervals["mean_ap"]  # doctest: +SKIP
"""

from audioset.evaluate.clips import ScoredClips, Scores, Targets
from audioset.evaluate.comparison import Comparison, Difference, System, compare
from audioset.evaluate.evaluation import Evaluation, EvaluationSettings, evaluate_scores, read_evaluation
from audioset.evaluate.sources import find_audio, read_targets, score_audio, score_features
from audioset.evaluate.storage import ScoreFile, read_scores, write_folder

__all__ = [
    "Comparison",
    "Difference",
    "Evaluation",
    "EvaluationSettings",
    "ScoreFile",
    "ScoredClips",
    "Scores",
    "System",
    "Targets",
    "compare",
    "evaluate_scores",
    "find_audio",
    "read_evaluation",
    "read_scores",
    "read_targets",
    "score_audio",
    "score_features",
    "write_folder",
]
