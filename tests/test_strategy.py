"""Strategies as named defaults, and what their settings accept."""

from __future__ import annotations

from typing import Any

import pytest

from lm_eval_ape.errors import ApeError
from lm_eval_ape.strategy import STRATEGIES, resolve


def test_the_default_is_ape_with_its_papers_temperature_and_scale() -> None:
    settings = resolve({})
    assert (settings.strategy, settings.attn_temperature, settings.attn_scale) == ("ape", 0.9, 0.9)
    assert settings.shared_prefix


def test_a_given_setting_wins_over_its_strategys_default() -> None:
    settings = resolve({"strategy": "ape", "attn_temperature": 1, "shared_prefix": False})
    assert settings.attn_temperature == 1.0
    assert isinstance(settings.attn_temperature, float)
    assert settings.attn_scale == 0.9
    assert not settings.shared_prefix


@pytest.mark.parametrize("strategy", ["parallel", "sink"])
def test_parallel_and_sink_differ_in_the_prefix_alone(strategy: str) -> None:
    settings = resolve({"strategy": strategy})
    assert (settings.attn_temperature, settings.attn_scale) == (1.0, 1.0)
    assert settings.shared_prefix == (strategy == "sink")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_resolves_by_name_alone(strategy: str) -> None:
    assert resolve({"strategy": strategy}).strategy == strategy


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"strategy": "aep"},
            "ape, selective, sink+selective, value_only, but got 'aep'. Did you mean 'ape'?",
        ),
        ({"attn_temperature": 0}, "attn_temperature must be a positive number, but got 0."),
        ({"attn_temperature": True}, "attn_temperature must be a positive number, but got True."),
        ({"attn_scale": -0.5}, "attn_scale must be a positive number, but got -0.5."),
        ({"attn_scale": "high"}, "attn_scale must be a positive number, but got 'high'."),
        ({"attn_scale": float("nan")}, "attn_scale must be a positive number, but got nan."),
        ({"scale_mode": "log"}, "scale_mode must be one of lse, value, additive, but got 'log'."),
        ({"chunking": "token"}, "Did you mean 'tokens'?"),
        ({"chunk_tokens": 0}, "chunk_tokens must be a whole number of at least 1 or None, but got 0."),
        ({"max_chunks": 2.5}, "max_chunks must be a whole number of at least 1 or None, but got 2.5."),
        ({"positions": "share"}, "Did you mean 'shared'?"),
        ({"prefix": 3}, "prefix must be text, but got 3."),
        ({"shared_prefix": "yes"}, "shared_prefix must be True or False, but got 'yes'."),
        ({"chunking": "separator", "separator": ""}, "chunking=separator needs a separator"),
        ({"strategy": "sequential", "attn_temperature": 0.9}, "attn_temperature=0.9 would change nothing"),
    ],
)
def test_impossible_settings_are_refused_with_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ApeError) as error:
        resolve(given)
    assert sentence in str(error.value)


def test_line_breaks_can_be_written_on_a_command_line() -> None:
    assert resolve({"separator": "\\n---\\n"}).separator == "\n---\n"
