"""How good scores are: arrays in, numbers out. ``docs/metrics.md`` says what each number means.

>>> import numpy as np
>>> from audioset import metrics
>>> scores = np.array([[0.9, 0.2], [0.6, 0.7], [0.8, 0.1], [0.3, 0.4]])
>>> targets = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
>>> metrics.evaluate(scores, targets).mean_ap
1.0
"""

from audioset.metrics.ranking import average_precision, d_prime, lwlrap, lwlrap_of_classes, mean_defined, roc_auc
from audioset.metrics.report import ClassTable, Metrics, confusion, evaluate, roll_up
from audioset.metrics.resampling import Bootstrap, bootstrap
from audioset.metrics.youtube8m import YouTube8MMetrics, evaluate_youtube8m

__all__ = [
    "Bootstrap",
    "ClassTable",
    "Metrics",
    "YouTube8MMetrics",
    "average_precision",
    "bootstrap",
    "confusion",
    "d_prime",
    "evaluate",
    "evaluate_youtube8m",
    "lwlrap",
    "lwlrap_of_classes",
    "mean_defined",
    "roc_auc",
    "roll_up",
]
