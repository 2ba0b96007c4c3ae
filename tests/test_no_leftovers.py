"""No keys and values outlive their use, even before Python looks for circles of objects, many prompts later."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import pytest
from torch import Tensor

from helpers import tiny
from helpers.everything import WORK
from lm_eval_ape.harness.ape_hf import ApeHFLM


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
