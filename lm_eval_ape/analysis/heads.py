"""Which heads a calibration by gradient moved: those with a high entropy, or those that read the context?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from lm_eval_ape.analysis.sweep import Case
from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.artefacts.analysis import ByHead, GoesWith, Heads, Rho
from lm_eval_ape.artefacts.analysis import Case as CasePart
from lm_eval_ape.artefacts.moved_heads import moved


def heads_part(cases: Sequence[Case], looks: Sequence[CasePart]) -> list[Heads]:
    """For every case with T and S of layers or heads, how far they moved and what that correlates with.

    Args:
        cases: The cases, the first one the sequential model or another one to compare with.
        looks: What `analysis.json` holds of each case.

    Returns:
        A part for each such case: each layer's or head's `distance` from where the gradient started,
        `(layers, heads or 1)`, and by task Spearman's correlation over layers or heads of that distance with the first
        case's entropy, mean absolute logit, and share of the attention on the context.
    """
    found = []
    for case in cases:
        path = case.spec.arguments.get("calibration")
        gradient = calibration_file.read(path).gradient if path else None
        if not gradient or len(parts := moved(gradient.factors, gradient.start)) < 3:
            continue
        distances = np.zeros(np.shape(gradient.factors.temperature))
        for part in parts:
            distances[part.layer or 0, part.head or 0] = part.distance
        found.append(
            Heads(
                label=case.spec.label,
                granularity=gradient.granularity,
                distance=distances.tolist(),
                goes_with={task: _goes_with(distances, look.by_head) for task, look in looks[0].tasks.items()},
            )
        )
    return found


def _goes_with(distances: np.ndarray, by_head: ByHead) -> GoesWith:
    values = {"entropy": by_head.entropy, "logit": by_head.logit, "context": by_head.mass.context}
    return GoesWith(**{name: _spearman(distances, np.array(table)) for name, table in values.items()})


def _spearman(distances: np.ndarray, values: np.ndarray) -> Rho:
    """Over layers, of their heads' mean, where heads share T and S."""
    if distances.shape[1] < values.shape[1]:
        values = values.mean(1, keepdims=True)
    if min(np.ptp(distances), np.ptp(values)) == 0:
        return Rho(rho=None, p_value=None)
    test = stats.spearmanr(distances.ravel(), values.ravel())
    return Rho(rho=float(test.statistic), p_value=float(test.pvalue))
