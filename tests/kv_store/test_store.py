"""Chunk KV kept and found again: what is served, what never is, and that it changes no number."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_exactness import CHUNKS, QUERY, prompt_of, query_logits, tokens
from transformers import PreTrainedModel

from helpers import tiny
from lm_eval_ape.encoding.encode import encode_all
from lm_eval_ape.encoding.kv_store.store import KVStore, StoreLimits, open_store
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings, resolve

PROMPT = prompt_of(CHUNKS)
# Prefix and four chunks.
PIECES = 5
WAYS: list[dict[str, Any]] = [{}, {"strategy": "parallel"}, {"strategy": "value_only"}, {"positions": "stretched"}]


@pytest.fixture
def model() -> PreTrainedModel:
    return tiny.make_model()


def make_store(
    model: PreTrainedModel, *, memory: int = 2**20, folder: Path | None = None, limit: int | None = None
) -> KVStore:
    store = open_store(model, torch.device("cpu"), StoreLimits(memory, folder, limit), facts="None")
    assert store is not None
    return store


def logits(model: PreTrainedModel, prompt: Prompt, settings: Settings, store: KVStore | None = None) -> torch.Tensor:
    encoded = Engine(model, settings, store=store).encode(prompt)
    return query_logits(model, [encoded], [prompt], settings)[0]


def counts(store: KVStore) -> tuple[int, int, int]:
    return store.counts.memory_hits, store.counts.disk_hits, store.counts.misses


@pytest.mark.parametrize(
    "given", [{}, {"strategy": "parallel"}, {"strategy": "value_only"}, {"positions": "stretched"}]
)
def test_cold_warm_and_no_store_give_the_same_bits(
    model: PreTrainedModel, given: dict[str, Any], tmp_path: Path
) -> None:
    settings = resolve(given)
    expected = logits(model, PROMPT, settings)
    store = make_store(model, folder=tmp_path)
    cold, warm = logits(model, PROMPT, settings, store), logits(model, PROMPT, settings, store)
    from_disk = logits(model, PROMPT, settings, make_store(model, memory=0, folder=tmp_path))
    for got in (cold, warm, from_disk):
        assert torch.equal(got, expected)
    assert store.counts.memory_hits == store.counts.misses > 0


def test_another_question_on_a_document_encodes_nothing(model: PreTrainedModel) -> None:
    store = make_store(model)
    Engine(model, resolve({}), store=store).encode(PROMPT)
    assert counts(store) == (0, 0, PIECES)
    other = replace(PROMPT, query=tuple(tokens(9, 77)))
    expected = logits(model, other, resolve({}))
    assert torch.equal(logits(model, other, resolve({}), store), expected)
    assert counts(store) == (PIECES, 0, PIECES)
    assert store.counts.hit_tokens == store.counts.miss_tokens == len(PROMPT.prefix) + sum(map(len, CHUNKS))


def test_strategies_with_the_same_chunks_share_them_and_others_do_not(model: PreTrainedModel) -> None:
    store = make_store(model)
    Engine(model, resolve({"strategy": "sink"}), store=store).encode(PROMPT)
    Engine(model, resolve({"strategy": "ape", "attn_temperature": 0.7}), store=store).encode(PROMPT)
    Engine(model, resolve({"strategy": "sink+selective"}), store=store).encode(PROMPT)
    assert counts(store) == (2 * PIECES, 0, PIECES)
    # Without a shared prefix every chunk has other keys and values; the prefix stands before the first one.
    Engine(model, resolve({"strategy": "parallel"}), store=store).encode(PROMPT)
    assert counts(store) == (2 * PIECES, 0, PIECES + len(CHUNKS))


@pytest.mark.parametrize(
    ("prompt", "given"),
    [
        (prompt_of(CHUNKS, prefix=tokens(4, 99)), {}),
        (PROMPT, {"positions": "stretched"}),
        (PROMPT, {"attn_backend": "eager"}),
    ],
    ids=["another prefix", "other positions", "another kernel"],
)
def test_chunks_read_otherwise_are_not_served(model: PreTrainedModel, prompt: Prompt, given: dict[str, Any]) -> None:
    store = make_store(model)
    Engine(model, resolve({}), store=store).encode(PROMPT)
    settings = resolve(given)
    assert torch.equal(logits(model, prompt, settings, store), logits(model, prompt, settings))
    assert store.counts.misses > PIECES


def test_a_folder_serves_the_same_weights_only(model: PreTrainedModel, tmp_path: Path) -> None:
    Engine(model, resolve({}), store=make_store(model, folder=tmp_path)).encode(PROMPT)
    again = make_store(tiny.make_model(), memory=0, folder=tmp_path)
    Engine(model, resolve({}), store=again).encode(PROMPT)
    assert counts(again) == (0, PIECES, 0)
    with torch.no_grad():
        # One number of one layer: a digest of samples would miss it.
        model.model.layers[1].mlp.up_proj.weight[3, 5] += 1e-6
    edited = make_store(model, memory=0, folder=tmp_path)
    Engine(model, resolve({}), store=edited).encode(PROMPT)
    assert counts(edited) == (0, 0, PIECES)
    half = tiny.make_model(dtype=torch.bfloat16)
    other = make_store(half, memory=0, folder=tmp_path)
    Engine(half, resolve({}), store=other).encode(PROMPT)
    assert counts(other) == (0, 0, PIECES)


def damages(file: Path) -> Iterator[tuple[str, bytes]]:
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-9] ^= 4
    yield "does not match its checksum", bytes(flipped)
    yield "encoded again", whole[: len(whole) // 2]
    yield "encoded again", b"not a tensor at all"
    yield "encoded again", b""


def test_damaged_and_foreign_files_are_encoded_again_with_a_warning(
    model: PreTrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = logits(model, PROMPT, resolve({}), make_store(model, folder=tmp_path))
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == PIECES
    for sentence, content in damages(files[0]):
        files[0].write_bytes(content)
        store = make_store(model, memory=0, folder=tmp_path)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert torch.equal(logits(model, PROMPT, resolve({}), store), expected)
        assert sentence in caplog.text
        assert counts(store) == (0, PIECES - 1, 1)
        assert store.record()["damaged_or_unwritten"] == 1
    # A file under another piece's name is whole, and still not what was asked for.
    files[0].write_bytes(files[1].read_bytes())
    store = make_store(model, memory=0, folder=tmp_path)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(logits(model, PROMPT, resolve({}), store), expected)
    assert "was not written for what is asked for" in caplog.text


def test_the_least_recently_used_goes_first_and_limits_hold(model: PreTrainedModel, tmp_path: Path) -> None:
    settings = resolve({"strategy": "sink"})
    prompts = [Prompt((), (tuple(tokens(8, seed)),), tuple(QUERY)) for seed in (50, 51, 52)]
    # Keys and values of 8 tokens: 3 layers, 2 key heads of 8 dimensions, float64.
    piece = 2 * 3 * 2 * 8 * 8 * 8
    store = make_store(model, memory=2 * piece)
    for prompt in (prompts[0], prompts[1], prompts[0], prompts[2]):
        Engine(model, settings, store=store).encode(prompt)
    assert store.record()["memory_bytes"] == 2 * piece
    assert counts(store) == (1, 0, 3)
    Engine(model, settings, store=store).encode(prompts[0])
    assert counts(store) == (2, 0, 3)
    Engine(model, settings, store=store).encode(prompts[1])
    assert counts(store) == (2, 0, 4)
    # On disk a file is a little larger than its tensors.
    disk = make_store(model, memory=0, folder=tmp_path, limit=int(2.6 * piece))
    for prompt in prompts:
        Engine(model, settings, store=disk).encode(prompt)
    kept = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert kept == disk.record()["dir_bytes"] <= 2.6 * piece
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_costs_a_warning_and_no_answer(
    model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lm_eval_ape.storage.tensor_file.save_file", full)
    store = make_store(model, memory=0, folder=tmp_path)
    with caplog.at_level(logging.WARNING):
        got = logits(model, PROMPT, resolve({}), store)
    assert torch.equal(got, logits(model, PROMPT, resolve({})))
    assert "No space left on device" in caplog.text
    assert not list(tmp_path.iterdir())


def test_what_is_kept_is_not_used_up_by_who_reads_it(model: PreTrainedModel) -> None:
    store = make_store(model)
    first = logits(model, PROMPT, resolve({}), store)
    for _ in range(2):
        assert torch.equal(logits(model, PROMPT, resolve({}), store), first)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
@pytest.mark.parametrize("given", [{}, {"strategy": "parallel"}, {"strategy": "value_only"}])
def test_prompts_encoded_together_are_those_encoded_alone(family: str, given: dict[str, Any]) -> None:
    model = tiny.make_model(family)
    settings = resolve(given)
    prompts = [
        PROMPT,
        prompt_of([tokens(8, 60), tokens(7, 61)]),
        prompt_of([tokens(9, 62)], prefix=tokens(2, 63)),
        Prompt((), (), tuple(QUERY)),
        replace(PROMPT, query=tuple(tokens(3, 64))),
    ]
    encoded_prompts = encode_all(model, prompts, settings)
    for prompt, encoded in zip(prompts, encoded_prompts, strict=True):
        if not prompt.chunks:
            assert not encoded.segments
            continue
        together = query_logits(model, [encoded], [prompt], settings)[0]
        assert (together - logits(model, prompt, settings)).abs().max() < 1e-12
    # Prompts that differ only in their queries read the very same segments.
    assert encoded_prompts[0].segments is encoded_prompts[4].segments


def test_a_batch_that_memory_cannot_hold_is_encoded_in_halves(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval_ape.encoding import encode as module

    run, sizes = module._Encoder._pass, []

    def short(self: Any, batch: Any, prefixes: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return run(self, batch, prefixes)

    expected = logits(model, prompt_of([tokens(6, seed) for seed in range(4)]), resolve({}))
    monkeypatch.setattr(module._Encoder, "_pass", short)
    got = logits(model, prompt_of([tokens(6, seed) for seed in range(4)]), resolve({}))
    assert (got - expected).abs().max() < 1e-12
    # Once found, the size that fits is kept.
    assert sizes == [5, 3, 2, 1, 1, 1, 1, 1]
