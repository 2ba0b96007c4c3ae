"""No keys and values outlive their use, even before Python looks for circles of objects, many prompts later."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from torch import Tensor

from helpers import tiny
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


@pytest.fixture
def no_search_for_circles() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keys_and_values() -> Counter[tuple[int, ...]]:
    """All tensors that there are with a head's dimensions at their end, by their shapes."""
    return Counter(
        tuple(one.shape)
        for one in gc.get_objects()
        if issubclass(type(one), Tensor) and one.dim() == 4 and one.shape[-1] == 8
    )


def ask(kind: str, *more: Any) -> Callable[[ApeHFLM], Any]:
    def work(lm: ApeHFLM) -> Any:
        text = f"Read.\n\n{CONTEXT}\n\nWhich city?"
        request = Instance(kind, {"context": CONTEXT}, (text, *more), 0, metadata=("toy", 0, 1))
        return getattr(lm, kind)([request], disable_tqdm=True)

    return work


def score(lm: ApeHFLM) -> None:
    scorer = Scorer(lm, Objective(2, "own", "continue"))
    meter = Meter(lm, scorer.objective, max_rows=None, cache=None)
    points = [Point(0.9, 0.9), Point(1.0, 1.0)]
    scorer.score(lm.engine.encode(SAMPLE.prompt), SAMPLE.prompt, meter.teacher(SAMPLE), points, sample="a prompt")


def differentiate(lm: ApeHFLM) -> None:
    meter = Meter(lm, Objective(2, "teacher", "continue"), max_rows=None, cache=None)
    encoded, teacher = lm.engine.encode(SAMPLE.prompt), meter.teacher(SAMPLE)
    parameters = torch.zeros(2, 2, 3, 4, dtype=torch.float64)
    wanted = torch.ones(2, dtype=torch.bool)
    Differentiator(lm).differentiate(SAMPLE.prompt, encoded, teacher, parameters, wanted, sample="a prompt")


WORK: dict[str, Callable[[ApeHFLM], Any]] = {
    "generated": ask("generate_until", {"until": [], "max_gen_toks": 3}),
    "scored": ask("loglikelihood", " the city"),
    "whole": ask("loglikelihood_rolling"),
    "points": score,
    "slopes": differentiate,
    "looked at": lambda lm: look(lm, SAMPLE.prompt, lm.settings),
}


@pytest.mark.usefixtures("no_search_for_circles")
@pytest.mark.parametrize(
    ("what", "strategy"),
    [
        (what, strategy)
        for what in WORK
        for strategy in ("sequential", "ape", "sink+selective", "recompute")
        # Points read chunks, and a choice of chunks has no slope.
        if (what, strategy) not in {("points", "sequential"), ("slopes", "sequential"), ("slopes", "sink+selective")}
    ],
)
def test_no_keys_outlive_their_use(what: str, strategy: str) -> None:
    tokenizer = tiny.make_tokenizer()
    model = tiny.make_model(vocab_size=len(tokenizer))
    lm = ApeHFLM(pretrained=model, tokenizer=tokenizer, chunks=3, device="cpu", strategy=strategy)
    # What is found out once stays.
    WORK[what](lm)
    gc.collect()
    before = keys_and_values()
    for _ in range(2):
        WORK[what](lm)
    assert keys_and_values() == before
