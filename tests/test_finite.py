"""A number that is not finite is an error with its document and its layer, and never an answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from test_exactness import CHUNKS, prompt_of

from helpers import harness, tiny
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.entropy import EntropyMeter
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.encoding.kv_store.store import StoreLimits, open_store
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.non_finite import NotFiniteError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.response_cache import STAMP
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.settings.strategy import resolve

DOCS = harness.documents(3)
KINDS = ["generate_until", "multiple_choice", "loglikelihood_rolling"]
DAMAGED = r"layer 1 \(model\.layers\.1\.mlp\.down_proj\), whose weights are not finite themselves\. The checkpoint is"


@pytest.fixture
def load(checkpoint: str) -> Callable[..., ApeHFLM]:
    def make(**given: Any) -> ApeHFLM:
        return ApeHFLM(**{"pretrained": checkpoint, "dtype": "float64", "device": "cpu", **given})

    return make


@torch.no_grad()
def damage(lm: ApeHFLM) -> None:
    lm.model.model.layers[1].mlp.down_proj.weight[3, 5] = float("nan")


@torch.no_grad()
def nearly_overflow(lm: ApeHFLM) -> None:
    """Make the first layer's logits so large that T=1e-6 lets them overflow in float32."""
    lm.model.model.layers[0].self_attn.q_proj.weight *= 1e36


def prompt(doc: dict[str, Any]) -> str:
    return harness.PROMPT.replace("{{context}}", doc["context"]).replace("{{question}}", doc["question"])


@pytest.mark.parametrize("strategy", ["sequential", "ape"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_stops_at_the_document_and_names_the_layer(
    load: Callable[..., ApeHFLM], kind: str, strategy: str
) -> None:
    lm = load(strategy=strategy)
    damage(lm)
    with pytest.raises(NotFiniteError, match=rf"document \d of task small: the log.* not finite\. .* {DAMAGED}"):
        harness.evaluate(lm, {}, harness.task("small", kind, DOCS))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_one_broken_document_is_found_among_others(
    load: Callable[..., ApeHFLM], kind: str, batch_size: int
) -> None:
    lm = load(chunking="passages", batch_size=batch_size)
    docs = [dict(doc) for doc in DOCS]
    docs[1]["question"] += " 请?"
    before, own, after = ([*lm.tok_encode(prompt(doc)), *lm.tok_encode(" ".join(doc["choices"]))] for doc in docs)
    odd = min(set(own) - {*before, *after})
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[odd] = float("inf")
    with pytest.raises(NotFiniteError, match=r"document 1 of task small: .* comes out of model\.embed_tokens, whose w"):
        harness.evaluate(lm, {}, harness.task("small", kind, docs))


def test_what_arises_in_the_attention_itself_is_told_as_such(checkpoint: str) -> None:
    lm = ApeHFLM(pretrained=checkpoint, dtype="float32", device="cpu", attn_temperature=1e-6, chunking="passages")
    nearly_overflow(lm)
    sentence = r"document 0 of task small: .* out of layer 0 \(model\.layers\.0\.self_attn\)\. .* overflow in float32"
    with pytest.raises(NotFiniteError, match=sentence):
        harness.evaluate(lm, {}, harness.task("small", "generate_until", DOCS[:1]))


def request(kind: str, doc: dict[str, Any]) -> Instance:
    given: dict[str, tuple[Any, ...]] = {
        "generate_until": (prompt(doc), {"max_gen_toks": 3, "until": []}),
        "loglikelihood": (prompt(doc), " city"),
        "loglikelihood_rolling": (prompt(doc),),
    }
    return Instance(kind, doc, given[kind], 0, metadata=("small", 0, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["generate_until", "loglikelihood", "loglikelihood_rolling"])
def test_the_response_cache_keeps_nothing_of_it(load: Callable[..., ApeHFLM], kind: str, tmp_path: Path) -> None:
    lm = load()
    with torch.no_grad():
        lm.model.get_output_embeddings().weight[7] = float("nan")
    cached = CachingLM(lm, str(tmp_path / "cache.db"))
    with pytest.raises(NotFiniteError, match=r"comes out of lm_head, whose weights"):
        getattr(cached, kind)([request(kind, DOCS[0])])
    assert list(cached.dbdict) == [STAMP]


def test_broken_chunks_are_not_kept(tmp_path: Path) -> None:
    model = tiny.make_model()
    store = open_store(model, torch.device("cpu"), StoreLimits(2**20, tmp_path, None), facts="None")
    assert store is not None
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0] = float("inf")
    Engine(model, resolve({}), store=store).encode(prompt_of(CHUNKS))
    assert store.record()["memory_bytes"] == store.record()["dir_bytes"] == 0


def sample() -> Sample:
    return Sample("task", 4, 0, prompt_of(CHUNKS), "digest")


def test_a_calibration_names_the_layer_of_teacher_points_and_entropies(load: Callable[..., ApeHFLM]) -> None:
    lm = load(kv_cache_bytes="1MiB")
    damage(lm)
    points = [Point(1.0, 0.9)]
    with pytest.raises(NotFiniteError, match=rf"document 4 of task task: the logits of the sequential .* {DAMAGED}"):
        Meter(lm, Objective(2, "own", "stop"), max_rows=None, cache=None).measure([sample()], points)
    with pytest.raises(NotFiniteError, match=rf"document 4 of task task: the logits of the point .* {DAMAGED}"):
        EntropyMeter(lm, None, None).measure([sample()], points)


def test_a_point_that_overflows_is_told_with_the_layer_where_it_does(checkpoint: str) -> None:
    lm = ApeHFLM(pretrained=checkpoint, dtype="float32", device="cpu")
    nearly_overflow(lm)
    meter = Meter(lm, Objective(2, "own", "stop"), max_rows=None, cache=None)
    sentence = r"the logits of the point \(T=1e-06, S=1\) for new token 1 are not finite\. .* layer 0 \(model\.layers\."
    with pytest.raises(NotFiniteError, match=sentence):
        meter.measure([sample()], [Point(1.0, 1.0), Point(1e-6, 1.0)])


def test_a_logit_that_forbids_a_token_is_no_error(load: Callable[..., ApeHFLM]) -> None:
    """Some checkpoints set logits of tokens that must not be said to -inf."""
    lm = load()

    def forbid(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output.index_fill(-1, torch.tensor([3]), -torch.inf)

    lm.model.get_output_embeddings().register_forward_hook(forbid)
    assert isinstance(lm.generate_until([request("generate_until", DOCS[0])])[0], str)
