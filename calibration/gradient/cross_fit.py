"""What fits are worth on samples that they did not see: which step and penalty to take, and whether to take any.

Every sample is in one fold, and for each fold there is a fit that never saw it. So each sample has a divergence at each
step of a fit that did not learn from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm_eval_ape.artefacts.estimates import Difference
from lm_eval_ape.calibration.gradient.folds import Folds
from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.grid.stability import difference


class Taken(NamedTuple):
    """Which fit is taken, and when.

    Attributes:
        trial: Its number among those that were compared.
        step: The step at which it ends.
    """

    trial: int
    step: int


def take(curves: Floats) -> Taken:
    """The trial with the least mean, at its first step that is within one standard error of the least.

    The least of many noisy means is lower than what it estimates. Hence the one-standard-error rule (Breiman et al.,
    Classification and Regression Trees, 1984), the error being that of the paired difference from the least.

    Args:
        curves: Held-out divergences, `(trials, steps, samples)`; the first trial is taken of equals.
    """
    means = curves.mean(-1)
    trial, least = np.unravel_index(means.argmin(), means.shape)
    pairs = curves[trial] - curves[trial, least]
    samples = curves.shape[-1]
    errors = pairs.std(-1, ddof=1) / np.sqrt(samples) if samples > 1 else np.zeros(len(pairs))
    return Taken(int(trial), int(np.argmax(pairs.mean(-1) <= errors)))


def unseen(curves: Floats, folds: Folds) -> Floats:
    """Each sample's divergence with a fit whose parameters, penalty and step owe nothing to its own divergence.

    Penalty and step are taken on the other folds' samples, fold by fold. The least of cross-validated means is too low,
    and choosing anew on a part of the held-out results mends that without fitting anything again (Tsamardinos et al.,
    Machine Learning 2018).

    Args:
        curves: As for `take`.
        folds: The samples' folds, two at least.

    Returns:
        `(samples,)`.
    """
    found = np.empty(curves.shape[-1])
    for fold in folds:
        taken = take(np.delete(curves, fold, axis=-1))
        found[list(fold)] = curves[taken.trial, taken.step, list(fold)]
    return found


class Held(NamedTuple):
    """A level's fit, held against samples that it did not see.

    Attributes:
        taken: Penalty and step, chosen on all samples.
        kl: Cross-fitted divergence of each sample, `(samples,)`.
        start: Divergence of each sample with the T and S that the fit started from.
        less: How much less the first mean is than the second, with its interval.
    """

    taken: Taken
    kl: Floats
    start: Floats
    less: Difference

    @classmethod
    def of(cls, curves: Floats, folds: Folds, weights: Floats) -> Held:
        """From a level's held-out divergences.

        Args:
            curves: As for `take`; the first step is the start.
            folds: The samples' folds.
            weights: Resamples of the samples.
        """
        start, kl = curves[0, 0], unseen(curves, folds)
        return cls(take(curves), kl, start, difference(start, kl, weights))

    @property
    def better(self) -> bool:
        """Whether the fit is better than its start beyond noise."""
        return self.taken.step > 0 and self.less.low > 0


def choose_level(levels: Sequence[Held]) -> int | None:
    """The level to return: of those that are better than their start the one with the least held-out divergence.

    Args:
        levels: From the coarsest on; the coarser is chosen of equals.

    Returns:
        Its number; None if no level is better than the start.
    """
    better = [number for number, level in enumerate(levels) if level.better]
    return min(better, key=lambda number: levels[number].kl.mean(), default=None)
