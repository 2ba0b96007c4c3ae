"""Which of a task's metrics are means over documents, found out before anything is run: only those can be paired."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from lm_eval.api.task import Task

from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.harness.metrics import ABSENT, ROUNDING

# Made-up scores of documents; an aggregation that counts right answers is the mean of the second ones alone.
_PROBES = ((0.25, 0.5, 1.0), (0.0, 1.0, 1.0, 0.0, 1.0))


def is_mean(task: Task, metric: str) -> bool:
    """Whether a metric's aggregation is the mean over documents, by trying it on made-up scores."""
    aggregate = task.aggregation().get(metric)
    # As the harness does it.
    return aggregate is None or any(_gives(aggregate, scores, float(np.mean(scores))) for scores in _PROBES)


def leaves_out(task: Task, metric: str, absent: float | None) -> bool:
    """Whether a metric's aggregation is the mean over the rows that have a value, where `absent` stands for none."""
    aggregate = task.aggregation().get(metric)
    return aggregate is not None and _gives(aggregate, [*_PROBES[0], absent], float(np.mean(_PROBES[0])))


def joinable(name: str, task: Task, metric: str | None) -> tuple[str, ...]:
    """The metrics that a task may be scored by, before anything is run.

    It is the one that `mean_metric` gives; and if that leaves out rows without a value and was not asked for, also the
    others that do, with which `find` may join it.

    Raises:
        ApeError: As `mean_metric`.
    """
    first = mean_metric(name, task, metric)
    if metric is not None or not _partial(task, first):
        return (first,)
    higher = task.higher_is_better()
    return tuple(one for one in higher if one == first or (_partial(task, one) and higher[one] == higher[first]))


def _partial(task: Task, metric: str) -> bool:
    return any(leaves_out(task, metric, absent) for absent in (ABSENT, None, math.nan))


def _gives(aggregate: Callable[[Any], Any], scores: Sequence[float | None], expected: float) -> bool:
    try:
        return math.isclose(float(aggregate(list(scores))), expected, rel_tol=ROUNDING)
    except Exception:
        # Aggregations of pairs, texts or counts fail on plain numbers, each in its own way.
        return False


def mean_metric(name: str, task: Task, metric: str | None) -> str:
    """The metric that a task is to be scored by, before anything is run: the one named, or the first that is a mean.

    Args:
        name: The task's.
        task: It, loaded.
        metric: What was asked for.

    Raises:
        ApeError: The task has no such metric, or it is no mean over documents.
    """
    offered = list(task.higher_is_better())
    if not offered or (metric is not None and metric not in offered):
        hint = nearest(metric, offered) if metric else ""
        raise ApeError(f"{name} has no metric {metric or ''}; it has: {', '.join(offered) or 'none'}.{hint}")
    if metric is None:
        if (first := next((one for one in offered if is_mean(task, one)), None)) is not None:
            return first
        raise ApeError(
            f"No metric of {name} is a mean over documents (it has: {', '.join(offered)}), so differences of scores "
            "cannot be paired; leave the task out."
        )
    if not is_mean(task, metric):
        others = [one for one in offered if is_mean(task, one)]
        mend = f"name one of {', '.join(others)} with --metric" if others else "no other one of it is; leave it out"
        raise ApeError(
            f"The metric {metric} of {name} is no mean over documents, so differences of it cannot be paired; {mend}."
        )
    return metric
