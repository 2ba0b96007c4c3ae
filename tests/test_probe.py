"""Entropy, logits and mass of attention rows equal those of materialised attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_exactness import CHUNKS, QUERY, prompt_of, tokens
from test_selection import MANY

from helpers import dense, tiny
from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.row_statistics import RowProbe
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import BatchReading, SegmentedCache
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import resolve

EXACT = 1e-6


def probed(model: Any, prompt: Prompt, settings: Any) -> RowProbe:
    probe = RowProbe()
    encoded = Engine(model, settings).encode(prompt)
    reading = BatchReading(
        (encoded,),
        settings.attn_temperature,
        settings.attn_scale,
        backend="eager",
        selection=settings.selection,
        probe=probe,
    )
    with reading_segments(model), torch.no_grad():
        model(
            torch.tensor([prompt.query]),
            position_ids=torch.arange(encoded.start, encoded.start + len(prompt.query))[None],
            **cache_argument(model, SegmentedCache(reading, model.config.num_hidden_layers)),
        )
    return probe


@pytest.mark.parametrize(
    "given",
    [
        {"strategy": "sink"},
        {"strategy": "parallel"},
        {"strategy": "ape", "attn_temperature": 0.6, "attn_scale": 1.2},
        {"strategy": "sink+selective", "select_over": "none"},
        {"strategy": "selective", "select_over": "LHT", "attn_temperature": 0.8},
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_oss"])
def test_statistics_equal_those_of_materialised_attention(
    family: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm_eval_ape.attention.row_statistics.BLOCK_ELEMENTS", 100)
    model = tiny.make_model(family)
    settings, prompt = resolve(given), prompt_of(MANY)
    layout = dense.lay_out(
        list(prompt.prefix), [list(c) for c in prompt.chunks], list(prompt.query), "shared", settings.shared_prefix
    )
    rows = dense.dense_rows(
        model,
        layout,
        temperature=settings.attn_temperature,
        scale=settings.attn_scale,
        selecting=dense.Selecting(settings.top_chunks, settings.select_over, [len(QUERY)])
        if settings.top_chunks
        else None,
    )
    probe = probed(model, prompt, settings)
    query = layout.pieces == dense.QUERY
    roles = {"prefix": layout.pieces == dense.PREFIX, "context": layout.pieces >= 0, "query": query}
    for layer, (probabilities, logits) in rows.items():
        own, size = probabilities[:, :, query], logits[:, :, query].abs()
        entropy = -torch.special.xlogy(own, own).sum(-1)
        assert (probe.stacked(0, "entropy")[layer] - entropy).abs().max() < EXACT
        seen = torch.isfinite(size)
        mean = size.masked_fill(~seen, 0.0).sum(-1) / seen.sum(-1)
        assert (probe.stacked(0, "logit")[layer] - mean).abs().max() < EXACT
        for role, columns in roles.items():
            assert (probe.stacked(0, role)[layer] - own[..., columns].sum(-1)).abs().max() < EXACT


def test_one_chunk_has_the_entropy_of_the_stock_models_own_attention() -> None:
    model = tiny.make_model()
    prompt = prompt_of([tokens(12, 6)])
    probe = probed(model, prompt, resolve({"strategy": "sink"}))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(torch.tensor([prompt.ids]), output_attentions=True).attentions
    for layer, attention in enumerate(attentions):
        own = attention[:, :, -len(QUERY) :].double()
        assert (probe.stacked(0, "entropy")[layer] + torch.special.xlogy(own, own).sum(-1)).abs().max() < EXACT


def test_a_probe_changes_no_answer() -> None:
    model = tiny.make_model()
    settings, prompt = resolve({"strategy": "sink"}), prompt_of(CHUNKS)
    encoded = Engine(model, settings).encode(prompt)
    positions = torch.arange(encoded.start, encoded.start + len(QUERY))[None]
    logits = []
    for probe in (None, RowProbe()):
        with reading_segments(model), torch.no_grad():
            cache = SegmentedCache(BatchReading((encoded,), probe=probe), model.config.num_hidden_layers)
            logits.append(model(torch.tensor([QUERY]), position_ids=positions, **cache_argument(model, cache)).logits)
    assert torch.equal(*logits)
