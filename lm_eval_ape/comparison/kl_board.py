"""The divergences of runs as the board holds them: by document, by task, and where there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from lm_eval_ape.artefacts.board import MeanKL, Objective, Prompt
from lm_eval_ape.artefacts.run_record import PromptKL
from lm_eval_ape.comparison.matching import Matched
from lm_eval_ape.comparison.runs import Run
from lm_eval_ape.comparison.samples import Row
from lm_eval_ape.comparison.statistics import estimate


class Divergences:
    """One run's divergences, by document.

    Args:
        run: The run, with or without divergences.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._prompts: dict[tuple[str, int], list[PromptKL]] = {}
        for sample in run.kl.samples if run.kl else ():
            self._prompts.setdefault((sample.task, sample.doc_id), []).append(sample)

    def prompts(self, task: str, row: Row) -> list[Prompt] | None:
        """Divergences of each of a document's prompts, in nats, and the teacher's token that each belongs to."""
        found = self._prompts.get((task, row.doc_id), [])
        # Of the very prompt that was scored, not of a document that bears the same number.
        if not found or found[0].prompt_sha256 != row.prompt_hash:
            return None
        return [Prompt(tokens=sample.tokens, nats=sample.nats) for sample in found]

    def mean(self, *tasks: Matched) -> MeanKL | None:
        """Mean over tasks of the mean over documents; None unless every task has some."""
        values = [self._means(task) for task in tasks]
        if not all(len(part) for part in values):
            return None
        return MeanKL(**estimate(*values)._asdict(), documents=sum(map(len, values)))

    def _means(self, task: Matched) -> np.ndarray[Any, np.dtype[np.float64]]:
        rows = self.run.tasks[task.task].rows
        found = [self.prompts(task.task, rows[key]) for key in task.keys]
        return np.array([fmean(fmean(prompt.nats) for prompt in prompts) for prompts in found if prompts])

    @property
    def objective(self) -> Objective | None:
        """How it was measured: K, history, and what happens at an end of sequence."""
        if self.run.kl is None:
            return None
        identity = self.run.kl.identity
        return Objective(num_tokens=identity.num_tokens, history=identity.history, after_eos=identity.after_eos)

    def whole_texts(self, matched: Sequence[Matched]) -> list[str]:
        """Tasks that have no next token."""
        texts = self.run.kl.whole_texts if self.run.kl else ()
        return [task.task for task in matched if task.task in texts and self.run.label in task.scores]

    def gaps(self, matched: Sequence[Matched]) -> Iterator[tuple[str, str]]:
        """Each task of which some documents have no divergence, and how many have one and why."""
        if self.run.kl is None:
            return
        limit, left_out = self.run.kl.identity.limit, self.run.kl.left_out
        reasons = [f"asked for were the first {limit} of each task"] if limit else []
        reasons += [f"{count} prompts are longer than the model's window"] if (count := left_out.too_long) else []
        reasons += [f"{count} prompts have no context"] if (count := left_out.no_context) else []
        for task in matched:
            if self.run.label not in task.scores or task.task in self.run.kl.whole_texts:
                continue
            if (count := len(self._means(task))) < len(task.keys):
                why = f" ({'; '.join(reasons)})" if reasons else ""
                yield task.task, f"{count} of {len(task.keys)} documents{why}"


def notes(divergences: Sequence[Divergences], matched: Sequence[Matched]) -> list[str]:
    """A sentence for everything without a divergence; several runs or tasks share one sentence."""
    found: list[str] = []
    texts: dict[str, list[str]] = {}
    gaps: dict[tuple[str, str], list[str]] = {}
    for part in divergences:
        for task in part.whole_texts(matched):
            texts.setdefault(task, []).append(part.run.label)
        for task, share in part.gaps(matched):
            gaps.setdefault((task, share), []).append(part.run.label)
    found += [
        f"{task} scores whole texts, so there is no next token to measure the KL of {', '.join(labels)} at."
        for task, labels in texts.items()
    ]
    alike: dict[tuple[str, str], list[str]] = {}
    for (task, share), labels in gaps.items():
        alike.setdefault((", ".join(labels), share), []).append(task)
    found += [f"{', '.join(tasks)}: the KL of {labels} is over {share}." for (labels, share), tasks in alike.items()]
    return found + mismatch(divergences)


def mismatch(divergences: Sequence[Divergences]) -> list[str]:
    """A sentence if runs were measured over different numbers of tokens."""
    counts = {part.run.label: part.objective.num_tokens for part in divergences if part.objective}
    if len(set(counts.values())) < 2:
        return []
    listed = ", ".join(f"{count} of {label}" for label, count in counts.items())
    return [f"KLs are over different numbers of tokens ({listed}) and cannot be compared."]
