"""Parallel encoding equals the dense reference, and with one chunk and T=S=1 the sequential model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from helpers import dense, tiny
from helpers.machine import CPU_BACKENDS
from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.kernels import BACKENDS
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import BatchReading, EncodedPrompt, SegmentedCache
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings, resolve

EXACT = 1e-12


@pytest.fixture(autouse=True)
def _in_double(request: pytest.FixtureRequest) -> Iterator[None]:
    """All in float64, but for tests of other precisions."""
    with nullcontext() if "dtype" in request.fixturenames else tiny.InDouble():
        yield


def tokens(count: int, seed: int, vocab: int = 97) -> list[int]:
    return torch.randint(3, vocab, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


PREFIX, QUERY = tokens(4, 0), tokens(5, 1)
CHUNKS = [tokens(7, 2), tokens(3, 3), tokens(9, 4), tokens(1, 5)]


def prompt_of(chunks: list[list[int]], prefix: list[int] = PREFIX, query: list[int] = QUERY) -> Prompt:
    return Prompt(tuple(prefix), tuple(map(tuple, chunks)), tuple(query))


@torch.no_grad()
def query_logits(
    model: PreTrainedModel,
    encoded_prompts: list[EncodedPrompt],
    prompts: list[Prompt],
    settings: Settings,
    **reading: Any,
) -> list[Tensor]:
    """Logits of each prompt's query in one left-padded batch, the padding cut off."""
    width = max(len(prompt.query) for prompt in prompts)
    pads = [width - len(prompt.query) for prompt in prompts]
    ids = torch.tensor([[0] * pad + list(prompt.query) for pad, prompt in zip(pads, prompts, strict=True)])
    starts = [encoded.start - pad for encoded, pad in zip(encoded_prompts, pads, strict=True)]
    factors = {"temperature": settings.attn_temperature, "scale": settings.attn_scale, **reading}
    state = BatchReading(
        tuple(replace(encoded, start=start) for encoded, start in zip(encoded_prompts, starts, strict=True)),
        scale_mode=settings.scale_mode,
        backend=settings.attn_backend,
        selection=settings.selection,
        **factors,
    )
    with reading_segments(model):
        logits = model(
            ids,
            attention_mask=torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads]),
            position_ids=(torch.tensor(starts)[:, None] + torch.arange(width)).clamp(min=0),
            **cache_argument(model, SegmentedCache(state, model.config.num_hidden_layers)),
        ).logits
    return [row[pad:] for row, pad in zip(logits, pads, strict=True)]


def run(model: PreTrainedModel, prompt: Prompt, settings: Settings) -> Tensor:
    return query_logits(model, [Engine(model, settings).encode(prompt)], [prompt], settings)[0]


def reference(model: PreTrainedModel, prompt: Prompt, settings: Settings, **factors: Any) -> Tensor:
    layout = dense.lay_out(
        list(prompt.prefix),
        [list(c) for c in prompt.chunks],
        list(prompt.query),
        settings.positions,
        settings.shared_prefix,
        settings.keys_from == "sequential",
    )
    given = {"temperature": settings.attn_temperature, "scale": settings.attn_scale, **factors}
    given["sequential"] = tuple(side for side in ("keys", "values") if getattr(settings, f"{side}_from") != "parallel")
    if settings.top_chunks:
        given["selecting"] = dense.Selecting(settings.top_chunks, settings.select_over, [len(prompt.query)])
    return dense.dense_logits(model, layout, mode=settings.scale_mode, **given)


@pytest.mark.parametrize("strategy", ["parallel", "sink"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_one_chunk_without_temperature_and_scale_is_the_sequential_model(family: str, strategy: str) -> None:
    model = tiny.make_model(family)
    prompt = prompt_of([tokens(12, 6)])
    got = run(model, prompt, resolve({"strategy": strategy}))
    exact = dense.dense_logits(model, dense.sequential_layout(list(prompt.ids), len(QUERY)))[0]
    with torch.no_grad():
        stock = model(torch.tensor([prompt.ids])).logits[0, -len(QUERY) :]
    assert (got - exact).abs().max() < EXACT
    assert (got - stock).abs().max() < EXACT


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_one_chunk_generates_the_sequential_models_greedy_tokens(family: str) -> None:
    model = tiny.make_model(family)
    settings = resolve({"strategy": "sink"})
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    seen = set()
    for seed in (6, 18):
        prompt = prompt_of([tokens(12, seed)], query=tokens(5, seed + 100))
        encoded = Engine(model, settings).encode(prompt)
        sequential = model.generate(torch.tensor([prompt.ids]), **options)[0, len(prompt.ids) :]
        with reading_segments(model):
            got = model.generate(
                torch.tensor([prompt.query]),
                position_ids=torch.arange(encoded.start, encoded.start + len(prompt.query))[None],
                **cache_argument(model, SegmentedCache(BatchReading((encoded,)), model.config.num_hidden_layers)),
                **options,
            )[0, len(prompt.query) :]
        assert got.tolist() == sequential.tolist()
        seen |= set(got.tolist())
    assert len(seen) > 1


def readings() -> Iterator[tuple[str, str, str]]:
    """Families, strategies and backends: each with each of the others, though not all three with one another."""
    for number, family in enumerate(tiny.FAMILIES):
        # The softcap needs eager attention on the CPU.
        backends = ["eager"] if family == "gemma2" else CPU_BACKENDS
        for place, strategy in enumerate(("parallel", "sink")):
            yield family, strategy, backends[(number + place) % len(backends)]
    # With T and S given it is the sink.
    yield "llama", "ape", CPU_BACKENDS[0]


@pytest.mark.parametrize(("family", "strategy", "backend"), readings())
def test_unequal_chunks_match_the_dense_reference(family: str, strategy: str, backend: str) -> None:
    model = tiny.make_model(family)
    settings = resolve({"strategy": strategy, "attn_temperature": 0.7, "attn_scale": 0.8, "attn_backend": backend})
    prompt = prompt_of(CHUNKS)
    assert (run(model, prompt, settings) - reference(model, prompt, settings)).abs().max() < EXACT


@pytest.mark.parametrize("scale_mode", ["lse", "value", "additive"])
@pytest.mark.parametrize("positions", ["shared", "stretched", "serial"])
@pytest.mark.parametrize("shared_prefix", [True, False])
def test_positions_and_scale_modes_match_the_dense_reference(
    scale_mode: str, positions: str, shared_prefix: bool
) -> None:
    model = tiny.make_model()
    given = {"attn_temperature": 1.3, "attn_scale": 0.6, "scale_mode": scale_mode}
    settings = resolve({**given, "positions": positions, "shared_prefix": shared_prefix})
    prompt = prompt_of(CHUNKS)
    assert (run(model, prompt, settings) - reference(model, prompt, settings)).abs().max() < EXACT


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_padded_batch_of_prompts_matches_each_alone(family: str, backend: str) -> None:
    model = tiny.make_model(family)
    settings = resolve({"attn_temperature": 0.8, "attn_backend": backend})
    prompts = [
        prompt_of(CHUNKS),
        prompt_of([tokens(5, 8)], prefix=tokens(1, 9), query=tokens(2, 10)),
        prompt_of([tokens(2, 11), tokens(6, 12)], prefix=[], query=tokens(9, 13)),
        Prompt((), (), tuple(tokens(7, 14))),
    ]
    encoded_prompts = [Engine(model, settings).encode(prompt) for prompt in prompts]
    for prompt, got in zip(prompts, query_logits(model, encoded_prompts, prompts, settings), strict=True):
        if prompt.chunks:
            expected = reference(model, prompt, settings)
        else:
            expected = dense.dense_logits(model, dense.sequential_layout(list(prompt.ids), len(prompt.query)))
        assert (got - expected[0]).abs().max() < EXACT


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 1, 4), (1, 3, 4), (3, 3, 4)], ids=str)
def test_temperature_and_scale_per_row_layer_and_head_over_shared_keys(family: str, shape: tuple[int, ...]) -> None:
    model = tiny.make_model(family)
    generator = torch.Generator().manual_seed(7)
    t = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5
    s = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5
    settings = resolve({})
    prompt = prompt_of(CHUNKS)
    encoded = replace(Engine(model, settings).encode(prompt), rows=3)
    state = BatchReading((encoded,), temperature=t, scale=s)
    with reading_segments(model), torch.no_grad():
        got = model(
            torch.tensor([prompt.query] * 3),
            position_ids=torch.arange(encoded.start, encoded.start + len(QUERY)).expand(3, -1),
            **cache_argument(model, SegmentedCache(state, model.config.num_hidden_layers)),
        ).logits
    full = [x.expand(3, 3, 4) for x in (t, s)]
    expected = reference(model, prompt, settings, temperature=full[0], scale=full[1], rows=3)
    assert (got - expected).abs().max() < EXACT


@pytest.mark.parametrize("as_tables", [False, True])
def test_a_temperature_and_scale_of_the_prefix_match_the_dense_reference(as_tables: bool) -> None:
    model = tiny.make_model()
    settings = resolve({"attn_temperature": 0.7, "attn_scale": 0.8})
    prompt = prompt_of(CHUNKS)
    pair: tuple[Any, Any] = (1.3, 0.6)
    given = [torch.full((1, 3, 4), x, dtype=torch.float64) for x in pair] if as_tables else pair
    encoded = Engine(model, settings).encode(prompt)
    got = query_logits(model, [encoded], [prompt], settings, prefix_temperature=given[0], prefix_scale=given[1])[0]
    layout = dense.lay_out(PREFIX, CHUNKS, QUERY, "shared", True)
    expected = dense.dense_logits(model, layout, temperature=0.7, scale=0.8, prefix=pair)
    assert (got - expected).abs().max() < EXACT
    assert (got - run(model, prompt, settings)).abs().max() > 1e-3


def test_beams_share_their_rows_segments() -> None:
    model = tiny.make_model()
    settings = resolve({"strategy": "sink"})
    prompts = [prompt_of([tokens(12, 6)]), prompt_of([tokens(10, 15)], prefix=tokens(6, 16))]
    assert len({len(prompt.ids) for prompt in prompts}) == 1
    options: dict[str, Any] = {"max_new_tokens": 8, "num_beams": 3, "pad_token_id": 0, "eos_token_id": None}
    rows = torch.tensor([prompt.ids for prompt in prompts])
    sequential = model.generate(rows, do_sample=False, **options)[:, rows.shape[1] :]
    encoded_prompts = tuple(Engine(model, settings).encode(prompt) for prompt in prompts)
    with reading_segments(model):
        got = model.generate(
            torch.tensor([prompt.query for prompt in prompts]),
            position_ids=torch.tensor([[encoded.start] for encoded in encoded_prompts]) + torch.arange(len(QUERY)),
            **cache_argument(model, SegmentedCache(BatchReading(encoded_prompts), model.config.num_hidden_layers)),
            do_sample=False,
            **options,
        )[:, len(QUERY) :]
    assert got.tolist() == sequential.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_stays_close_to_the_dense_reference(dtype: torch.dtype) -> None:
    model = tiny.make_model(dtype=dtype)
    settings = resolve({"attn_temperature": 0.7, "attn_scale": 0.8})
    prompt = prompt_of(CHUNKS)
    got, expected = run(model, prompt, settings).float(), reference(model, prompt, settings).float()
    assert (got - expected).abs().max() < (1e-4 if dtype == torch.float32 else 0.1) * expected.abs().max()


def test_every_rung_of_the_ladder_is_tested_here_or_by_contract() -> None:
    assert {"flash_attn", "cuda_flash", "cuda_efficient", "cpu_flash", "eager"} == set(BACKENDS)


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.parametrize("family", [family for family, (_, own) in tiny.FAMILIES.items() if "sliding_window" in own])
def test_windowed_models_read_serial_positions_by_their_windows(family: str, shared_prefix: bool) -> None:
    model = tiny.make_model(family)
    settings = resolve({"positions": "serial", "attn_temperature": 0.7, "shared_prefix": shared_prefix})
    prompt = prompt_of(CHUNKS)
    assert (run(model, prompt, settings) - reference(model, prompt, settings)).abs().max() < EXACT
