"""What a task's rows are scored by: metrics that are means over documents, and rows that have no value of one.

Some tasks have a metric for each of several lengths, and rows of other lengths have no value of it: RULER gives -1 or
nothing there, LongBench-E gives null. The harness aggregates the rows that have one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_eval_ape.errors import ApeError

ROUNDING = 1e-6
"""Relative difference of an aggregated score from the mean of its samples that rounding explains."""
ABSENT = -1.0
"""What RULER gives for no value."""

Values = dict[Any, float]
"""Scores by document, of the documents that have one."""


class Metric(NamedTuple):
    """What is scored.

    Attributes:
        name: Of the metric, or of those that are joined.
        higher_is_better: Which way is good.
        joined: The harness's metrics of which each row has a value of one; empty where the metric is one of its own.
    """

    name: str
    higher_is_better: bool
    joined: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The harness's metrics."""
        return self.joined or (self.name,)


def join(parts: Sequence[str], higher_is_better: bool) -> Metric:
    """A metric of one or several of the harness's."""
    return Metric("+".join(parts), higher_is_better, tuple(parts) if len(parts) > 1 else ())


class Outcome(NamedTuple):
    """A document's number in its task, and its value of each metric."""

    doc_id: int
    metrics: Mapping[str, Any]


class Scored(NamedTuple):
    """A task's rows in one run.

    Attributes:
        task: Its name.
        run: What ran it, in words.
        source: Where the aggregates are from, in words.
        offered: Its metrics, and whether higher is better.
        rows: By document.
        reported: The harness's aggregate of each metric.
        signs: Metrics of which -1 is known to stand for no value; None where nothing is known.
    """

    task: str
    run: str
    source: str
    offered: Mapping[str, bool]
    rows: Mapping[Any, Outcome]
    reported: Mapping[str, Any]
    signs: Collection[str] | None = None


class Found(NamedTuple):
    """A metric in several runs of a task.

    Attributes:
        metric: It.
        values: Each run's.
        instead: Why the task's first metric is not it, in a sentence; None where it is.
    """

    metric: Metric
    values: list[Values]
    instead: str | None = None


def find(runs: Sequence[Scored], name: str | None, no_means: Collection[str] = ()) -> Found:
    """The metric of runs of a task, and each run's values.

    Without a name it is the first metric that is a mean over documents. If some rows have no value of that, and each
    row has a value of exactly one of several such metrics, they are joined.

    Args:
        runs: The runs; the first one decides. Their documents may differ.
        name: What to score.
        no_means: Metrics that are known to be no means.

    Raises:
        ApeError: A metric is missing, gives something else than numbers, or is no mean over the rows that have a value.
    """
    reference = runs[0]
    first = name or next(iter(reference.offered), "")
    if name is not None or not reference.offered:
        found = Found(Metric(first, _direction(runs, first)), _values(runs, first))
        if not found.values[0]:
            raise _empty(reference, first)
        return found
    instead = f"{first} is no mean over documents." if first in no_means else None
    failure: ApeError | None = None
    for metric in reference.offered:
        if metric in no_means:
            continue
        try:
            values = _values(runs, metric)
        except ApeError as error:
            if not all(_fails(run, metric) for run in runs):
                raise
            failure = failure or error
            instead = instead or str(failure)
            continue
        if values[0]:
            one = Found(Metric(metric, _direction(runs, metric)), values, instead)
            return one if len(values[0]) == len(reference.rows) else _joined(runs, one, no_means)
    raise failure or _empty(reference, first)


def _joined(runs: Sequence[Scored], first: Found, no_means: Collection[str]) -> Found:
    """The same, or joined with other metrics that some rows have no value of, if each row has a value of just one."""
    rows = runs[0].rows
    parts = {first.metric.name: first.values}
    for metric, higher in runs[0].offered.items():
        if metric in no_means or metric in parts or bool(higher) != first.metric.higher_is_better:
            continue
        if any(_fails(run, metric) for run in runs):
            continue
        values = _values(runs, metric)
        if 0 < len(values[0]) < len(rows):
            parts[metric] = values
    documents = [key for values in parts.values() for key in values[0]]
    if len(documents) != len(rows) or set(documents) != set(rows):
        return first
    for metric in parts:
        _direction(runs, metric)
    values = [{key: value for part in parts.values() for key, value in part[n].items()} for n in range(len(runs))]
    return Found(join(list(parts), first.metric.higher_is_better), values, first.instead)


def _direction(runs: Sequence[Scored], metric: str) -> bool:
    for run in runs:
        if metric not in run.offered:
            raise ApeError(
                f"{run.task} of {run.run} has no metric {metric}; it has: {', '.join(run.offered) or 'none'}."
            )
        if bool(run.offered[metric]) != bool(runs[0].offered[metric]):
            raise ApeError(
                f"{runs[0].run} and {run.run} do not agree whether a higher {metric} of {run.task} is better."
            )
    return bool(runs[0].offered[metric])


def _values(runs: Sequence[Scored], metric: str) -> list[Values]:
    """Each run's values of a metric.

    Where all of a run are -1, the sign for no value, and another run has values of the same documents, they are values.
    """
    columns = [_column(run, metric) for run in runs]
    signs = [_only_signs(run, metric, values) for run, values in zip(runs, columns, strict=True)]
    valued = {key for values, sign in zip(columns, signs, strict=True) if not sign for key in values}
    return [{} if sign and not values.keys() & valued else values for values, sign in zip(columns, signs, strict=True)]


def _only_signs(run: Scored, metric: str, values: Values) -> bool:
    """Whether -1 is all that a run has and reports, and may stand for no value."""
    possible = run.signs is None or metric in run.signs
    return possible and set(values.values()) == {ABSENT} and run.reported.get(metric) == ABSENT


def _column(run: Scored, metric: str) -> Values:
    """A run's values of a metric: those whose mean is the reported score.

    That is the mean over all rows, over those that have a number, or over those whose number is not -1.

    Raises:
        ApeError: None of these is, or a row has something else than a number.
    """
    numbers = {key: _number(run, metric, row) for key, row in run.rows.items()}
    present = {key: value for key, value in numbers.items() if value is not None}
    reported = run.reported.get(metric)
    if not isinstance(reported, (int, float, np.number)):
        if present and len(present) < len(numbers):
            raise _no_number(run, metric, numbers)
        return present
    if not present and (math.isnan(reported) or reported == ABSENT):
        return present
    for values in (present, {key: value for key, value in present.items() if value != ABSENT}):
        if values and math.isclose(_mean(values), reported, rel_tol=ROUNDING, abs_tol=ROUNDING):
            return values
    if len(present) < len(numbers):
        raise _no_number(run, metric, numbers)
    raise ApeError(
        f"{metric} of {run.task} is {reported:.6g} in {run.source}, but the mean over its samples is "
        f"{_mean(present):.6g}: either it is no mean of documents' scores, and differences of it cannot be paired "
        "(name another metric with --metric), or the samples are of another run."
    )


def _mean(values: Values) -> float:
    return float(np.mean(list(values.values())))


def _number(run: Scored, metric: str, row: Outcome) -> float | None:
    """A row's value; None where it has none."""
    value = row.metrics.get(metric)
    if value is None:
        return None
    if not isinstance(value, (int, float, np.number, np.bool_)) or math.isinf(value):
        raise _refused(run, metric, row)
    return None if math.isnan(value) else float(value)


def _no_number(run: Scored, metric: str, numbers: Mapping[Any, float | None]) -> ApeError:
    return _refused(run, metric, next(run.rows[key] for key, value in numbers.items() if value is None))


def _refused(run: Scored, metric: str, row: Outcome) -> ApeError:
    return ApeError(
        f"The metric {metric} of {run.task} gives {row.metrics.get(metric)!r} for document {row.doc_id} of {run.run}, "
        "where a number is needed; name another one with --metric."
    )


def _empty(run: Scored, metric: str) -> ApeError:
    return ApeError(
        f"No row of {run.task} in {run.run} has a value of {metric}: they have none at all, or -1, which stands for "
        f"none where it is reported too. Name another metric with --metric; there are: {', '.join(run.offered)}."
    )


def _fails(run: Scored, metric: str) -> bool:
    try:
        _column(run, metric)
    except ApeError:
        return True
    return False
