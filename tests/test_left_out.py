"""What is left out because nobody reads it changes no number: outputs of an encoding, unwanted tokens, equal rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import tiny
from lm_eval_ape.attention import segmented_attention
from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import BatchReading, EncodedPrompt, SegmentedCache
from lm_eval_ape.attention.window import Window
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import resolve

PROMPT = Prompt((5, 6, 7), ((8, 9, 10, 11, 12), (13, 14, 15), (16, 17, 18, 19, 20, 21, 22)), (30, 31, 32, 33))
STEPS = [40, 41]
EXACT = 1e-12
# Rows of T: a point twice, points of one T, and one with a T and S for each layer and head.
ROWS = 5


def factors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    temperature = torch.tensor([0.6, 0.6, 1.0, 0.6, 0.8], dtype=torch.float64)[:, None, None].repeat(1, 3, 4)
    temperature[4] = torch.rand(3, 4, generator=generator, dtype=torch.float64) + 0.5
    scale = torch.tensor([0.9, 0.9, 0.7, 0.5, 1.0], dtype=torch.float64)[:, None, None].repeat(1, 3, 4)
    return {"temperature": temperature, "scale": scale}


@torch.no_grad()
def read(family: str, *, wanted: int | None, **reading: Any) -> list[Tensor]:
    """Logits of the query and then of two more tokens, each a pass of its own."""
    model = tiny.make_model(family)
    encoded = Engine(model, resolve({"strategy": "ape"})).encode(PROMPT)
    rows = EncodedPrompt(encoded.segments, encoded.start, ROWS)
    cache = SegmentedCache(
        BatchReading((rows,), **factors(3), **reading), model.config.num_hidden_layers, wanted=wanted
    )
    logits, start = [], encoded.start
    for ids in (list(PROMPT.query), *([token] for token in STEPS)):
        positions = torch.arange(start, start + len(ids)).expand(ROWS, -1)
        start += len(ids)
        with reading_segments(model):
            inputs = torch.tensor([ids]).expand(ROWS, -1)
            logits.append(model(inputs, position_ids=positions, **cache_argument(model, cache)).logits)
    return logits


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("wanted", [1, 3])
def test_the_wanted_tokens_logits_do_not_depend_on_what_the_last_layer_leaves_out(family: str, wanted: int) -> None:
    for all_tokens, last in zip(read(family, wanted=None), read(family, wanted=wanted), strict=True):
        assert (all_tokens[:, -wanted:] - last[:, -wanted:]).abs().max() < EXACT


def test_the_last_layer_reads_for_the_wanted_tokens_alone() -> None:
    unwanted = read("llama", wanted=1)[0][:, :-1]
    assert (unwanted - read("llama", wanted=None)[0][:, :-1]).abs().max() > 0.01


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_equal_rows_are_read_once_for_each_temperature(family: str) -> None:
    each, alike = read(family, wanted=None), read(family, wanted=None, alike=True)
    for one, other in zip(each, alike, strict=True):
        assert (one - other).abs().max() < EXACT
    assert (each[0][0] - each[0][2]).abs().max() > 1e-6


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_an_encoding_ends_with_the_last_layers_keys_and_keeps_the_same_ones(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that every layer makes as many calls, whatever its window.
    monkeypatch.setattr(segmented_attention, "JOINED_TOKENS", 0)
    model = tiny.make_model(family)
    settings = resolve({"strategy": "ape"})
    whole: Counter[str] = Counter()
    short: Counter[str] = Counter()
    full = Engine(model, settings, used=whole).encode_with_logits(PROMPT, lambda number, logits: None)
    ended = Engine(model, settings, used=short).encode(PROMPT)
    for one, other in zip(full.segments, ended.segments, strict=True):
        for a, b in zip((*one.keys, *one.values), (*other.keys, *other.values), strict=True):
            assert torch.equal(a, b)
    layers = model.config.num_hidden_layers
    assert sum(short.values()) * layers == sum(whole.values()) * (layers - 1)


def test_a_model_with_offloaded_layers_is_encoded_to_the_end() -> None:
    from accelerate import cpu_offload

    plain = Engine(tiny.make_model(), resolve({"strategy": "ape"})).encode(PROMPT)
    model = cpu_offload(tiny.make_model(), execution_device=torch.device("cpu"))
    hooked = Engine(model, resolve({"strategy": "ape"})).encode(PROMPT)
    for one, other in zip(plain.segments, hooked.segments, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.keys, other.keys, strict=True))
    assert all(parameter.device.type == "meta" for parameter in model.parameters())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_short_pieces_read_the_prefix_and_themselves_at_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings = tiny.make_model(family), resolve({"strategy": "ape"})
    encoded, calls = [], []
    for most in (0, segmented_attention.JOINED_TOKENS):
        monkeypatch.setattr(segmented_attention, "JOINED_TOKENS", most)
        used: Counter[str] = Counter()
        encoded.append(Engine(model, settings, used=used).encode(PROMPT))
        calls.append(sum(used.values()))
    for apart, at_once in zip(encoded[0].segments, encoded[1].segments, strict=True):
        for one, other in zip((*apart.keys, *apart.values), (*at_once.keys, *at_once.values), strict=True):
            assert (one - other).abs().max() < EXACT
    # A window of six tokens hides some of the prefix from the longest chunk.
    assert calls[1] < calls[0] or family in {"mistral", "mixtral"}


@pytest.mark.parametrize("positions", ["shared", "serial"])
def test_keys_that_a_window_hides_are_not_read_and_are_found_once_a_pass(
    positions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.make_model("mistral")
    engine = Engine(model, resolve({"strategy": "sink", "positions": positions}))
    chunks = tuple(tuple(range(number, number + 15)) for number in (5, 30))
    prompt = Prompt((1, 2), chunks, (60, 61, 62))
    encoded = engine.encode(prompt)
    attend, sight = segmented_attention.attend, Window.sight
    read: list[int] = []
    found: list[int] = []

    def counted(query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
        read.append(key.shape[2])
        return attend(query, key, *rest, **options)

    def spied(window: Any, segment: Any, *rest: Any) -> Any:
        found.append(len(segment))
        return sight(window, segment, *rest)

    monkeypatch.setattr(segmented_attention, "attend", counted)
    monkeypatch.setattr(Window, "sight", spied)
    window = model.config.sliding_window
    with engine.tail(encoded) as tail:
        tail.read(prompt.query, keep=1)
        # The first of three queries stands at `start` and sees keys less than a window before it.
        (context,) = [segment for segment in encoded.segments if segment.role == "context"]
        seen = int((encoded.start - context.positions < window).sum())
    assert 0 < seen < len(context)
    layers = model.config.num_hidden_layers
    assert read.count(seen) == layers
    assert len(context) not in read
    assert found.count(len(context)) == 1
