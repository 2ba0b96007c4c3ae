"""By which name a cache is handed over, whichever of the two a release of transformers and a model know."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import DynamicCache, GenerationMixin

from helpers import tiny
from lm_eval_ape.attention import cache_argument as module
from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.support import check
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import resolve

PROMPT = Prompt((1, 5), ((7, 8, 9), (11, 12, 13)), (18, 19))


class Old(nn.Module):
    def forward(self, input_ids: Any, past_key_values: Any = None, **kwargs: Any) -> None: ...


class New(nn.Module):
    def forward(self, input_ids: Any, cache: Any = None) -> None: ...


class Wrapped(nn.Module):
    """As PEFT hands on what it is given."""

    def forward(self, *args: Any, **kwargs: Any) -> None: ...


def old_release(self: Any, input_ids: Any, past_key_values: Any = None) -> None: ...


def new_release(self: Any, input_ids: Any, cache: Any = None) -> None: ...


@pytest.mark.parametrize(
    ("release", "network", "name"),
    [
        (old_release, Old, "past_key_values"),
        (old_release, Wrapped, "past_key_values"),
        (old_release, None, "past_key_values"),
        (new_release, New, "cache"),
        (new_release, Wrapped, "cache"),
        (new_release, None, "cache"),
        # A model's own code, written for older releases.
        (new_release, Old, "past_key_values"),
    ],
)
def test_a_cache_is_called_what_the_model_and_the_release_call_it(
    release: Callable[..., None], network: type[nn.Module] | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module._name.cache_clear()
    monkeypatch.setattr(GenerationMixin, "prepare_inputs_for_generation", release)
    cache = DynamicCache()
    try:
        assert cache_argument(network and network(), cache) == {name: cache}
    finally:
        module._name.cache_clear()


def test_reading_and_generating_uses_no_name_that_is_on_its_way_out() -> None:
    model = tiny.make_model("llama")
    settings = resolve({"strategy": "recompute", "recompute": 0.5})
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", FutureWarning)
        check(model, settings)
        engine = Engine(model, settings)
        with engine.tail(engine.encode(PROMPT)) as tail:
            assert tail.read(PROMPT.query, keep=1).isfinite().all()
