"""Recomputation: all tokens give the sequential model, some the dense reference, none the chunks as they were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_exactness import query_logits
from torch import Tensor
from transformers import PreTrainedModel

from helpers import dense, dense_recomputation, tiny
from helpers.machine import CPU_BACKENDS
from lm_eval_ape.attention import recomputed_tokens
from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.segments import EncodedPrompt
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.recomputation import recomputed_count
from lm_eval_ape.engine.rolling import rolling_loglikelihood
from lm_eval_ape.errors import ApeError
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.choices import SELECTORS
from lm_eval_ape.settings.layers import read_layers
from lm_eval_ape.settings.strategy import Settings, resolve

EXACT = 1e-12

# Choosing by the query reads each family's attention, and by deviation its first layers; chance and starts of chunks
# look at no model, so two families show what they choose: one plain, one with windows and positions by layer.
MIXED = ("llama", "llama3", "mistral", "gemma2", "gemma3", "gpt_neox", "gpt_oss")
FAMILY_AND_SELECTOR = [
    *((family, "query") for family in tiny.FAMILIES),
    *((family, "deviation") for family in MIXED),
    *((family, by) for family in ("llama", "gemma3") for by in ("first", "random")),
]


def tokens(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 97, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


PROMPT = Prompt(tokens(4, 0), (tokens(7, 2), tokens(3, 3), tokens(9, 4), tokens(1, 5), tokens(8, 6)), tokens(5, 1))
CONTEXT = sum(map(len, PROMPT.chunks))


@pytest.fixture(autouse=True)
def _in_double() -> Iterator[None]:
    with tiny.InDouble():
        yield


@torch.no_grad()
def read(model: PreTrainedModel, settings: Settings, prompt: Prompt = PROMPT) -> tuple[Tensor, EncodedPrompt]:
    engine = Engine(model, settings)
    encoded = engine.encode(prompt)
    with engine.tail(encoded) as tail:
        return tail.read(prompt.query, keep=len(prompt.query))[0], encoded


def chunked(prompt: Prompt = PROMPT, shared_prefix: bool = True) -> dense.Layout:
    chunks = [list(chunk) for chunk in prompt.chunks]
    return dense.lay_out(list(prompt.prefix), chunks, list(prompt.query), "serial", shared_prefix)


def test_every_selector_is_tested_here() -> None:
    assert {by for _, by in FAMILY_AND_SELECTOR} == set(SELECTORS)


@pytest.mark.parametrize(
    ("family", "by", "shared_prefix"),
    [*((*pair, True) for pair in FAMILY_AND_SELECTOR), *(("llama", by, False) for by in SELECTORS)],
)
def test_all_tokens_recomputed_are_the_sequential_model(family: str, by: str, shared_prefix: bool) -> None:
    model = tiny.make_model(family)
    settings = resolve({"strategy": "recompute", "recompute": 1, "recompute_by": by, "shared_prefix": shared_prefix})
    got, encoded = read(model, settings)
    with torch.no_grad():
        sequential = model(torch.tensor([PROMPT.ids])).logits[0, -len(PROMPT.query) :]
    assert (got - sequential).abs().max() < EXACT * sequential.abs().max()
    assert encoded.recomputed == tuple(range(len(PROMPT.chunks[0]), CONTEXT))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_all_tokens_recomputed_generate_the_sequential_models_greedy_tokens(family: str) -> None:
    model = tiny.make_model(family)
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    engine = Engine(model, resolve({"strategy": "recompute", "recompute": 1}))
    encoded = engine.encode(PROMPT)
    with engine.tail(encoded) as tail:
        got = model.generate(
            torch.tensor([PROMPT.query]),
            position_ids=torch.arange(encoded.start, encoded.start + len(PROMPT.query))[None],
            **cache_argument(model, tail.cache),
            **options,
        )[0, len(PROMPT.query) :]
    sequential = model.generate(torch.tensor([PROMPT.ids]), **options)[0, len(PROMPT.ids) :]
    assert got.tolist() == sequential.tolist()


@pytest.mark.parametrize("by", SELECTORS)
def test_no_tokens_recomputed_are_the_sink_with_serial_positions(by: str) -> None:
    model = tiny.make_model()
    got, encoded = read(model, resolve({"strategy": "recompute", "recompute": 0, "recompute_by": by}))
    sink, _ = read(model, resolve({"strategy": "sink", "positions": "serial"}))
    assert torch.equal(got, sink)
    assert encoded.recomputed == ()


@pytest.mark.parametrize(
    ("family", "by", "backend"),
    [
        *((*pair, "auto") for pair in FAMILY_AND_SELECTOR),
        *(("llama", by, name) for name in CPU_BACKENDS for by in ("query", "deviation")),
    ],
)
def test_some_tokens_recomputed_match_the_dense_reference(
    family: str, by: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several blocks of queries, so that keys are seen by all, by some and by none of a block.
    monkeypatch.setattr(recomputed_tokens, "BLOCK_QUERIES", 3)
    model = tiny.make_model(family)
    given = {"strategy": "recompute", "recompute": 0.4, "recompute_by": by, "attn_backend": backend}
    got, encoded = read(model, resolve({**given, "attn_temperature": 0.7, "attn_scale": 0.8}))
    assert len(encoded.recomputed) == round(0.4 * CONTEXT)
    expected = dense_recomputation.logits(
        model,
        chunked(),
        list(encoded.recomputed),
        temperature=0.7,
        scale=0.8,
        whole_layers=2 if by == "deviation" else 0,
    )[0]
    assert (got - expected).abs().max() < EXACT * expected.abs().max()


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_padded_batch_of_recomputed_contexts_matches_each_alone(family: str) -> None:
    model = tiny.make_model(family)
    settings = resolve({"strategy": "recompute", "recompute": 0.3, "attn_temperature": 0.8})
    prompts = [
        PROMPT,
        Prompt(tokens(1, 9), (tokens(5, 8), tokens(6, 12)), tokens(2, 10)),
        Prompt((), (tokens(2, 11), tokens(6, 12)), tokens(9, 13)),
        Prompt((), (), tokens(7, 14)),
    ]
    encoded_prompts = Engine(model, settings).encode_all(prompts)
    for prompt, encoded, got in zip(
        prompts, encoded_prompts, query_logits(model, encoded_prompts, prompts, settings), strict=True
    ):
        if prompt.chunks:
            chosen = list(encoded.recomputed)
            assert len(chosen) == round(0.3 * sum(map(len, prompt.chunks)))
            expected = dense_recomputation.logits(model, chunked(prompt), chosen, temperature=0.8)[0]
        else:
            with torch.no_grad():
                expected = model(torch.tensor([prompt.ids])).logits[0, -len(prompt.query) :]
        assert (got - expected).abs().max() < EXACT * expected.abs().max()


def best(scores: Tensor, count: int) -> tuple[int, ...]:
    """The best of the tokens after the first chunk."""
    first = len(PROMPT.chunks[0])
    order = sorted(range(first, len(scores)), key=lambda token: -float(scores[token]))
    return tuple(sorted(order[:count]))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "gpt_oss"])
@pytest.mark.parametrize(("layers", "numbers"), [("all", [0, 1, 2]), ("last:2", [1, 2]), ("0+2", [0, 2])])
def test_the_query_chooses_what_it_attends_to(family: str, layers: str, numbers: list[int]) -> None:
    model = tiny.make_model(family)
    # Whichever T and S it reads with afterwards.
    given = {"recompute": 6, "recompute_layers": layers, "attn_temperature": 0.5, "attn_scale": 2.0}
    _, encoded = read(model, resolve({"strategy": "recompute", **given}))
    assert encoded.recomputed == best(dense_recomputation.query_scores(model, chunked(), numbers), 6)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_deviation_chooses_by_the_values_of_layer_1(family: str) -> None:
    model = tiny.make_model(family)
    _, encoded = read(model, resolve({"strategy": "cacheblend", "recompute": 6}))
    assert encoded.recomputed == best(dense_recomputation.deviation_scores(model, chunked()), 6)


def test_first_takes_the_starts_of_all_chunks_but_the_first() -> None:
    _, encoded = read(tiny.make_model(), resolve({"strategy": "epic", "recompute": 6}))
    assert encoded.recomputed == (7, 8, 10, 11, 19, 20)


def test_chance_depends_on_the_seed_and_the_context_alone() -> None:
    model = tiny.make_model()

    def drawn(seed: int, prompt: Prompt = PROMPT) -> tuple[int, ...]:
        given = {"strategy": "recompute", "recompute": 8, "recompute_by": "random", "recompute_seed": seed}
        return read(model, resolve(given), prompt)[1].recomputed

    assert drawn(0) == drawn(0) == drawn(0, Prompt(PROMPT.prefix, PROMPT.chunks, tokens(3, 9)))
    others = [drawn(seed) for seed in range(1, 16)]
    assert len(set(others)) == 15
    counts = torch.bincount(torch.tensor([token for one in others for token in one]), minlength=CONTEXT)
    assert counts[:7].sum() == 0
    assert counts[7:].min() > 0
    assert drawn(0) != drawn(0, Prompt(PROMPT.prefix, (*PROMPT.chunks[:-1], tokens(8, 7)), PROMPT.query))


def test_what_was_encoded_stays_as_it_was() -> None:
    model = tiny.make_model()
    engine = Engine(model, resolve({"strategy": "cacheblend", "recompute": 0.5}))
    (frozen,) = engine.encode_chunks([PROMPT])
    before = [keys.clone() for segment in frozen.segments for keys in (*segment.keys, *segment.values)]
    mixed = engine.recompute(PROMPT, frozen)
    after = [keys for segment in frozen.segments for keys in (*segment.keys, *segment.values)]
    assert all(map(torch.equal, before, after))
    assert not torch.equal(mixed.segments[-1].keys[-1], frozen.segments[-1].keys[-1])


@pytest.mark.parametrize("by", SELECTORS)
def test_long_recomputations_go_in_blocks(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.make_model("mistral")
    settings = resolve({"strategy": "recompute", "recompute": 0.5, "recompute_by": by})
    whole, _ = read(model, settings)
    monkeypatch.setattr("lm_eval_ape.engine.recomputation.ENCODE_TOKENS", 5)
    assert (read(model, settings)[0] - whole).abs().max() < EXACT * whole.abs().max()


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.parametrize("by", SELECTORS)
def test_a_rolling_text_with_all_tokens_recomputed_is_scored_as_the_sequential_model_does(
    by: str, shared_prefix: bool
) -> None:
    model = tiny.make_model()
    given = {"recompute": 1, "recompute_by": by, "shared_prefix": shared_prefix}
    got = rolling_loglikelihood(Engine(model, resolve({"strategy": "recompute", **given})), PROMPT, 1)
    with torch.no_grad():
        logits = model(torch.tensor([(1, *PROMPT.ids)])).logits[0, :-1].log_softmax(-1)
    assert abs(got - float(logits.gather(-1, torch.tensor(PROMPT.ids)[:, None]).sum())) < 1e-10


@torch.no_grad()
def test_a_rolling_text_is_scored_by_the_new_logits_of_what_was_recomputed() -> None:
    model = tiny.make_model()
    prompt = Prompt((1, *PROMPT.prefix), PROMPT.chunks, PROMPT.query)
    recomputed = [7, 10, 11, 19]
    mixed = dense_recomputation.all_logits(model, chunked(prompt), recomputed)[0].log_softmax(-1)
    ids, first = prompt.ids, len(prompt.prefix)
    # By the token itself and what comes before it: a chunk's own pass, or the mixed row.
    expected = 0.0
    for number, chunk in enumerate(prompt.chunks):
        alone = model(torch.tensor([(*prompt.prefix, *chunk)])).logits[0].log_softmax(-1)
        if number == 0:
            expected += sum(float(alone[place, token]) for place, token in enumerate(ids[1:first]))
            end = alone[-1]
        start = first + sum(map(len, prompt.chunks[:number]))
        for place, token in enumerate(chunk):
            before = start + place - 1
            if before - first in recomputed and (place or before - first + 1 in recomputed):
                row = mixed[before]
            elif place == 0 and start - first in recomputed:
                row = end
            else:
                row = alone[first + place - 1]
            expected += float(row[token])
        end = alone[-1]
    expected += float(end[prompt.query[0]])
    expected += sum(float(mixed[len(ids) - 6 + place, token]) for place, token in enumerate(prompt.query) if place)
    engine = Engine(model, resolve({"strategy": "recompute", "recompute": 4}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm_eval_ape.engine.recomputation._best", lambda *_: recomputed)
        got = rolling_loglikelihood(engine, PROMPT, 1)
    assert abs(got - expected) < 1e-10


@pytest.mark.parametrize(
    ("share", "count"), [(0.0, 0), (0.001, 1), (0.05, 5), (0.5, 50), (1.0, 100), (2.0, 2), (250.0, 100)]
)
def test_a_share_of_the_tokens_or_their_number(share: float, count: int) -> None:
    assert recomputed_count(share, 100) == count


@pytest.mark.parametrize(
    ("words", "layers"),
    [("all", (0, 1, 2, 3, 4, 5)), ("last:2", (4, 5)), ("0", (0,)), ("3+1", (1, 3)), ("4-5+0", (0, 4, 5))],
)
def test_layers_in_words(words: str, layers: tuple[int, ...]) -> None:
    assert read_layers(words)(6) == layers


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"recompute": 1.5}, "recompute must be a share of the context's tokens, 0 to 1, or a whole number of tokens"),
        ({"recompute": -0.1}, "recompute must be a share of the context's tokens, 0 to 1, or a whole number of tokens"),
        ({"recompute": float("nan")}, "recompute must be a share of the context's tokens"),
        ({"recompute": "some"}, "or a whole number of tokens, but got 'some'"),
        ({"recompute_by": "quary"}, "Did you mean 'query'?"),
        (
            {"recompute_layers": "last"},
            "recompute_layers must be all, last:N, or numbers from 0 and ranges like 3+8-11",
        ),
        ({"recompute_layers": "5-3"}, "5-3 ends before it begins"),
        ({"recompute_seed": -1}, "recompute_seed must be a whole number of at least 0, but got -1."),
        ({"strategy": "ape", "recompute": 0.1}, "several tokens stand at one position there"),
        ({"positions": "stretched"}, "does not go with positions=stretched"),
        ({"top_chunks": 2}, "recompute=0.05 does not go with top_chunks=2"),
        ({"keys_from": "sequential"}, "which are whole already"),
        ({"strategy": "sequential", "recompute": 0.1}, "would change nothing"),
        ({"strategy": "infoflow", "recompute_by": "random"}, "recompute_layers=last:2 says whose attention"),
        ({"recompute_seed": 3}, "recompute_seed=3 would change nothing with recompute_by=query"),
    ],
)
def test_what_recomputation_does_not_go_with_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ApeError) as error:
        resolve({"strategy": "recompute", **given})
    assert sentence in str(error.value)


def test_layers_that_the_model_does_not_have_are_refused() -> None:
    with pytest.raises(ApeError, match=r"recompute_layers=last:7, but the model has 6 layers, numbered from 0\."):
        read_layers("last:7")(6)
