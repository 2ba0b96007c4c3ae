"""How much a choice owes to the samples it was made on: a bootstrap over samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_ape.artefacts.estimates import Difference
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.grid.average import Floats, averages
from lm_eval_ape.calibration.grid.choice import TIE, Table, nearest_to_neutral

STABLE_WIDTH = 0.1
"""A parameter is stable if its 95% interval is at most this wide (as in the paper)."""
INTERVAL = (2.5, 97.5)
# Widths are differences of decimal fractions.
_ROUNDING = 1e-9


class Parameter(NamedTuple):
    """What the resamples choose for T or for S.

    Attributes:
        values: The choice of each resample.
        mode: The most frequent; of equally frequent ones the largest.
        low: Lower end of the 95% interval.
        high: Upper end.
    """

    values: Floats
    mode: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Width of the interval."""
        return self.high - self.low

    @property
    def stable(self) -> bool:
        """Whether the interval is narrow enough."""
        return self.width <= STABLE_WIDTH + _ROUNDING


class Stability(NamedTuple):
    """The choices of all resamples.

    Attributes:
        temperature: Of T.
        scale: Of S.
        frequencies: Share of resamples that choose a point, most frequent first.
    """

    temperature: Parameter
    scale: Parameter
    frequencies: dict[Point, float]


def resample(samples: int, resamples: int, seed: int) -> Floats:
    """Weights of the samples in each resample, `(resamples, samples)`, each row summing to 1."""
    counts = np.random.default_rng(seed).multinomial(samples, np.full(samples, 1 / samples), size=resamples)
    return counts / samples


def stability(table: Table, weights: Floats) -> Stability:
    """Choose again on every resample.

    Args:
        table: What the choice was made from.
        weights: What `resample` gave.
    """
    ordered = nearest_to_neutral(table.grid.points)
    means = averages(table.judged_by[:, table.columns(ordered)], weights, table.average)
    # The first within a tie of the least is the nearest to (1, 1), as `choose` does it.
    picks = np.argmax(means <= means.min(axis=1, keepdims=True) + TIE, axis=1)
    counts = np.bincount(picks)
    frequencies = {ordered[index]: counts[index] / len(picks) for index in np.argsort(-counts, kind="stable")}
    values = np.array(ordered)[picks]
    return Stability(
        _parameter(values[:, 0]),
        _parameter(values[:, 1]),
        {point: float(share) for point, share in frequencies.items() if share},
    )


def _parameter(values: NDArray[np.float64]) -> Parameter:
    different, counts = np.unique(values, return_counts=True)
    low, high = np.percentile(values, INTERVAL)
    return Parameter(values, float(different[counts == counts.max()].max()), float(low), float(high))


def difference(first: Floats, second: Floats, weights: Floats) -> Difference:
    """Mean of `first - second` over the samples, with its interval over resamples of the pairs."""
    pairs = first - second
    means = weights @ pairs
    low, high = np.percentile(means, INTERVAL)
    return Difference(mean=float(pairs.mean()), low=float(low), high=float(high), positive=float((means > 0).mean()))
