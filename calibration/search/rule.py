"""By which rule one encoding is chosen of many, from what they cost and how far they are from the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    being that of the least one's average (Breiman et al., Classification and Regression Trees, 1984).

    What costs as much as the sequential model is not chosen where something cheaper was tried: the sequential model
    itself is at no distance.

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
            weights: Of the samples in each resample, `(resamples, samples)`; their scatter is the standard error.

        Returns:
            Numbers of rivals, `(resamples,)`; -1 where none is close or cheap enough. Of equally cheap ones the closest
            is chosen, of equally close ones the cheapest, of equals the first.
        """
        found = self._averages(rivals, weights)
        return self._picks(rivals, found, found.std(0))

    def pick(self, rivals: Sequence[Rival], weights: Floats) -> int | None:
        """What is chosen on the samples themselves; None where none is close or cheap enough.

        Args:
            rivals: As for `picks`.
            weights: As for `picks`.
        """
        each = np.full((1, weights.shape[1]), 1 / weights.shape[1])
        errors = self._averages(rivals, weights).std(0)
        picked = int(self._picks(rivals, self._averages(rivals, each), errors)[0])
        return None if picked < 0 else picked

    def _averages(self, rivals: Sequence[Rival], weights: Floats) -> Floats:
        """Each encoding by its best point, in every resample anew, `(resamples, rivals)`."""
        return np.stack([averages(one.values, weights, self.average).min(1) for one in rivals], axis=1)

    def _picks(self, rivals: Sequence[Rival], found: Floats, errors: Floats) -> NDArray[np.int64]:
        costs = np.array([one.cost for one in rivals])
        eligible = worth_trying(costs)
        if self.budget is not None:
            eligible &= costs <= self.budget
        within = np.broadcast_to(eligible, found.shape)
        spread = np.broadcast_to(costs, found.shape)
        if self.budget is not None:
            order = np.lexsort((spread, found))
        else:
            if self.accept is None:
                candidates = np.where(eligible, found, np.inf)
                within = within & (found <= (candidates.min(1) + errors[candidates.argmin(1)])[:, None])
            else:
                within = within & (found <= self.accept)
            order = np.lexsort((found, spread))
        first = [next((one for one in row if fits[one]), -1) for row, fits in zip(order, within, strict=True)]
        return np.array(first, dtype=np.int64)


def worth_trying(costs: ArrayLike) -> Bools:
    """Which encodings cost less than the sequential model, whose share is 1; all where none does."""
    cheaper: Bools = np.asarray(costs) < 1
    return cheaper if cheaper.any() else np.ones_like(cheaper)


def frontier(costs: Sequence[float], averages: Sequence[float]) -> list[bool]:
    """Which encodings no other one beats in cost and closeness at once (Pareto's frontier)."""
    pairs = list(zip(costs, averages, strict=True))
    return [not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in pairs) for own in pairs]
