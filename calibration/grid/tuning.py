"""What labels would choose, and how well divergence predicts the score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata, spearmanr

from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.grid.average import Floats, average, averages
from lm_eval_ape.calibration.grid.choice import TIE, nearest_to_neutral
from lm_eval_ape.calibration.grid.stability import INTERVAL
from lm_eval_ape.calibration.objective.objective import Average
from lm_eval_ape.harness.metrics import Metric


class Rank(NamedTuple):
    """Spearman's rank correlation of a signal's average and the mean score over points.

    Attributes:
        rho: It; None where one of the two is the same for all points.
        p_value: Of no correlation, two-sided, as if the points were independent; None for two points.
        low: Lower end of the 95% interval over resamples of the documents.
        high: Upper end.
        points: How many points.
    """

    rho: float | None
    p_value: float | None
    low: float | None
    high: float | None
    points: int


def oracle(means: Mapping[Point, float], metric: Metric) -> Point:
    """The point that labels would choose; of equally good ones the nearest to (1, 1)."""
    sign = 1.0 if metric.higher_is_better else -1.0
    best = max(sign * value for value in means.values())
    return next(point for point in nearest_to_neutral(list(means)) if sign * means[point] >= best - TIE)


def rank(signal: Floats, scores: Floats, weights: Floats, how: Average = "mean") -> Rank:
    """Correlate a signal and the score over points.

    Args:
        signal: `(documents, points)`.
        scores: `(documents, points)`.
        weights: Resamples of the documents (see `stability.resample`).
        how: How the signal is averaged over documents.
    """
    points = signal.shape[1]
    means = average(signal, how), scores.mean(0)
    if min(np.ptp(mean) for mean in means) <= TIE:
        return Rank(None, None, None, None, points)
    found = spearmanr(*means)
    ranks = rankdata(averages(signal, weights, how), axis=1), rankdata(weights @ scores, axis=1)
    resampled = _row_correlations(*ranks)
    resampled = resampled[np.isfinite(resampled)]
    low, high = np.percentile(resampled, INTERVAL).tolist() if len(resampled) else (None, None)
    p_value = float(found.pvalue) if np.isfinite(found.pvalue) else None
    return Rank(float(found.statistic), p_value, low, high, points)


def _row_correlations(first: Floats, second: Floats) -> Floats:
    """Pearson's correlation of each pair of rows; not a number for a constant row."""
    first = first - first.mean(1, keepdims=True)
    second = second - second.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1))
