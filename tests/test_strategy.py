"""Strategies as named defaults, and what their settings accept."""

from __future__ import annotations

from typing import Any

import pytest

from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings.strategy import STRATEGIES, resolve


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
            "epic, infoflow, value_only, but got 'aep'. Did you mean 'ape'?",
        ),
        ({"attn_temperature": 0}, "attn_temperature must be a positive number, but got 0."),
        ({"attn_temperature": True}, "attn_temperature must be a positive number, but got True."),
        ({"attn_scale": -0.5}, "attn_scale must be a positive number, but got -0.5."),
        ({"attn_scale": "high"}, "attn_scale must be a positive number, but got 'high'."),
        ({"attn_scale": float("nan")}, "attn_scale must be a positive number, but got nan."),
        ({"scale_mode": "log"}, "scale_mode must be one of lse, value, additive, but got 'log'."),
        ({"chunking": "token"}, "Did you mean 'tokens'?"),
        ({"chunk_tokens": 0}, "chunk_tokens must be a whole number of at least 1 or None, but got 0."),
        ({"chunks": 0}, "chunks must be a whole number of at least 1 or None, but got 0."),
        ({"chunks": 4, "max_chunks": 8}, "max_chunks=8 also says how it is cut; drop one of the two."),
        ({"chunks": 4, "chunk_tokens": 100}, "chunk_tokens=100 also says how it is cut; drop one of the two."),
        ({"chunks": 4, "preset": "C200x20"}, "chunk_tokens=200 (of preset=C200x20) also says how it is cut"),
        ({"retriever": "bm52"}, "retriever must be one of none, bm25, but got 'bm52'. Did you mean 'bm25'?"),
        ({"retriever": "bm25"}, "retriever=bm25 keeps the max_chunks best chunks, but max_chunks is not given"),
        ({"preset": "C2000x20"}, "preset must be one of none, C200x20, C4000x20, but got 'C2000x20'. Did you mean"),
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


@pytest.mark.parametrize(("preset", "tokens"), [("C200x20", 200), ("C4000x20", 4000)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_preset_fills_what_is_not_given(preset: str, tokens: int, strategy: str) -> None:
    settings = resolve({"preset": preset, "strategy": strategy})
    assert (settings.chunk_tokens, settings.max_chunks, settings.retriever) == (tokens, 20, "bm25")
    given = resolve({"preset": preset, "strategy": strategy, "max_chunks": 5, "retriever": "none"})
    assert (given.chunk_tokens, given.max_chunks, given.retriever) == (tokens, 5, "none")


def test_a_given_number_of_chunks_leaves_their_length_open() -> None:
    settings = resolve({"chunks": 4, "max_chunks": None})
    assert (settings.chunks, settings.chunk_tokens, settings.max_chunks) == (4, None, None)
    assert resolve({"chunks": None}).chunk_tokens == 4000


def test_none_from_a_command_line_is_no_retriever_and_no_preset() -> None:
    assert resolve({"retriever": None, "preset": None}) == resolve({})
