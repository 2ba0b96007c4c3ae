"""How likely the reference answers are to runs, as the board holds it: by document, by task, and on average."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lm_eval_ape.artefacts.board import MeanAnswer
from lm_eval_ape.artefacts.run_record import AnswerNats, DocumentAnswer
from lm_eval_ape.comparison.matching import Matched
from lm_eval_ape.comparison.runs import Run
from lm_eval_ape.comparison.samples import Key
from lm_eval_ape.comparison.statistics import Floats, estimate, macro_mean, paired


class Answers:
    """The log-likelihoods of all runs that have some, on the documents that they all have.

    Args:
        runs: The runs, with or without them.
        matched: The tasks, with the documents that are compared.
        base: Label of the baseline; None without one.
        chance: Resamples and seed of the paired differences.
    """

    def __init__(
        self, runs: Sequence[Run], matched: Sequence[Matched], base: str | None, chance: Mapping[str, int]
    ) -> None:
        self.runs = {run.label: run for run in runs}
        self.matched = matched
        self.base = base
        self.chance = chance
        self._found = {
            run.label: {(one.task, one.doc_id): one for one in run.answers.samples} for run in runs if run.answers
        }
        self.keys = {task.task: self._common(task) for task in matched}

    def of(self, label: str, task: str, key: Key) -> AnswerNats | None:
        """A document's reference answer under a run; None where that was not measured, or has none."""
        found = self._one(label, task, key)
        return found and AnswerNats(answer=found.answer, tokens=found.tokens, nats=found.nats)

    def mean(self, label: str, *tasks: Matched) -> MeanAnswer | None:
        """Mean over tasks of the mean over documents, and how it compares; None unless every task has some."""
        nats = self._values(label, tasks, lambda one: one.nats)
        if not nats:
            return None
        base = None if self.base == label else self.base
        reference = self._values(base, tasks, lambda one: one.nats) if base is not None else []
        differences = [own - other for own, other in zip(nats, reference, strict=bool(reference))]
        return MeanAnswer(
            **estimate(*nats)._asdict(),
            tokens=float(macro_mean(*self._values(label, tasks, lambda one: one.tokens), axis=-1)),
            documents=sum(map(len, nats)),
            difference=paired(*differences, **self.chance) if differences else None,
        )

    def notes(self) -> list[str]:
        """A sentence for each task that has no reference answer, or not of all documents."""
        found = []
        for task in self.matched:
            having = [label for label in self._found if label in task.scores]
            count = len(self.keys[task.task])
            if not having or count == len(task.keys):
                continue
            records = [record for label in having if (record := self.runs[label].answers)]
            if all(task.task in record.passed_over for record in records):
                found.append(f"{task.task} has no reference answers, so there are no nats of any.")
                continue
            without = max(record.without.get(task.task, 0) for record in records)
            why = f" ({without} have no reference answer)" if without else ""
            found.append(f"{task.task}: the nats of the answers are over {count} of {len(task.keys)} documents{why}.")
        return found

    def _common(self, task: Matched) -> list[Key]:
        having = [label for label in self._found if label in task.scores]
        return [key for key in task.keys if having and all(self._one(label, task.task, key) for label in having)]

    def _one(self, label: str, task: str, key: Key) -> DocumentAnswer | None:
        row = self.runs[label].tasks[task].rows[key]
        found = self._found.get(label, {}).get((task, row.doc_id))
        # After the very prompt that was scored, not that of a document that bears the same number.
        return found if found and found.prompt_sha256 == row.prompt_hash else None

    def _values(self, label: str, tasks: Sequence[Matched], of: Callable[[DocumentAnswer], float]) -> list[Floats]:
        """A run's values by task; none unless it has some of every task."""
        found = [
            [of(one) for key in self.keys[task.task] if (one := self._one(label, task.task, key))]
            for task in tasks
            if label in task.scores
        ]
        whole = len(found) == len(tasks) and all(found)
        return [np.array(values, dtype=np.float64) for values in found] if whole else []
