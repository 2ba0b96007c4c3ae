"""A prefix that neighbouring requests share is encoded once, kept no longer than that, and changes no number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from test_exactness import CHUNKS, PREFIX, prompt_of, query_logits, tokens

from helpers import harness, tiny
from lm_eval_ape.encoding import encode as module
from lm_eval_ape.encoding.encode import Prefixes, encode_all
from lm_eval_ape.encoding.kv_store.store import StoreLimits, open_store
from lm_eval_ape.encoding.pieces import Piece
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.non_finite import NotFiniteError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.settings.strategy import resolve

OTHER = tokens(6, 90)
DOCS = harness.documents(3)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Piece]:
    """Every piece that goes through a model, in order."""
    pieces: list[Piece] = []
    run = module._Encoder._pass

    def watched(self: Any, batch: Sequence[Piece], prefixes: Any) -> Any:
        pieces.extend(batch)
        return run(self, batch, prefixes)

    monkeypatch.setattr(module._Encoder, "_pass", watched)
    return pieces


def prefixes_of(pieces: Sequence[Piece]) -> list[tuple[int, ...]]:
    return [piece.ids for piece in pieces if not piece.before]


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
@pytest.mark.parametrize("given", [{}, {"strategy": "parallel"}, {"strategy": "value_only"}, {"positions": "serial"}])
def test_a_kept_prefix_gives_the_same_bits(family: str, given: dict[str, Any]) -> None:
    model, settings = tiny.make_model(family), resolve(given)
    prompts = [prompt_of(CHUNKS), prompt_of([tokens(5, 91)]), prompt_of(CHUNKS, OTHER), prompt_of(CHUNKS)]
    kept: Prefixes = {}
    for prompt in prompts:
        encoded_prompts = [
            Engine(model, settings).encode(prompt),
            encode_all(model, [prompt], settings, prefixes=kept)[0],
        ]
        plain, fast = (query_logits(model, [encoded], [prompt], settings)[0] for encoded in encoded_prompts)
        assert torch.equal(fast, plain)


def test_a_prefix_is_kept_until_prompts_come_that_lack_it(encoded: list[Piece]) -> None:
    model, settings = tiny.make_model(), resolve({})
    kept: Prefixes = {}
    calls = [[PREFIX, PREFIX], [PREFIX, OTHER], [OTHER], [OTHER], [PREFIX]]
    sizes = []
    for prefixes in calls:
        encode_all(model, [prompt_of(CHUNKS, prefix) for prefix in prefixes], settings, prefixes=kept)
        sizes.append(len(kept))
    assert prefixes_of(encoded) == [tuple(PREFIX), tuple(OTHER), tuple(PREFIX)]
    assert sizes == [1, 2, 1, 1, 1]


def test_a_kept_prefix_holds_no_other_memory_than_its_own() -> None:
    model, kept = tiny.make_model(), {}
    encode_all(model, [prompt_of(CHUNKS), prompt_of(CHUNKS, OTHER)], resolve({}), prefixes=kept)
    for segment in kept.values():
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in (*segment.keys, *segment.values))


def test_the_store_is_asked_for_a_prefix_only_where_it_is_not_at_hand() -> None:
    model, kept = tiny.make_model(), {}
    store = open_store(model, torch.device("cpu"), StoreLimits(2**20, None, None), facts="")
    assert store is not None
    for _ in range(2):
        encode_all(model, [prompt_of(CHUNKS)], resolve({}), store=store, prefixes=kept)
    assert (store.counts.misses, store.counts.memory_hits) == (1 + len(CHUNKS), len(CHUNKS))


@pytest.fixture
def load(checkpoint: str) -> Callable[..., ApeHFLM]:
    def make(**given: Any) -> ApeHFLM:
        given = {"dtype": "float64", "device": "cpu", "chunking": "passages", **given}
        return ApeHFLM(pretrained=checkpoint, **given)

    return make


def requests(kind: str) -> list[Instance]:
    made = []
    for number, doc in enumerate(DOCS):
        text = harness.PROMPT.replace("{{context}}", doc["context"]).replace("{{question}}", doc["question"])
        rest = {"max_gen_toks": 4, "until": []} if kind == "generate_until" else " city"
        given: Any = (text, rest)
        made.append(Instance(kind, doc, given, 0, metadata=("small", number, 1)))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("kind", ["generate_until", "loglikelihood"])
def test_requests_with_one_prefix_encode_it_once(
    load: Callable[..., ApeHFLM], encoded: list[Piece], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that each request is a pass of its own.
    monkeypatch.setattr("lm_eval_ape.encoding.pieces.ENCODE_TOKENS", 1)
    lm = load()
    encoded.clear()
    together = getattr(lm, kind)(requests(kind))
    assert len(prefixes_of(encoded)) == 1
    assert together == [getattr(lm, kind)([request])[0] for request in requests(kind)]
    assert len(prefixes_of(encoded)) == 1 + len(DOCS)


@pytest.mark.parametrize("kind", ["generate_until", "loglikelihood"])
def test_weights_may_change_between_calls(load: Callable[..., ApeHFLM], kind: str) -> None:
    lm, fresh = load(), load()
    getattr(lm, kind)(requests(kind))
    for model in (lm.model, fresh.model):
        with torch.no_grad():
            model.model.layers[0].self_attn.v_proj.weight *= -2.0
    assert getattr(lm, kind)(requests(kind)) == getattr(fresh, kind)(requests(kind))


def test_the_place_where_a_broken_number_arises_is_looked_for_in_the_prefix_too(load: Callable[..., ApeHFLM]) -> None:
    lm = load()
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[lm.prefix_token_id] = float("nan")
    with pytest.raises(NotFiniteError, match=r"document 2 of task small: .* comes out of model\.embed_tokens, whose w"):
        lm.generate_until(requests("generate_until"))
