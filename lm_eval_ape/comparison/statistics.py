"""How sure a difference between two runs on the same documents is.

Both tests look at each document's difference, so that what makes a document hard for both runs cancels out. The
interval is the percentile bootstrap of `scipy.stats.bootstrap` over documents (Efron and Tibshirani, 1993, chapter 13);
the p-value is that of `scipy.stats.permutation_test` with the differences' signs flipped (Fisher's randomisation test),
which has the right level for few documents and for scores that are mostly 0 or 1, where intervals are a little narrow.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lm_eval_ape.artefacts.board import Difference

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
# 1 - CONFIDENCE is more than 0.05 by rounding, and p-values of 0.05 are common among 999 resamples.
LEVEL = 0.05
# Values of one batch of resamples: 80 MB.
_BATCH_VALUES = 10_000_000


class Estimate(NamedTuple):
    """A mean score in [0, 1] with its standard error; None for a single document."""

    mean: float
    stderr: float | None


def estimate(*scores: Floats) -> Estimate:
    """The mean of the tasks' mean scores.

    Args:
        *scores: Scores of each task's documents, `(documents,)`.
    """
    mean = macro_mean(*scores, axis=-1)
    if any(len(task) < 2 for task in scores):
        return Estimate(float(mean), None)
    variance = sum(task.var(ddof=1) / len(task) for task in scores)
    return Estimate(float(mean), float(np.sqrt(variance)) / len(scores))


def paired(*differences: Floats, resamples: int, seed: int) -> Difference:
    """The mean of the tasks' mean differences, with its interval and p-value.

    Args:
        *differences: Score minus baseline's score for each task's documents, `(documents,)`.
        resamples: Bootstrap resamples, and random sign flips.
        seed: Of both.
    """
    mean = float(macro_mean(*differences, axis=-1))
    low, high = None, None
    if all(len(task) > 1 for task in differences):
        low, high = (float(end) for end in interval(*differences, resamples=resamples, seed=seed))
    # Either sign of a single difference is as far from 0 as the other.
    single = sum(map(len, differences)) < 2
    p = 1.0 if single else float(p_value(*differences, resamples=resamples, seed=seed))
    return Difference(mean=mean, low=low, high=high, p_value=p, within_noise=within_noise(low, high, p))


def within_noise(low: float | None, high: float | None, p_value: float) -> bool:
    """Whether an interval or a test would let two runs be equal: a difference is one only where both say so."""
    if low is None or high is None:
        return True
    return p_value >= LEVEL or low <= 0 <= high


def macro_mean(*tasks: Floats, axis: int) -> Floats:
    """Mean over tasks of the means along an axis."""
    return np.asarray(sum(task.mean(axis=axis) for task in tasks) / len(tasks))


def interval(*differences: Floats, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Ends of the 95% bootstrap interval of the macro mean; each task's documents are resampled on their own.

    Args:
        *differences: Each task's, `(..., documents)`, at least 2 documents.
        resamples: Bootstrap resamples.
        seed: Of the resamples.
    """
    with warnings.catch_warnings():
        # Where all differences are equal the interval is that one point, as it should be.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            differences,
            macro_mean,
            axis=-1,
            n_resamples=resamples,
            batch=_batch(*differences),
            method="percentile",
            confidence_level=CONFIDENCE,
            random_state=np.random.default_rng(seed),
        ).confidence_interval
    return found.low, found.high


def p_value(*differences: Floats, resamples: int, seed: int) -> Floats:
    """Two-sided p-value of the macro mean under random signs of the differences.

    Args:
        *differences: Each task's, `(..., documents)`, at least 2 in all.
        resamples: Random sign flips; where there are fewer different ones, all of them are used.
        seed: Of the flips.
    """
    # The macro mean, times the number of tasks, as one sum: a flip of a document's sign is a flip of one term.
    terms = np.concatenate([task / task.shape[-1] for task in differences], axis=-1)
    test = stats.permutation_test(
        (terms,),
        np.sum,
        permutation_type="samples",
        axis=-1,
        n_resamples=resamples,
        batch=_batch(*differences),
        random_state=np.random.default_rng(seed),
    )
    return np.asarray(test.pvalue)


def _batch(*tasks: Floats) -> int:
    return max(1, _BATCH_VALUES // sum(task.size for task in tasks))
