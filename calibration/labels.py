"""What labels say: harness scores of the points, the label-tuned oracle, and how well divergence predicts the score."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
from lm_eval import evaluator
from lm_eval.api.task import Task

from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.grid.candidates import Candidate, key_of, middle, read_key, settings_of
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.harness_model import HarnessModel
from lm_eval_ape.harness.mean_metrics import joinable, leaves_out
from lm_eval_ape.harness.metrics import ABSENT, Metric, Outcome, Scored, find, join
from lm_eval_ape.harness.reference_answers import ANSWER_NATS, score_answers, without_answers
from lm_eval_ape.storage.journal import Journal

Document = tuple[str, int]
"""A task's name and the document's number."""
Named = TypeVar("Named", bound=Hashable)
"""What is scored: a point, or an encoding's name."""
Scores = list[tuple[str, int, float]]
"""Task, document and score."""


class Marks(NamedTuple):
    """One point's scores.

    Attributes:
        scores: Of the documents that have one.
        metrics: The harness's metrics that they are of.
    """

    scores: Scores
    metrics: list[str]


def find_metric(tasks: Mapping[str, Task], name: str | None) -> Metric:
    """The metric to score by, the same for all tasks: the one named, or their first that is a mean over documents.

    Where that leaves out rows without a value, it is joined with the others that do (see `metrics.joinable`).
    `answer_nats` names the log-likelihood of the reference answer.

    Raises:
        ApeError: A task has no such metric or no reference answers, or the tasks' first ones differ.
    """
    if name == ANSWER_NATS:
        if none := without_answers(tasks, None):
            raise ApeError(f"No document of {none[0]} has a reference answer (doc_to_target); name another metric.")
        return join([name], higher_is_better=True)
    offered = {task: joinable(task, config, name) for task, config in tasks.items()}
    firsts = list(dict.fromkeys(parts[0] for parts in offered.values()))
    if len(firsts) > 1:
        raise ApeError(
            f"The tasks are scored by different metrics ({', '.join(sorted(firsts))}); name one with --metric."
        )
    parts = [part for part in next(iter(offered.values())) if all(part in own for own in offered.values())]
    directions = {bool(config.higher_is_better()[firsts[0]]) for config in tasks.values()}
    if len(directions) > 1:
        raise ApeError(f"The tasks do not agree whether a higher {firsts[0]} is better; calibrate on them one by one.")
    return join(parts, directions.pop())


@contextmanager
def at(lm: HarnessModel, point: Candidate) -> Iterator[None]:
    """Let the model read contexts with a candidate's T and S while the context lasts."""
    with lm.under(lm.settings.with_(**settings_of(point))):
        yield


class Labels:
    """Scores points on tasks through the harness, and keeps what it scored.

    Args:
        lm: The model.
        options: How the harness builds requests.
        metric: What is scored.
        journal: Where scores are kept.
    """

    def __init__(self, lm: HarnessModel, options: Options, metric: Metric, journal: Journal) -> None:
        self.lm = lm
        self.options = options
        self.metric = metric
        self.journal = journal
        self._known = {
            (r["key"], read_key(r["point"])): Marks(r["scores"], r.get("metrics", [metric.name]))
            for r in journal.records()
        }
        self._used: set[str] = set()

    @property
    def scored(self) -> Metric:
        """The metric, joined of those that rows have a value of."""
        return join([part for part in self.metric.parts if part in self._used], self.metric.higher_is_better)

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
            The score of each document that has one, the same on every process.

        Raises:
            ApeError: The metric gives no numbers, or is no mean over documents.
        """
        # Every process must take the same way, so the first one decides what is known.
        marks = Marks(*self.lm.processes.from_first(self._known.get((key, key_of(point)), Marks([], []))))
        if not marks.scores:
            marks = Marks(*self.lm.processes.from_first(self._evaluate(point, tasks, limit, picked)))
            self._known[key, key_of(point)] = marks
            if self.lm.rank == 0:
                self.journal.append({"key": key, "point": key_of(point), **marks._asdict()})
        self._used |= set(marks.metrics)
        return {(task, number): value for task, number, value in marks.scores}

    def _evaluate(
        self, point: Candidate, tasks: Mapping[str, Task], limit: float | None, picked: Mapping[str, list[int]]
    ) -> Marks:
        """Scores on the first process, and perhaps on others."""
        if self.metric.name == ANSWER_NATS:
            return self._answers(point, tasks, limit, picked)
        with at(self.lm, point):
            results = evaluator.evaluate(
                lm=self.lm,
                task_dict={"tasks": dict(tasks)},
                limit=limit,
                samples={name: picked[name] for name in tasks if name in picked} or None,
                bootstrap_iters=0,
                log_samples=True,
                **self.options.prompting,
            )
        if results is None:
            return Marks([], [])
        scores: Scores = []
        used: dict[str, None] = {}
        where = "the run at T={:g}, S={:g}".format(*middle(point))
        for name, samples in results["samples"].items():
            run = self._scored(name, tasks[name], samples, results["results"][name], where)
            found = find([run], None if self.metric.joined else self.metric.name)
            scores += [(name, number, value) for number, value in found.values[0].items()]
            used |= dict.fromkeys(found.metric.parts)
        return Marks(scores, list(used))

    def _answers(
        self, point: Candidate, tasks: Mapping[str, Task], limit: float | None, picked: Mapping[str, list[int]]
    ) -> Marks:
        """How likely the reference answers are, in nats."""
        with at(self.lm, point):
            found = score_answers(self.lm, tasks, self.options, cache=None, limit=limit, picked=picked)
        return Marks([(one.task, one.doc_id, one.nats) for one in found.answers], [ANSWER_NATS])

    def _scored(
        self, name: str, task: Task, samples: Sequence[Mapping[str, Any]], results: Mapping[str, Any], where: str
    ) -> Scored:
        rows: dict[int, Outcome] = {}
        for sample in samples:
            # Of several filters the first counts.
            rows.setdefault(int(sample["doc_id"]), Outcome(int(sample["doc_id"]), sample))
        parts, label = self.metric.parts, samples[0]["filter"]
        return Scored(
            name,
            where,
            where,
            dict.fromkeys(parts, self.metric.higher_is_better),
            rows,
            {part: results.get(f"{part},{label}") for part in parts},
            signs=[part for part in parts if leaves_out(task, part, ABSENT)],
        )


def with_score(scores: Mapping[Named, Mapping[Document, float]], documents: Iterable[Document]) -> list[Document]:
    """The documents that have a score at every point.

    Raises:
        ApeError: None has.
    """
    found = [document for document in documents if all(document in own for own in scores.values())]
    if not found:
        raise ApeError("No document that divergence was measured on has a score; name another metric with --metric.")
    return found


def aligned(
    scores: Mapping[Named, Mapping[Document, float]], points: Iterable[Named], documents: Sequence[Document]
) -> Floats:
    """Scores as `(documents, points)`."""
    order = list(points)
    return np.array([[scores[point][document] for point in order] for document in documents])
