"""The same documents in every run: rows are matched by the harness's document hash, and rows left out are counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_eval_ape.comparison.runs import Run
from lm_eval_ape.comparison.samples import Key
from lm_eval_ape.comparison.statistics import Floats
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.metrics import Found, Outcome, Scored, find


class Matched(NamedTuple):
    """One task in all runs that have it.

    Attributes:
        task: Its name.
        metric: What is scored; of several metrics that are joined, `4096+8192`.
        higher_is_better: Which way is good.
        keys: The documents that have a score in all these runs, in the reference run's order.
        scores: Each run's scores of them, `(documents,)`.
        left_out: How many of each run's rows have no counterpart or no value of the metric, where there are any.
    """

    task: str
    metric: str
    higher_is_better: bool
    keys: tuple[Key, ...]
    scores: dict[str, Floats]
    left_out: dict[str, int]


def find_baseline(runs: Sequence[Run], name: str | None) -> str | None:
    """The label of the row that others are compared with: the named one, or else the only sequential one.

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


def match(
    runs: Sequence[Run],
    baseline: str | None,
    metric: str | None,
    no_means: Mapping[str, Collection[str]] | None = None,
) -> tuple[list[Matched], list[str]]:
    """Match every task's rows.

    Args:
        runs: The runs.
        baseline: Label of the baseline, whose documents decide; without one, those of the first run with the task.
        metric: What to score; None for each task's first metric that is a mean over documents (see `metrics.find`).
        no_means: Each task's metrics that are known to be no means.

    Returns:
        Each task, and a sentence for everything that did not match.

    Raises:
        ApeError: A metric is missing or gives no number a document, or the runs have no task or document in common.
    """
    ordered = sorted(runs, key=lambda run: run.label != baseline)
    tasks = list(dict.fromkeys(task for run in ordered for task in run.tasks))
    notes: list[str] = []
    matched = [
        _match_task(task, [run for run in ordered if task in run.tasks], metric, (no_means or {}).get(task, ()), notes)
        for task in tasks
    ]
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


def _match_task(
    task: str, runs: Sequence[Run], metric: str | None, no_means: Collection[str], notes: list[str]
) -> Matched:
    reference, having = runs[0], runs[:1]
    rows = {run.label: run.tasks[task].rows for run in runs}
    for run in runs[1:]:
        if rows[reference.label].keys() & rows[run.label].keys():
            having = [*having, run]
            continue
        notes.append(
            f"{task}: none of the {len(rows[run.label])} documents of {run.label} is among those of {reference.label}; "
            "it has no score there."
        )
    found = find([_scored(task, run) for run in having], metric, no_means)
    values = {run.label: own for run, own in zip(having, found.values, strict=True)}
    common = dict.fromkeys(key for key in rows[reference.label] if all(key in own for own in values.values()))
    notes += _choice(task, found, {label: len(rows[label]) - len(own) for label, own in values.items()})
    if unmatched := {label: len(own) - len(common) for label, own in values.items() if len(own) > len(common)}:
        notes.append(
            f"{task}: scored on the {len(common)} documents that all rows have; left out are {_counts(unmatched)}."
        )
    if not common:
        raise ApeError(
            f"No document of {task} is in all of {_listed(run.label for run in having)}; compare fewer runs."
        )
    notes += _differences(task, having, common)
    return Matched(
        task,
        found.metric.name,
        found.metric.higher_is_better,
        tuple(common),
        {label: np.array([own[key] for key in common]) for label, own in values.items()},
        {label: count for label in values if (count := len(rows[label]) - len(common))},
    )


def _scored(task: str, run: Run) -> Scored:
    samples = run.tasks[task]
    reported = {
        name.removesuffix(f",{samples.filter}"): value
        for name, value in run.results.results.get(task, {}).items()
        if name.endswith(f",{samples.filter}")
    }
    return Scored(
        task,
        run.label,
        f"{run.results_file.name} of {run.label}",
        {name: bool(way) for name, way in (run.results.higher_is_better.get(task) or {}).items()},
        {key: Outcome(row.doc_id, row.metrics) for key, row in samples.rows.items()},
        reported,
    )


def _choice(task: str, found: Found, without: Mapping[str, int]) -> list[str]:
    """Why a task is not compared on its first metric, and how many rows lack the metric used instead."""
    name, notes = found.metric.name, []
    if found.instead:
        notes.append(f"{task} is compared on {name}: {found.instead}")
    if counted := {label: count for label, count in without.items() if count}:
        notes.append(f"{task}: rows without a value of {name} are left out: {_counts(counted)}.")
    return notes


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of {label}" for label, count in counted.items())


def _differences(task: str, runs: Sequence[Run], common: Mapping[Key, None]) -> list[str]:
    """What differs between runs on the same documents."""
    reference, notes = runs[0], []
    if repeated := reference.tasks[task].repeated:
        notes.append(f"{task}: {repeated} rows repeat a document; equal ones are paired in their order.")
    for run in runs[1:]:
        ours, theirs = run.tasks[task].rows, reference.tasks[task].rows
        if changed := sum(ours[key].prompt_hash != theirs[key].prompt_hash for key in common):
            notes.append(f"{task}: {run.label} read {changed} of {len(common)} documents in another prompt.")
        versions = [str(one.results.versions.get(task)) for one in (reference, run)]
        if versions[0] != versions[1]:
            notes.append(f"{task}: {run.label} has version {versions[1]} of the task, not {versions[0]}.")
    return notes


def _listed(names: Any) -> str:
    return ", ".join(names)
