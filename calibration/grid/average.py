"""Means, medians and trimmed means over samples, also over resamples of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lm_eval_ape.calibration.objective.objective import Average

Floats = NDArray[np.float64]
# The share of the samples that is left out at each end; a median leaves out all but the middle.
_TRIMMED: Mapping[Average, float] = {"mean": 0.0, "trimmed_mean": 0.1, "median": 0.5 - 1e-6}


def average(values: Floats, how: Average) -> Floats:
    """The average over samples.

    Args:
        values: `(samples, points)`.
        how: The mean, the median, or the mean without the least and the largest tenth.

    Returns:
        `(points,)`.
    """
    samples = len(values)
    return values.mean(0) if how == "mean" else averages(values, np.full((1, samples), 1 / samples), how)[0]


def averages(values: Floats, weights: Floats, how: Average) -> Floats:
    """The average over the samples of each resample.

    Args:
        values: `(samples, points)`.
        weights: Of the samples in each resample, `(resamples, samples)`, each row summing to 1.
        how: As for `average`.

    Returns:
        `(resamples, points)`.
    """
    if how == "mean":
        return weights @ values
    low = _TRIMMED[how]
    found = np.empty((len(weights), values.shape[1]))
    for point, column in enumerate(values.T):
        order = np.argsort(column, kind="stable")
        # Each sample takes a stretch from 0 to 1 as long as its weight; what counts is its part in the middle.
        ends = np.cumsum(weights[:, order], axis=1).clip(low, 1 - low)
        parts = np.diff(ends, axis=1, prepend=low)
        found[:, point] = (parts @ column[order]) / (1 - 2 * low)
    return found
