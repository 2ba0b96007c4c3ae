"""How attention entropy goes with the score over settings (Zhang et al. 2024, who report Pearson's about 0.95)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lm_eval_ape.calibration.grid.stability import INTERVAL, resample

Floats = NDArray[np.float64]
# Means closer than this are equal: a score's rounding is no relation.
_SAME = 1e-9


class Correlation(NamedTuple):
    """Correlation of two means over settings.

    Attributes:
        value: Pearson's or Spearman's; None where one of the two hardly differs between settings.
        p_value: Of no correlation, two-sided, as if settings were independent.
        low: Lower end of its 95% interval over resamples of the documents.
        high: Upper end.
        settings: Of how many.
    """

    value: float | None
    p_value: float | None
    low: float | None
    high: float | None
    settings: int


def correlate(kind: str, first: Floats, second: Floats, *, resamples: int, seed: int) -> Correlation:
    """Correlate two quantities over settings, each the mean over the same documents.

    Args:
        kind: `pearson` or `spearman`.
        first: `(documents, settings)`.
        second: `(documents, settings)`.
        resamples: Bootstrap resamples of the documents.
        seed: Of the resamples.
    """
    function = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[kind]
    settings = first.shape[1]
    means = first.mean(0), second.mean(0)
    if settings < 3 or min(np.ptp(mean) for mean in means) <= _SAME:
        return Correlation(None, None, None, None, settings)
    found = function(*means)
    weights = resample(len(first), resamples, seed)
    pairs = zip(weights @ first, weights @ second, strict=True)
    values = [function(x, y).statistic for x, y in pairs if min(np.ptp(x), np.ptp(y)) > _SAME]
    low, high = np.percentile(values, INTERVAL).tolist() if values else (None, None)
    return Correlation(float(found.statistic), float(found.pvalue), low, high, settings)
