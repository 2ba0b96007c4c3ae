"""How far a strategy's next-token distributions are from the sequential model's, token by token.

Measured as `lm-eval-ape calibrate` does, with the teacher's history: both read the sequential model's own greedy
tokens, so that one pass over a prompt gives all K divergences. Kept beside the run's record, apart from its costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lm_eval.api.task import Task

from lm_eval_ape.artefacts.document import LeftOut
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.artefacts.run_record import (
    KL_NAME,
    KLIdentity,
    KLRecord,
    PromptKL,
    read_divergences,
    write_divergences,
)
from lm_eval_ape.calibration.grid.candidates import Candidate
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.grid.scoring import Score
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.catalogue import FEWSHOT_SEED
from lm_eval_ape.harness.samples import Gathered, collect
from lm_eval_ape.harness.specs import Spec


class StrategyKL:
    """One strategy's divergences on the prompts of some tasks.

    Args:
        options: K, and how the harness builds the prompts.
        spec: The strategy.
        place: Its folder.
        run: The identity of its run (see `identity.identity`).
    """

    def __init__(self, options: Options, spec: Spec, place: Path, run: Mapping[str, Any]) -> None:
        self.options = options
        self.spec = spec
        self.place = place
        self.objective = kl_objective(options)
        self.run = run

    @property
    def what(self) -> str:
        """What is measured, in words."""
        return f"KL of {self.spec.label} from the sequential model"

    @property
    def identity(self) -> KLIdentity:
        """Everything the divergences depend on; only for a run whose divergences were asked for."""
        return KLIdentity(run=dict(self.run), **asdict(self.objective), limit=self.options.kl_limit)

    @property
    def needed(self) -> bool:
        """Whether the divergences were asked for, can be measured, and are missing."""
        if not self.options.kl_tokens or not self.spec.settings.parallel:
            return False
        try:
            kept = read_divergences(self.place / KL_NAME)
        except ApeError:
            return True
        return kept.identity != self.identity

    def measure(self, lm: ApeHFLM, tasks: Mapping[str, Task], cache: Path) -> None:
        """Measure all prompts and write `kl.json`.

        Args:
            lm: The model.
            tasks: The comparison's tasks; those that score whole texts have no next token and are passed over.
            cache: Folder of teachers and divergences, which all strategies share.

        Raises:
            ApeError: Logits are not finite, or memory does not suffice for a prompt.
        """
        settings = self.spec.settings
        point: Candidate = settings.factors or Point(settings.attn_temperature, settings.attn_scale)
        with lm.under(settings):
            gathered = kl_samples(lm, tasks, self.options)
            meter = Meter(lm, self.objective, max_rows=1, cache=cache)
            scores = meter.scores(gathered.samples, [point])
        if lm.rank == 0:
            found = KLRecord(
                identity=self.identity,
                left_out=LeftOut(too_long=gathered.too_long, no_context=gathered.no_context),
                whole_texts=[name for name, task in tasks.items() if _whole_texts(task)],
                samples=_samples(lm, meter, gathered, scores),
            )
            write_divergences(self.place, found)


def kl_objective(options: Options) -> Objective:
    """What is measured."""
    return Objective(options.kl_tokens, "teacher", "stop")


def kl_samples(lm: ApeHFLM, tasks: Mapping[str, Task], options: Options) -> Gathered:
    """The prompts whose divergences are measured, as the model's present settings cut them.

    Args:
        lm: The model.
        tasks: The comparison's tasks; those that score whole texts are passed over.
        options: K, and how the harness builds the prompts.
    """
    with_next = {name: task for name, task in tasks.items() if not _whole_texts(task)}
    for task in with_next.values():
        # As the harness does before each run, so that the same examples are chosen.
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return collect(lm, with_next, options, num_tokens=options.kl_tokens, limit=_limit(options))


def _whole_texts(task: Task) -> bool:
    return bool(task.OUTPUT_TYPE == "loglikelihood_rolling")


def _limit(options: Options) -> float | None:
    """The harness's limit on documents, or `kl_limit` where that is fewer."""
    ran, own = options.limit, options.kl_limit
    if own is None:
        return ran
    # Documents of the KL that a share below 1 did not run are on no board.
    return own if ran is None or ran < 1 else min(own, ran)


def _samples(lm: ApeHFLM, meter: Meter, gathered: Gathered, scores: Sequence[Sequence[Score]]) -> list[PromptKL]:
    """Each prompt's divergences, with the teacher's tokens that they belong to."""
    found = []
    for sample, (score,) in zip(gathered.samples, scores, strict=True):
        tokens = meter.teacher(sample).tokens.tolist()
        found.append(
            PromptKL(
                task=sample.task,
                doc_id=sample.doc_id,
                prompt_sha256=sample.digest,
                tokens=[lm.tokenizer.decode([token]) for token in tokens[: score.positions]],
                nats=list(score.divergences),
            )
        )
    return found
