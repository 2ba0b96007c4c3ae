"""What must not change a number does not: partitions, orders, batches, templates that add nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from test_exactness import prompt_of, query_logits, reference, run, tokens

from helpers import dense, harness, tiny
from helpers.property_profiles import examples
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.attention.merge import SCALE_MODES
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.encoding.encode import encode_all
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.choices import POSITIONS
from lm_eval_ape.settings.strategy import Settings, resolve

EXACT = 1e-12
few = examples(15)


# Encoding and reading


@st.composite
def prompts(draw: st.DrawFn, chunks: int = 4) -> Prompt:
    seed = draw(st.integers(0, 10**6))
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=chunks))
    pieces = [tokens(length, seed + number) for number, length in enumerate(lengths, start=1)]
    return prompt_of(pieces, tokens(draw(st.integers(0, 5)), seed), tokens(draw(st.integers(1, 7)), seed + 50))


@st.composite
def ways(draw: st.DrawFn) -> Settings:
    given = {"attn_temperature": draw(st.floats(0.4, 1.8)), "attn_scale": draw(st.floats(0.4, 1.8))}
    sides = {"positions": draw(st.sampled_from(POSITIONS)), "shared_prefix": draw(st.booleans())}
    selection = draw(st.sampled_from([{}, {}, {"top_chunks": 2, "select_over": "T"}]))
    return resolve({**given, **sides, **selection, "scale_mode": draw(st.sampled_from(SCALE_MODES))})


@given(st.lists(prompts(), min_size=1, max_size=3), ways())
@few
def test_any_batch_of_any_prompts_is_the_dense_reference(batch: list[Prompt], way: Settings) -> None:
    """Unequal queries are padded on the left; prefixes, chunks and queries are of any lengths."""
    with tiny.InDouble():
        model = tiny.make_model()
        encoded_prompts = encode_all(model, batch, way)
        for prompt, got in zip(batch, query_logits(model, encoded_prompts, batch, way), strict=True):
            assert (got - reference(model, prompt, way)).abs().max() < EXACT


@given(prompts(), st.randoms(use_true_random=False))
@few
def test_the_order_of_chunks_does_not_matter_where_positions_are_shared(prompt: Prompt, chance: random.Random) -> None:
    model = tiny.make_model()
    for way in map(resolve, ({}, {"top_chunks": 2}, {"scale_mode": "value", "attn_scale": 0.5})):
        shuffled = list(prompt.chunks)
        chance.shuffle(shuffled)
        other = replace(prompt, chunks=tuple(shuffled))
        assert (run(model, prompt, way) - run(model, other, way)).abs().max() < EXACT


@given(prompts(chunks=1), st.sampled_from(["parallel", "sink", "selective", "value_only"]))
@few
def test_one_chunk_is_the_sequential_model_whatever_its_length(prompt: Prompt, strategy: str) -> None:
    model = tiny.make_model()
    expected = dense.dense_logits(model, dense.sequential_layout(list(prompt.ids), len(prompt.query)))[0]
    assert (run(model, prompt, resolve({"strategy": strategy})) - expected).abs().max() < EXACT


def test_points_score_the_same_in_any_order_and_samples_in_any_order(checkpoint: str) -> None:
    lm = ApeHFLM(checkpoint, dtype="float64", device="cpu")
    points = [Point(0.6, 0.7), Point(0.9, 0.9), Point(1.0, 1.0), Point(1.2, 0.5)]
    samples = [
        Sample("task", n, 0, prompt_of([tokens(6 + n, n), tokens(4, n + 9)], query=tokens(3 + n, n + 20)), str(n))
        for n in range(3)
    ]
    for history in ("own", "teacher"):
        objective = Objective(3, history, "stop")
        straight = Meter(lm, objective, max_rows=3, cache=None).measure(samples, points).kl
        reverse = Meter(lm, objective, max_rows=3, cache=None).measure(samples[::-1], points[::-1]).kl
        assert abs(straight - reverse[::-1, ::-1]).max() < EXACT


# Through the harness

DOCS = harness.documents(3, words=4)


def requests(kind: str) -> list[Instance]:
    found = []
    for number, doc in enumerate(DOCS):
        text = harness.PROMPT.replace("{{context}}", doc["context"]).replace("{{question}}", doc["question"])
        each: dict[str, list[tuple[Any, ...]]] = {
            "generate_until": [(text, {"max_gen_toks": 4, "until": []})],
            "loglikelihood": [(text, " " + choice) for choice in doc["choices"]],
            "loglikelihood_rolling": [(text,)],
        }
        found += [
            Instance(kind, doc, arguments, index, metadata=("small", number, 1))  # type: ignore[arg-type]
            for index, arguments in enumerate(each[kind])
        ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "strategy"),
    [
        ("generate_until", "ape"),
        ("generate_until", "sink+selective"),
        ("loglikelihood", "ape"),
        ("loglikelihood", "sink+selective"),
        ("loglikelihood_rolling", "ape"),
    ],
)
def test_neither_batch_size_nor_order_nor_kept_chunks_change_an_answer(
    checkpoint: str, kind: str, strategy: str
) -> None:
    def load(**options: Any) -> ApeHFLM:
        return ApeHFLM(checkpoint, dtype="float64", device="cpu", strategy=strategy, chunking="passages", **options)

    asked = requests(kind)
    expected = [flat(answer) for answer in getattr(load(), kind)(asked)]
    order = list(range(len(asked)))
    random.Random(0).shuffle(order)
    kept = load(batch_size=2, kv_cache_bytes="8MiB")
    # The last time with the chunks that the one before has kept.
    for lm in (load(batch_size=4), load(batch_size="auto", max_batch_size=2, max_length=150), kept, kept):
        got = dict(zip(order, getattr(lm, kind)([asked[number] for number in order]), strict=True))
        for number, answer in enumerate(expected):
            assert flat(got[number]) == pytest.approx(answer, abs=1e-9)
    if kind != "loglikelihood_rolling":
        assert kept.engine.store is not None
        assert kept.engine.store.counts.memory_hits >= kept.engine.store.counts.misses > 0


def flat(answer: Any) -> Any:
    return list(answer) if isinstance(answer, tuple) else answer


def test_a_template_that_adds_nothing_and_no_examples_change_no_answer(checkpoint: str) -> None:
    task = harness.task("small", "generate_until", DOCS[:1])
    runs = []
    for options in ({}, {"apply_chat_template": True}, {"num_fewshot": 0}):
        lm = ApeHFLM(checkpoint, dtype="float64", device="cpu", chunking="passages")
        lm.tokenizer.chat_template = "{{ messages[0]['content'] }}"
        runs.append(harness.responses(harness.evaluate(lm, {}, task, **options), "small"))
    assert runs[0] == runs[1] == runs[2]
