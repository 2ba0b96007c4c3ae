"""The package from Python: the same numbers as through the harness, one encoding for many questions."""

from __future__ import annotations

import doctest
import math
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance

import lm_eval_ape
from helpers import harness, tiny
from lm_eval_ape import ParallelModel, analyze, calibrate, compare, parallel_model
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.samples import Sample

DOC = harness.documents(1, passages=3)[0]
PASSAGES = [f"Passage {text}" for text in DOC["context"].split("Passage ")[1:]]
PREFIX, QUERY = "Answer the question.\n", f"\n\nQuestion: {DOC['question']}\nAnswer:"
TEXT = PREFIX + DOC["context"] + QUERY
STRATEGIES = ["sequential", "parallel", "sink", "ape", "selective"]


@pytest.fixture(scope="module")
def pair(checkpoint: str) -> Any:
    """A model of each strategy, and the harness's."""

    def make(strategy: str, **given: Any) -> tuple[ParallelModel, ApeHFLM]:
        lm = ApeHFLM(checkpoint, device="cpu", dtype="float64", strategy=strategy, chunking="passages", **given)
        return ParallelModel(checkpoint, dtype=torch.float64, strategy=strategy, **given), lm

    return make


def request(kind: Any, *arguments: Any) -> Instance:
    return Instance(kind, DOC, (TEXT, *arguments), 0, metadata=("small", 0, 1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_answers_and_likelihoods_are_those_of_the_harness(pair: Any, strategy: str) -> None:
    model, lm = pair(strategy)
    context = model.encode(PREFIX, PASSAGES)
    assert list(context.prompt.ids) == lm.tok_encode(PREFIX + DOC["context"])
    (answer,) = lm.generate_until([request("generate_until", {"max_gen_toks": 6, "until": []})], disable_tqdm=True)
    assert context.generate(QUERY, max_new_tokens=6) == answer
    continuations = [" city river", " film"]
    expected = lm.loglikelihood([request("loglikelihood", text) for text in continuations], disable_tqdm=True)
    got = context.loglikelihood(QUERY, continuations)
    assert got == pytest.approx([score for score, _ in expected], abs=1e-9)


@pytest.mark.parametrize("strategy", ["parallel", "ape"])
def test_divergences_are_those_of_a_calibration(pair: Any, strategy: str) -> None:
    model, lm = pair(strategy)
    prompt = lm.split_requests([request("generate_until", {})], [4], quiet=True)[TEXT]
    point = Point(lm.settings.attn_temperature, lm.settings.attn_scale)
    meter = Meter(lm, Objective(4, "teacher", "stop"), max_rows=None, cache=None)
    ((score,),) = meter.scores([Sample("small", 0, 0, prompt, "")], [point])
    got = model.encode(PREFIX, PASSAGES).divergence(QUERY, num_tokens=4)
    assert got == pytest.approx(score.divergences, abs=1e-10)
    assert all(value > 1e-6 for value in got)


def test_one_chunk_is_the_sequential_model(pair: Any) -> None:
    model, _ = pair("parallel")
    assert model.encode(PREFIX, ["".join(PASSAGES)]).divergence(QUERY) == pytest.approx([0.0] * 8, abs=1e-12)


@pytest.fixture
def tokens_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of the embedding looks up."""
    seen: list[int] = []
    forward = torch.nn.Embedding.forward

    def counted(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        seen.append(ids.numel())
        return forward(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", counted)
    return seen


def test_a_context_is_encoded_once_for_all_of_its_questions(pair: Any, tokens_read: list[int]) -> None:
    model, _ = pair("sink")
    context = model.encode(PREFIX, PASSAGES)
    tokens_read.clear()
    for query in (QUERY, "\n\nQuestion: Who?\nAnswer:"):
        context.generate(query, max_new_tokens=1)
        context.loglikelihood(query, [" film"])
    assert max(tokens_read) <= len(model.tokenizer(QUERY + " film")["input_ids"])


def test_two_models_do_not_disturb_each_other(checkpoint: str, pair: Any) -> None:
    alone = pair("ape")[0].encode(PREFIX, PASSAGES).loglikelihood(QUERY, [" film"])
    first, second = pair("ape")[0], pair("sequential")[0]
    one, two = first.encode(PREFIX, PASSAGES), second.encode(PREFIX, PASSAGES)
    assert one.loglikelihood(QUERY, [" film"]) == alone
    sequential = two.loglikelihood(QUERY, [" film"])
    assert one.loglikelihood(QUERY, [" film"]) == alone
    assert two.loglikelihood(QUERY, [" film"]) == sequential != alone
    with torch.no_grad():
        ids = torch.tensor([second.tokenizer(TEXT)["input_ids"]])
        # The model itself is still the ordinary one.
        assert math.isfinite(float(second.model(ids).logits[0, -1, 0]))
    assert first.model.config._attn_implementation != "lm_eval_ape"


def test_a_loaded_model_is_read_as_the_one_by_name(pair: Any) -> None:
    model, _ = pair("ape")
    loaded = ParallelModel(model.model, tokenizer=model.tokenizer, strategy="ape")
    both = [one.encode(PREFIX, PASSAGES).loglikelihood(QUERY, [" film"]) for one in (model, loaded)]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"stratgy": "ape"}, r"no argument 'stratgy'\. Did you mean 'strategy'"),
        ({"strategy": "apes"}, "strategy must be one of"),
        ({"batch_size": 4}, "batch_size is an argument of the harness's model"),
        ({"tokenizer": object()}, "needs a fast tokenizer"),
    ],
)
def test_wrong_arguments_are_sentences(checkpoint: str, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ApeError, match=sentence):
        ParallelModel(checkpoint, **given)


def test_wrong_texts_and_options_are_sentences(pair: Any) -> None:
    model, _ = pair("ape")
    with pytest.raises(ApeError, match="at least one chunk with text"):
        model.encode(PREFIX, [" "])
    context = model.encode(PREFIX, PASSAGES)
    with pytest.raises(ApeError, match="at least one token"):
        context.generate("")
    with pytest.raises(ApeError, match="generate got guidance_scale=2, but it reads"):
        context.generate(QUERY, guidance_scale=2)
    with pytest.raises(ApeError, match="generate got 'temprature', which is no option"):
        context.generate(QUERY, temprature=2)
    with pytest.raises(ApeError, match="has no token of its own"):
        context.loglikelihood(QUERY, [""])


def test_what_a_calibration_chose_is_deployed_in_a_line() -> None:
    model = ParallelModel("pocket", strategy="ape", chunking="passages", max_chunks=2)
    options: dict[str, Any] = {"limit": 2, "num_tokens": 1, "resamples": 50}
    found = calibrate(model, ["ape_pocket_twohop_calibration"], **options)
    by_name = calibrate("pocket", ["ape_pocket_twohop_calibration"], **options)
    assert set(found.chosen) == {"attn_temperature", "attn_scale"} == set(by_name.chosen)
    deployed = ParallelModel(model.model, tokenizer=model.tokenizer, strategy="ape", **found.chosen)
    assert deployed.settings.attn_scale == found.chosen["attn_scale"]


def test_strategies_are_compared_on_a_loaded_model(tmp_path: Any) -> None:
    model = ParallelModel("pocket", chunking="passages", attn_temperature=0.9)
    options: dict[str, Any] = {"limit": 2, "resamples": 99, "strategies": ["sequential", "sink"]}
    board = compare(model, ["ape_pocket_onehop_test"], output_path=str(tmp_path), **options)
    assert [row.label for row in board.rows] == ["sequential", "sink"]


def test_attention_is_analyzed_on_a_loaded_model_as_by_its_name(tmp_path: Any) -> None:
    options: dict[str, Any] = {"limit": 2, "probe_limit": 2, "strategies": ["sink"], "chunks": [1, 2], "scores": False}
    loaded, named = (
        analyze(model, ["ape_pocket_onehop_test"], output_path=str(tmp_path / str(number)), **options)
        for number, model in enumerate((ParallelModel("pocket", attn_temperature=0.9), "pocket"))
    )
    assert [case.chunks for case in loaded.cases] == [1, 2]
    assert loaded.cases == named.cases


def test_the_examples_of_the_docstrings_run() -> None:
    assert doctest.testmod(parallel_model).failed == 0


def test_the_package_offers_what_it_says_and_nothing_else() -> None:
    assert {name for name in lm_eval_ape.__all__ if getattr(lm_eval_ape, name, None) is None} == set()
    with pytest.raises(AttributeError, match="has no attribute 'paralel'"):
        lm_eval_ape.paralel  # noqa: B018


def test_a_tiny_tokenizer_is_cut_where_prefix_and_chunks_meet(checkpoint: str) -> None:
    model = ParallelModel(checkpoint, strategy="sink")
    context = model.encode("Go: ", ["A film.", " A city."])
    tokenizer = tiny.make_tokenizer()
    assert [tokenizer.decode(chunk) for chunk in context.prompt.chunks] == ["A film.", " A city."]
    assert list(context.prompt.ids) == tokenizer("Go: A film. A city.")["input_ids"]
