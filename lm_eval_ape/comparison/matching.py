"""The same documents in every run: rows are matched by the harness's document hash, and what is left out is counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_eval_ape.comparison.runs import Run
from lm_eval_ape.comparison.samples import Key, Row
from lm_eval_ape.comparison.statistics import Floats
from lm_eval_ape.errors import ApeError

# Relative difference of an aggregated score from the mean of its samples that rounding explains.
_ROUNDING = 1e-6


class Matched(NamedTuple):
    """One task in all runs that have it.

    Attributes:
        task: Its name.
        metric: What is scored.
        higher_is_better: Which way is good.
        keys: The documents that all these runs have, in the reference run's order.
        scores: Each run's scores of them, `(documents,)`.
        left_out: Each run's rows that have no counterpart, where there are any.
    """

    task: str
    metric: str
    higher_is_better: bool
    keys: tuple[Key, ...]
    scores: dict[str, Floats]
    left_out: dict[str, int]


def find_baseline(runs: Sequence[Run], name: str | None) -> str | None:
    """The label of the row that others are compared with: the one named, or the only sequential one.

    Raises:
        ApeError: No row has that name.
    """
    labels = [run.label for run in runs]
    if name is not None:
        if name not in labels:
            raise ApeError(f"There is no row {name!r} to be the baseline; there are {', '.join(map(repr, labels))}.")
        return name
    sequential = [run.label for run in runs if run.sequential]
    return sequential[0] if len(sequential) == 1 else None


def match(runs: Sequence[Run], baseline: str | None, metric: str | None) -> tuple[list[Matched], list[str]]:
    """Match every task's rows.

    Args:
        runs: The runs.
        baseline: Label of the baseline, whose documents decide; without one, those of the first run with the task.
        metric: What to score, or each task's first metric.

    Returns:
        Each task, and a sentence for everything that did not match.

    Raises:
        ApeError: A metric is missing or gives no number a document, or the runs have no task or document in common.
    """
    ordered = sorted(runs, key=lambda run: run.label != baseline)
    tasks = list(dict.fromkeys(task for run in ordered for task in run.tasks))
    notes: list[str] = []
    matched = [_match_task(task, [run for run in ordered if task in run.tasks], metric, notes) for task in tasks]
    for task in tasks:
        if missing := [run.label for run in runs if task not in run.tasks]:
            notes.append(f"{task} was not run by {_listed(missing)}; averages are over the tasks that all rows have.")
    if len({task.higher_is_better for task in matched}) > 1:
        notes.append("There is no average: a higher score is better in some tasks and worse in others.")
    if len(runs) > 1 and all(len(task.scores) < 2 for task in matched):
        raise ApeError(
            "The runs have no task with documents in common, so there is nothing to compare: "
            + "; ".join(f"{run.label} has {_listed(run.tasks)}" for run in runs)
            + "."
        )
    return matched, notes


def averaged(matched: Sequence[Matched], labels: Sequence[str]) -> list[Matched]:
    """The tasks that all rows have; none if a higher score is better in some and worse in others."""
    shared = [task for task in matched if set(labels) <= task.scores.keys()]
    return shared if len({task.higher_is_better for task in shared}) == 1 else []


def _match_task(task: str, runs: Sequence[Run], metric: str | None, notes: list[str]) -> Matched:
    reference = runs[0]
    name, higher = _metric(task, reference, metric)
    common = dict.fromkeys(reference.tasks[task].rows)
    having = [reference]
    for run in runs[1:]:
        rows = run.tasks[task].rows
        if not common.keys() & rows.keys():
            notes.append(
                f"{task}: none of the {len(rows)} documents of {run.label} is among those of {reference.label}; it has "
                "no score there."
            )
            continue
        if _metric(task, run, name)[1] != higher:
            raise ApeError(
                f"{reference.label} and {run.label} do not agree whether a higher {name} of {task} is better."
            )
        having.append(run)
        common = {key: None for key in common if key in rows}
    left_out = {run.label: len(run.tasks[task].rows) - len(common) for run in having}
    left_out = {label: count for label, count in left_out.items() if count}
    if left_out:
        counts = ", ".join(f"{count} of {label}" for label, count in left_out.items())
        notes.append(f"{task}: scored on the {len(common)} documents that all rows have; left out are {counts}.")
    if not common:
        raise ApeError(
            f"No document of {task} is in all of {_listed(run.label for run in having)}; compare fewer runs."
        )
    notes += _differences(task, having, common)
    scores = {
        run.label: np.array([_number(run, task, name, run.tasks[task].rows[key]) for key in common]) for run in having
    }
    return Matched(task, name, higher, tuple(common), scores, left_out)


def _differences(task: str, runs: Sequence[Run], common: Mapping[Key, None]) -> list[str]:
    """What is not the same though the documents are."""
    reference, notes = runs[0], []
    if repeated := reference.tasks[task].repeated:
        notes.append(f"{task}: {repeated} rows repeat a document; equal ones are paired in their order.")
    for run in runs[1:]:
        ours, theirs = run.tasks[task].rows, reference.tasks[task].rows
        if changed := sum(ours[key].prompt_hash != theirs[key].prompt_hash for key in common):
            notes.append(f"{task}: {run.label} read {changed} of {len(common)} documents in another prompt.")
        versions = [str(one.results.get("versions", {}).get(task)) for one in (reference, run)]
        if versions[0] != versions[1]:
            notes.append(f"{task}: {run.label} has version {versions[1]} of the task, not {versions[0]}.")
    return notes


def _metric(task: str, run: Run, name: str | None) -> tuple[str, bool]:
    """The metric and its direction, checked to be a mean over documents."""
    offered = run.results.get("higher_is_better", {}).get(task) or {}
    if not offered or (name is not None and name not in offered):
        raise ApeError(f"{task} of {run.label} has no metric {name or ''}; it has: {', '.join(offered) or 'none'}.")
    name = name or next(iter(offered))
    samples = run.tasks[task]
    mean = float(np.mean([_number(run, task, name, row) for row in samples.rows.values()]))
    reported = run.results["results"].get(task, {}).get(f"{name},{samples.filter}")
    if isinstance(reported, (int, float)) and not math.isclose(mean, reported, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
        raise ApeError(
            f"{name} of {task} is {reported:.6g} in {run.results_file.name} of {run.label}, but the mean over its "
            f"samples is {mean:.6g}: either it is no mean of documents' scores, and differences of it cannot be "
            "paired (name another metric with --metric), or the samples are of another run."
        )
    return name, bool(offered[name])


def _number(run: Run, task: str, metric: str, row: Row) -> float:
    value: Any = row.metrics.get(metric)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ApeError(
            f"The metric {metric} of {task} gives {value!r} for document {row.doc_id} of {run.label}, where a number "
            "is needed; name another one with --metric."
        )
    return float(value)


def _listed(names: Any) -> str:
    return ", ".join(names)
