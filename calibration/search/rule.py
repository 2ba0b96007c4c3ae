"""By which rule one encoding is chosen of many, from what they cost and how far they are from the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_ape.calibration.grid.average import Floats, averages
from lm_eval_ape.calibration.objective.objective import Average

Bools = NDArray[np.bool_]


class Rival(NamedTuple):
    """An encoding as a rule sees it.

    Attributes:
        cost: Its share of the sequential model's prefill.
        values: What the choice makes small, `(samples, points)`.
    """

    cost: float
    values: Floats


@dataclass(frozen=True)
class Rule:
    """The cheapest encoding that is close enough.

    Without `accept` and `budget`: the cheapest whose average is within one standard error of the least one, the error
    being that of their paired difference (Breiman et al., Classification and Regression Trees, 1984, have the rule).

    Attributes:
        accept: Close enough is an average of at most this.
        budget: Of those that cost at most this share of the sequential model's prefill, the closest is chosen.
        average: How samples are averaged.
    """

    accept: float | None = None
    budget: float | None = None
    average: Average = "mean"

    @property
    def name(self) -> Literal["one_standard_error", "accept", "budget"]:
        """Which of the three it is."""
        if self.accept is not None:
            return "accept"
        return "one_standard_error" if self.budget is None else "budget"

    def picks(self, rivals: Sequence[Rival], weights: Floats) -> NDArray[np.int64]:
        """What is chosen in each of some resamples of the samples.

        Args:
            rivals: Measured on the same samples.
            weights: Of the samples in each resample, `(resamples, samples)`. The resamples' scatter is the standard
                error.

        Returns:
            Numbers of rivals, `(resamples,)`; -1 where none is close or cheap enough. Of equally cheap ones the closest
            is chosen, of equally close ones the cheapest, of equals the first.
        """
        everything = np.vstack([np.full((1, weights.shape[1]), 1 / weights.shape[1]), weights])
        # Each encoding by its best point, in every resample anew.
        found = np.stack([averages(one.values, everything, self.average).min(1) for one in rivals], axis=1)
        return self._pick(rivals, found[1:], self._errors(found[1:]))

    def pick(self, rivals: Sequence[Rival], weights: Floats) -> int | None:
        """What is chosen on the samples themselves; None where none is close or cheap enough.

        Args:
            rivals: As for `picks`.
            weights: As for `picks`.
        """
        own = np.full((1, weights.shape[1]), 1 / weights.shape[1])
        found, resampled = (
            np.stack([averages(one.values, drawn, self.average).min(1) for one in rivals], axis=1)
            for drawn in (own, weights)
        )
        picked = int(self._pick(rivals, found, self._errors(resampled))[0])
        return None if picked < 0 else picked

    def _pick(self, rivals: Sequence[Rival], found: Floats, errors: Floats) -> NDArray[np.int64]:
        costs = np.array([one.cost for one in rivals])
        if self.budget is not None:
            within = np.broadcast_to(costs <= self.budget, found.shape)
            order = np.lexsort((np.broadcast_to(costs, found.shape), found))
        else:
            if self.accept is None:
                best = found.argmin(1)
                within = found <= found.min(1, keepdims=True) + errors[best]
            else:
                within = found <= self.accept
            order = np.lexsort((found, np.broadcast_to(costs, found.shape)))
        return np.array(
            [next((int(one) for one in row if fits[one]), -1) for row, fits in zip(order, within, strict=True)]
        )

    @staticmethod
    def _errors(resampled: Floats) -> Floats:
        """Standard errors of the paired differences of averages, `(rivals, rivals)`."""
        return (resampled[:, :, None] - resampled[:, None, :]).std(0)


def frontier(costs: Sequence[float], averages: Sequence[float]) -> list[bool]:
    """Which encodings no other one beats in cost and closeness at once (Pareto's frontier)."""
    pairs = list(zip(costs, averages, strict=True))
    return [not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in pairs) for own in pairs]
