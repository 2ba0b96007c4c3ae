"""Everything that a loaded model is asked for, once each, on a small prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lm_eval.api.instance import Instance

from lm_eval_ape.analysis.attention import look
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.gradient.differentiator import Differentiator
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.grid.scoring import Scorer
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.prompts.prompt import Prompt

CONTEXT = "a city by a river and a film of a father and his people " * 6
SAMPLE = Sample("task", 0, 0, Prompt((1, 5), ((7, 8, 9), (11, 12), (14, 15, 16)), (18, 19, 20)), "digest")


def ask(kind: str, *more: Any) -> Callable[[ApeHFLM], Any]:
    def work(lm: ApeHFLM) -> Any:
        text = f"Read.\n\n{CONTEXT}\n\nWhich city?"
        request = Instance(kind, {"context": CONTEXT}, (text, *more), 0, metadata=("toy", 0, 1))
        return getattr(lm, kind)([request], disable_tqdm=True)

    return work


def score(lm: ApeHFLM) -> Any:
    scorer = Scorer(lm, Objective(2, "own", "continue"))
    meter = Meter(lm, scorer.objective, max_rows=None, cache=None)
    points = [Point(0.9, 0.9), Point(1.0, 1.0)]
    return scorer.score(
        lm.engine.encode(SAMPLE.prompt), SAMPLE.prompt, meter.teacher(SAMPLE), points, sample="a prompt"
    )


def differentiate(lm: ApeHFLM) -> Any:
    meter = Meter(lm, Objective(2, "teacher", "continue"), max_rows=None, cache=None)
    encoded, teacher = lm.engine.encode(SAMPLE.prompt), meter.teacher(SAMPLE)
    parameters = torch.zeros(2, 2, 3, 4, dtype=torch.float64)
    wanted = torch.ones(2, dtype=torch.bool)
    return Differentiator(lm).differentiate(SAMPLE.prompt, encoded, teacher, parameters, wanted, sample="a prompt")


WORK: dict[str, Callable[[ApeHFLM], Any]] = {
    "generated": ask("generate_until", {"until": [], "max_gen_toks": 3}),
    "scored": ask("loglikelihood", " the city"),
    "whole": ask("loglikelihood_rolling"),
    "points": score,
    "slopes": differentiate,
    "looked at": lambda lm: look(lm, SAMPLE.prompt, lm.settings).entropy,
}
