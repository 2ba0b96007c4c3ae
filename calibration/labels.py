"""What labels say: harness scores of the points, the label-tuned oracle, and how well divergence foretells score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from lm_eval import evaluator
from lm_eval.api.task import Task

from lm_eval_ape.calibration.candidates import Candidate, key_of, read_key, settings_of
from lm_eval_ape.calibration.choice import Floats
from lm_eval_ape.calibration.journal import Journal
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.errors import ApeError
from lm_eval_ape.model import ApeHFLM

Document = tuple[str, int]
"""A task's name and the document's number."""
Scores = list[tuple[str, int, float]]
"""Task, document and score."""


class Metric(NamedTuple):
    """What is scored.

    Attributes:
        name: Of the metric; the same for all tasks.
        higher_is_better: Which way is good.
    """

    name: str
    higher_is_better: bool


def find_metric(tasks: Mapping[str, Task], name: str | None) -> Metric:
    """The metric to score by: the one named, or the tasks' first.

    Raises:
        ApeError: A task has no such metric, or the tasks' first ones differ.
    """
    offered = {task: list(config.higher_is_better()) for task, config in tasks.items()}
    for task, names in offered.items():
        if not names or (name is not None and name not in names):
            raise ApeError(f"Task {task} has no metric {name or ''}; it has: {', '.join(names) or 'none'}.")
    firsts = {name or names[0] for names in offered.values()}
    if len(firsts) > 1:
        raise ApeError(
            f"The tasks are scored by different metrics ({', '.join(sorted(firsts))}); name one with --metric."
        )
    metric = firsts.pop()
    directions = {bool(config.higher_is_better()[metric]) for config in tasks.values()}
    if len(directions) > 1:
        raise ApeError(f"The tasks do not agree whether a higher {metric} is better; calibrate on them one by one.")
    return Metric(metric, directions.pop())


@contextmanager
def at(lm: ApeHFLM, point: Candidate) -> Iterator[None]:
    """Let the model read contexts with a candidate's T and S while the context lasts."""
    with lm.under(replace(lm.settings, **settings_of(point))):
        yield


class Labels:
    """Scores points on tasks through the harness, and keeps what it scored.

    Args:
        lm: The model.
        options: How the harness builds requests.
        metric: What is scored.
        journal: Where scores are kept.
    """

    def __init__(self, lm: ApeHFLM, options: Options, metric: Metric, journal: Journal) -> None:
        self.lm = lm
        self.options = options
        self.metric = metric
        self.journal = journal
        self._known = {(r["key"], read_key(r["point"])): r["scores"] for r in journal.records()}

    def score(
        self,
        point: Candidate,
        tasks: Mapping[str, Task],
        key: str,
        *,
        limit: float | None,
        picked: Mapping[str, list[int]],
    ) -> dict[Document, float]:
        """Score one point.

        Args:
            point: T and S.
            tasks: The tasks, loaded.
            key: Digest of what the scores depend on beside the point.
            limit: As for `samples.gather`.
            picked: As for `samples.gather`.

        Returns:
            Each document's score, the same on every process.

        Raises:
            ApeError: The metric gives no number a document.
        """
        # Every process must take the same way, so the first one decides what is known.
        scores = self.lm.processes.from_first(self._known.get((key, key_of(point)), []))
        if not scores:
            scores = self.lm.processes.from_first(self._evaluate(point, tasks, limit, picked))
            self._known[key, key_of(point)] = scores
            if self.lm.rank == 0:
                self.journal.append({"key": key, "point": key_of(point), "scores": scores})
        return {(task, number): value for task, number, value in scores}

    def _evaluate(
        self, point: Candidate, tasks: Mapping[str, Task], limit: float | None, picked: Mapping[str, list[int]]
    ) -> Scores:
        """Scores on the first process, none on others."""
        with at(self.lm, point):
            results = evaluator.evaluate(
                lm=self.lm,
                task_dict={"tasks": dict(tasks)},
                limit=limit,
                samples={name: picked[name] for name in tasks if name in picked} or None,
                bootstrap_iters=0,
                log_samples=True,
                system_instruction=self.options.system_instruction,
                apply_chat_template=self.options.apply_chat_template,
                fewshot_as_multiturn=self.options.multiturn,
            )
        if results is None:
            return []
        scores: dict[Document, float] = {}
        for name, samples in results["samples"].items():
            for sample in samples:
                value = sample.get(self.metric.name)
                if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                    raise ApeError(
                        f"The metric {self.metric.name} of task {name} gives {value!r} for a document, where a number "
                        "is needed; name another one with --metric."
                    )
                # Of several filters the first counts.
                scores.setdefault((name, int(sample["doc_id"])), float(value))
        return [(task, number, value) for (task, number), value in scores.items()]


def aligned(
    scores: Mapping[Candidate, Mapping[Document, float]], points: Sequence[Candidate], documents: Sequence[Document]
) -> Floats:
    """Scores as `(documents, points)`."""
    return np.array([[scores[point][document] for point in points] for document in documents])
