"""How likely the reference answers are under a strategy: kept beside the run's record, apart from its costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval.api.task import Task

from lm_eval_ape.artefacts.run_record import (
    ANSWERS_NAME,
    AnswersRecord,
    DocumentAnswer,
    read_answers,
    write_answers,
)
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.reference_answers import score_answers
from lm_eval_ape.harness.specs import Spec


class StrategyAnswers:
    """The log-likelihoods of the reference answers under one strategy.

    Args:
        options: How the harness builds the prompts.
        spec: The strategy.
        place: Its folder.
        run: The identity of its run (see `identity.identity`), which is all that they depend on.
    """

    def __init__(self, options: Options, spec: Spec, place: Path, run: Mapping[str, Any]) -> None:
        self.options = options
        self.spec = spec
        self.place = place
        self.run = dict(run)

    @property
    def what(self) -> str:
        """What is measured, in words."""
        return f"Log-likelihood of the reference answers under {self.spec.label}"

    @property
    def needed(self) -> bool:
        """Whether the log-likelihoods were asked for, and are missing."""
        if not self.options.answer_nats:
            return False
        try:
            kept = read_answers(self.place / ANSWERS_NAME)
        except ApeError:
            return True
        return kept.identity != self.run

    def measure(self, lm: ApeHFLM, tasks: Mapping[str, Task], cache: Path) -> None:
        """Score all answers and write `answer_nats.json`.

        Args:
            lm: The model.
            tasks: The comparison's tasks; those without a reference answer are passed over.
            cache: Folder of what was scored before, which all strategies share.

        Raises:
            ApeError: Logits are not finite, or memory does not suffice for a prompt.
        """
        with lm.under(self.spec.settings):
            found = score_answers(lm, tasks, self.options, cache=cache, limit=self.options.limit)
        if lm.rank == 0:
            record = AnswersRecord(
                identity=self.run,
                without=found.without,
                passed_over=found.passed_over,
                samples=[DocumentAnswer(**one._asdict()) for one in found.answers],
            )
            write_answers(self.place, record)
