"""Selective attention equals Algorithm 1 written as loops, however the same tokens are asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_exactness import CHUNKS, EXACT, PREFIX, QUERY, prompt_of, query_logits, reference, run, tokens
from transformers import PreTrainedModel

from helpers import dense, tiny
from lm_eval_ape.attention import selected_chunks
from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import BatchReading, SegmentedCache
from lm_eval_ape.attention.selection import SELECT_OVER, Selection, top_logits
from lm_eval_ape.attention.token_passes import passes
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.errors import ApeError
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings, resolve

MANY = [tokens(6, 30), tokens(6, 31), tokens(9, 32), tokens(3, 33), tokens(6, 34)]
LONG_QUERY = tokens(7, 35)
# `generate` hands its logits out in float32.
FLOAT32 = 1e-5


@pytest.fixture(params=["at once", "chunk by chunk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of reading the chosen chunks."""
    if request.param == "chunk by chunk":
        monkeypatch.setattr(selected_chunks, "AT_ONCE_ELEMENTS", 0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("over", SELECT_OVER)
@pytest.mark.parametrize("strategy", ["selective", "sink+selective"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_oss"])
def test_selective_attention_matches_algorithm_1(family: str, strategy: str, over: str) -> None:
    model = tiny.make_model(family)
    settings = resolve({"strategy": strategy, "select_over": over})
    prompt = prompt_of(MANY, query=LONG_QUERY)
    got, expected = run(model, prompt, settings), reference(model, prompt, settings)
    assert (got - expected).abs().max() < EXACT
    unselected = run(model, prompt, settings.with_(top_chunks=None))
    assert (got - unselected).abs().max() > 1e-3


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("scale_mode", ["lse", "value", "additive"])
@pytest.mark.parametrize("over", SELECT_OVER)
def test_selection_goes_with_temperature_and_scale(over: str, scale_mode: str) -> None:
    model = tiny.make_model()
    given = {"attn_temperature": 0.7, "attn_scale": 1.2, "scale_mode": scale_mode, "top_chunks": 3}
    settings = resolve({**given, "select_over": over})
    prompt = prompt_of(MANY)
    assert (run(model, prompt, settings) - reference(model, prompt, settings)).abs().max() < EXACT


@pytest.mark.parametrize("top_chunks", [len(MANY), len(MANY) + 1])
def test_as_many_chunks_as_there_are_change_nothing(top_chunks: int) -> None:
    model = tiny.make_model()
    prompt = prompt_of(MANY)
    whole = run(model, prompt, resolve({"strategy": "sink"}))
    assert torch.equal(run(model, prompt, resolve({"strategy": "sink", "top_chunks": top_chunks})), whole)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("over", SELECT_OVER)
def test_padding_of_a_batch_has_no_say(over: str) -> None:
    model = tiny.make_model()
    settings = resolve({"strategy": "sink+selective", "select_over": over})
    prompts = [prompt_of(MANY, query=LONG_QUERY), prompt_of(CHUNKS, query=tokens(2, 36))]
    encoded_prompts = [Engine(model, settings).encode(prompt) for prompt in prompts]
    together = query_logits(model, encoded_prompts, prompts, settings)
    for prompt, got in zip(prompts, together, strict=True):
        assert (got - run(model, prompt, settings)).abs().max() < EXACT


def generate(model: PreTrainedModel, prompt: Prompt, settings: Settings, count: int) -> tuple[list[int], torch.Tensor]:
    """Greedy tokens and the logits that they were taken from."""
    encoded = Engine(model, settings).encode(prompt)
    reading = BatchReading((encoded,), settings.attn_temperature, settings.attn_scale, selection=settings.selection)
    with reading_segments(model):
        generated = model.generate(
            torch.tensor([prompt.query]),
            position_ids=torch.arange(encoded.start, encoded.start + len(prompt.query))[None],
            **cache_argument(model, SegmentedCache(reading, model.config.num_hidden_layers)),
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return generated.sequences[0, len(prompt.query) :].tolist(), torch.cat(generated.logits)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("over", SELECT_OVER)
def test_each_generated_token_chooses_anew(over: str) -> None:
    model = tiny.make_model()
    settings = resolve({"strategy": "sink+selective", "select_over": over})
    new, logits = generate(model, prompt_of(MANY), settings, 4)
    longer = prompt_of(MANY, query=[*QUERY, *new[:-1]])
    selecting = dense.Selecting(2, over, [len(QUERY), 1, 1, 1])
    layout = dense.lay_out(PREFIX, MANY, list(longer.query), "shared", True)
    expected = dense.dense_logits(model, layout, selecting=selecting)[0, -4:]
    assert (logits - expected).abs().max() < FLOAT32


@pytest.mark.parametrize("over", ["T", "HT", "LHT"])
def test_without_reselection_the_querys_choice_stays(over: str) -> None:
    model = tiny.make_model()
    settings = resolve({"strategy": "sink+selective", "select_over": over, "reselect": False})
    prompt = prompt_of(MANY)
    _, logits = generate(model, prompt, settings, 4)
    anew = generate(model, prompt, settings.with_(reselect=True), 4)[1]
    assert (logits[0] - anew[0]).abs().max() < FLOAT32
    assert (logits[1:] - anew[1:]).abs().max() > 1e-3


def test_chunks_that_no_layer_keeps_might_never_have_been_there() -> None:
    model = tiny.make_model()
    settings = resolve({"strategy": "sink+selective", "select_over": "LHT", "reselect": False})
    prompt = prompt_of([tokens(6, seed) for seed in range(40, 45)])
    encoded = Engine(model, settings).encode(prompt)
    cache = SegmentedCache(BatchReading((encoded,), selection=settings.selection), model.config.num_hidden_layers)
    positions = torch.arange(encoded.start, encoded.start + len(QUERY))[None]
    with reading_segments(model), torch.no_grad():
        model(torch.tensor([prompt.query]), position_ids=positions, **cache_argument(model, cache))
    kept = cache.layers[0].chosen[0].read
    fewer = replace(prompt, chunks=tuple(prompt.chunks[chunk] for chunk in kept))
    alone = generate(model, fewer, resolve({"strategy": "sink"}), 4)
    assert len(kept) == 2
    assert (generate(model, prompt, settings, 4)[1] - alone[1]).abs().max() < FLOAT32


@pytest.mark.parametrize("over", SELECT_OVER)
def test_a_known_continuation_is_read_as_if_it_were_generated(over: str) -> None:
    model = tiny.make_model()
    settings = resolve({"strategy": "sink+selective", "select_over": over})
    prompt = prompt_of(MANY)
    new, logits = generate(model, prompt, settings, 4)
    encoded = Engine(model, settings).encode(prompt)
    cache = SegmentedCache(BatchReading((encoded,), selection=settings.selection), model.config.num_hidden_layers)
    ids = torch.tensor([[*prompt.query, *new[:-1]]])
    positions = torch.arange(encoded.start, encoded.start + ids.shape[1])[None]
    with reading_segments(model), torch.no_grad():
        parts = [
            model(ids[:, part], position_ids=positions[:, part], **cache_argument(model, cache)).logits
            for part in passes(ids.shape[1], len(prompt.query), settings.selection)
        ]
    assert (torch.cat(parts, dim=1)[0, -4:] - logits).abs().max() < FLOAT32


@pytest.mark.parametrize("keys", [11, 3])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_top_logits_are_those_of_all_logits(softcap: float | None, keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval_ape.attention.selection.BLOCK_ELEMENTS", 200)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    query, key = normal(4, 6, 5, 8), normal(2, 2, keys, 8)
    mask = torch.rand(4, 1, 5, keys, generator=generator) > 0.3
    logits = query @ key.repeat_interleave(2, 0).repeat_interleave(3, 1).transpose(-1, -2) * 0.3
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    expected = logits.masked_fill(~mask, -torch.inf).sort(-1, descending=True)[0][..., :5]
    found = top_logits(query, key, scaling=0.3, mask=mask, softcap=softcap)
    assert torch.allclose(found[..., : min(keys, 5)], expected, atol=1e-14)
    assert found.shape[-1] == 5
    assert (found[..., keys:] == -torch.inf).all()


def test_top_logits_of_half_precision_are_taken_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, size, 8, generator=generator).bfloat16() for size in (3, 9))
    found = top_logits(query, key, scaling=0.3)
    assert found.dtype == torch.float32
    assert torch.equal(found, top_logits(query.float(), key.float(), scaling=0.3))


@pytest.mark.parametrize("over", SELECT_OVER)
@pytest.mark.parametrize("reselect", [True, False])
def test_tokens_of_a_pass_depend_on_one_another_unless_each_chooses_for_itself(over: str, reselect: bool) -> None:
    assert Selection(2, over, reselect).whole_pass == (not (over == "none" and reselect))


@pytest.mark.parametrize(
    ("strategy", "sides"),
    [
        ("value_only", {}),
        ("sink", {"keys_from": "sequential"}),
        ("sink", {"values_from": "sequential"}),
        ("ape", {"keys_from": "sequential", "scale_mode": "value"}),
    ],
)
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_oracles_match_the_dense_reference(family: str, strategy: str, sides: dict[str, Any]) -> None:
    model = tiny.make_model(family)
    settings = resolve({"strategy": strategy, **sides})
    prompt = prompt_of(CHUNKS)
    assert (run(model, prompt, settings) - reference(model, prompt, settings)).abs().max() < EXACT


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_keys_and_values_of_the_sequential_pass_are_the_sequential_model(family: str) -> None:
    model = tiny.make_model(family)
    settings = resolve({"strategy": "parallel", "keys_from": "sequential", "values_from": "sequential"})
    prompt = prompt_of(CHUNKS)
    with torch.no_grad():
        stock = model(torch.tensor([prompt.ids])).logits[0, -len(QUERY) :]
    assert (run(model, prompt, settings) - stock).abs().max() < EXACT


def test_a_choice_of_each_token_cannot_be_kept() -> None:
    with pytest.raises(ApeError, match="select_over=none"):
        resolve({"strategy": "selective", "select_over": "none", "reselect": False})


def test_tokens_choose_anew_unless_it_is_said_otherwise() -> None:
    assert Selection(2, "HT").reselect
