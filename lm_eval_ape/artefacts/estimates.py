"""Estimates with how sure they are, as several parts of `calibration.json` have them."""

from __future__ import annotations

from pydantic import model_validator

from lm_eval_ape.artefacts.document import Count, Part, Share, check_interval


class Difference(Part):
    """A paired difference of means with its 95% bootstrap interval.

    Attributes:
        positive: Share of resamples in which it is above 0.
    """

    mean: float
    low: float
    high: float
    positive: Share


class Rank(Part):
    """Spearman's rank correlation over points with its 95% interval."""

    rho: float | None
    p_value: Share | None
    low: float | None
    high: float | None
    points: Count

    @model_validator(mode="after")
    def _fits(self) -> Rank:
        check_interval(self.low, self.high)
        return self


class SignalRank(Rank):
    """How a signal goes with the score."""

    signal: str
    average: str
