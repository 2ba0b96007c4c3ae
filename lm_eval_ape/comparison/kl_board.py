"""The divergences of runs as the board holds them: by document, by task, and what has none."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from lm_eval_ape.comparison.matching import Matched
from lm_eval_ape.comparison.runs import Run
from lm_eval_ape.comparison.samples import Row
from lm_eval_ape.comparison.statistics import estimate


class Divergences:
    """What was measured of one run, by document.

    Args:
        run: The run, with or without divergences.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._prompts: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for sample in (run.kl or {}).get("samples", ()):
            self._prompts.setdefault((sample["task"], sample["doc_id"]), []).append(sample)

    def prompts(self, task: str, row: Row) -> list[dict[str, Any]] | None:
        """Divergences of each of a document's prompts, in nats, and the teacher's token that each belongs to."""
        found = self._prompts.get((task, row.doc_id), [])
        # Of the very prompt that was scored, not of a document that bears the same number.
        if not found or found[0]["prompt_sha256"] != row.prompt_hash:
            return None
        return [{"tokens": sample["tokens"], "nats": sample["nats"]} for sample in found]

    def mean(self, *tasks: Matched) -> dict[str, Any] | None:
        """Mean over tasks of the mean over documents; None unless every task has some."""
        values = [self._means(task) for task in tasks]
        if not all(len(part) for part in values):
            return None
        return {**estimate(*values)._asdict(), "documents": sum(map(len, values))}

    def _means(self, task: Matched) -> np.ndarray[Any, np.dtype[np.float64]]:
        rows = self.run.tasks[task.task].rows
        found = [self.prompts(task.task, rows[key]) for key in task.keys]
        return np.array([fmean(fmean(prompt["nats"]) for prompt in prompts) for prompts in found if prompts])

    @property
    def objective(self) -> dict[str, Any] | None:
        """What was measured: K, history, and what happens at an end of sequence."""
        if self.run.kl is None:
            return None
        return {name: self.run.kl["identity"][name] for name in ("num_tokens", "history", "after_eos")}

    def notes(self, matched: Sequence[Matched]) -> list[str]:
        """A sentence for each task of which some documents have no divergence."""
        if self.run.kl is None:
            return []
        label, left_out, found = self.run.label, self.run.kl["left_out"], []
        for task in matched:
            if label not in task.scores:
                continue
            if task.task in self.run.kl["whole_texts"]:
                found.append(f"{task.task} scores whole texts, so {label} has no next token to measure a KL of there.")
            elif (count := len(self._means(task))) < len(task.keys):
                reasons = f"{left_out['too_long']} prompts in all are longer than the model's window"
                reasons += f", {left_out['no_context']} have no context"
                if limit := self.run.kl["identity"].get("limit"):
                    reasons = f"asked for were the first {limit} of each task; {reasons}"
                found.append(
                    f"{task.task}: the KL of {label} is over {count} of {len(task.keys)} documents ({reasons})."
                )
        return found


def mismatch(divergences: Sequence[Divergences]) -> list[str]:
    """A sentence if runs were measured over different numbers of tokens."""
    counts = {part.run.label: part.objective["num_tokens"] for part in divergences if part.objective}
    if len(set(counts.values())) < 2:
        return []
    listed = ", ".join(f"{count} of {label}" for label, count in counts.items())
    return [f"KLs are over different numbers of tokens ({listed}) and cannot be compared."]
