"""Scores by the length of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_eval_ape.artefacts.board import Bucket, LengthScore
from lm_eval_ape.artefacts.board import Lengths as LengthsPart
from lm_eval_ape.comparison.matching import Matched, averaged
from lm_eval_ape.comparison.runs import Run
from lm_eval_ape.comparison.statistics import Floats, estimate, paired


class Lengths(NamedTuple):
    """How long each document's prompt is.

    Attributes:
        unit: `tokens`, or `characters` where no run counted the tokens of every document.
        values: By task, `(documents,)`.
    """

    unit: str
    values: dict[str, Floats]


def measure(matched: Sequence[Matched], runs: Sequence[Run]) -> Lengths:
    """Each document's length: of the longest of its prompts, in the first run that knows it."""
    tokens: dict[str, list[int | None]] = {}
    for task in matched:
        having = [run for run in runs if run.label in task.scores]
        counted = [_tokens(run, task) for run in having if run.record]
        tokens[task.task] = [next((n for n in known if n is not None), None) for known in zip(*counted, strict=True)]
    values = {name: [n for n in known if n is not None] for name, known in tokens.items()}
    if all(len(values[task.task]) == len(task.keys) for task in matched):
        return Lengths("tokens", {name: np.array(known, dtype=float) for name, known in values.items()})
    labels = {run.label: run for run in runs}
    characters = {}
    for task in matched:
        rows = labels[next(iter(task.scores))].tasks[task.task].rows
        characters[task.task] = np.array([float(rows[key].prompt_characters) for key in task.keys])
    return Lengths("characters", characters)


def _tokens(run: Run, task: Matched) -> list[int | None]:
    longest: dict[int, int] = {}
    for request in run.record.requests if run.record else ():
        if request.task == task.task:
            longest[request.doc_id] = max(request.tokens, longest.get(request.doc_id, 0))
    rows = run.tasks[task.task].rows
    return [longest.get(rows[key].doc_id) for key in task.keys]


def by_length(
    matched: Sequence[Matched], lengths: Lengths, labels: Sequence[str], baseline: str | None, **chance: int
) -> LengthsPart:
    """Each row's mean score, and difference from the baseline, in buckets from one power of two to the next.

    Args:
        matched: The tasks; only those that count for the average are read, all their documents alike.
        lengths: Their documents' lengths.
        labels: The rows.
        baseline: The row that others are compared with.
        **chance: `resamples` and `seed` of `statistics.paired`.
    """
    shared = averaged(matched, labels)
    if not shared:
        return LengthsPart(unit=lengths.unit, tasks=[], buckets=[], rows={})
    values = np.concatenate([lengths.values[task.task] for task in shared])
    scores = {label: np.concatenate([task.scores[label] for task in shared]) for label in labels}
    powers = np.floor(np.log2(np.maximum(values, 1))).astype(int)
    different = np.unique(powers)
    buckets = [
        Bucket(**{"from": 2 ** int(power)}, below=2 ** int(power + 1), documents=int((powers == power).sum()))
        for power in different
    ]
    rows: dict[str, list[LengthScore]] = {}
    for label in labels:
        rows[label] = []
        for power in different:
            inside = powers == power
            found: dict[str, Any] = estimate(scores[label][inside])._asdict()
            if baseline is not None and label != baseline:
                change = scores[label][inside] - scores[baseline][inside]
                found["difference"] = paired(change, **chance)
            rows[label].append(LengthScore(**found))
    return LengthsPart(unit=lengths.unit, tasks=[task.task for task in shared], buckets=buckets, rows=rows)
