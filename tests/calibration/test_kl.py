"""Divergences equal a slow reference that encodes everything again for each point and loops over tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import dense, dense_recomputation, tiny
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.attention.segments import SegmentedCache
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.engine.decoding import end_tokens
from lm_eval_ape.engine.engine import Tail
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.prompts.prompt import Prompt

# In no order, and two with one T.
POINTS = [Point(0.9, 0.9), Point(1.2, 0.5), Point(0.6, 0.7), Point(1.2, 1.0)]


def tokens(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(5, 300, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def sample(chunks: list[int], seed: int = 0) -> Sample:
    pieces = tuple(tokens(length, seed + 10 * index) for index, length in enumerate(chunks, start=1))
    return Sample("task", seed, 0, Prompt(tokens(3, seed), pieces, tokens(4, seed + 1)), str(seed))


SAMPLES = [sample([7, 5, 9], seed=0), sample([4, 6], seed=1), sample([8, 3], seed=5)]


class SlowReference:
    """Forward KL written as loops, over dense attention; shares no code with the package."""

    def __init__(self, lm: ApeHFLM, ends: tuple[int, ...]) -> None:
        self.lm, self.ends = lm, ends

    def teacher(self, prompt: Prompt, history: list[int]) -> Tensor:
        layout = dense.sequential_layout([*prompt.ids, *history], len(prompt.query) + len(history))
        return dense.dense_logits(self.lm.model, layout)[0, -1]

    def student(self, prompt: Prompt, history: list[int], point: Point) -> Tensor:
        settings = self.lm.settings
        layout = dense.lay_out(
            list(prompt.prefix),
            [list(chunk) for chunk in prompt.chunks],
            [*prompt.query, *history],
            settings.positions,
            settings.shared_prefix,
        )
        if settings.recompute:
            asked = dense.lay_out(
                list(prompt.prefix), [list(c) for c in prompt.chunks], list(prompt.query), "serial", True
            )
            scores = dense_recomputation.query_scores(self.lm.model, asked, [0, 1, 2])
            first, count = len(prompt.chunks[0]), round(settings.recompute * len(scores))
            chosen = sorted(range(first, len(scores)), key=lambda token: -float(scores[token]))[:count]
            pair = {"temperature": point[0], "scale": point[1]}
            return dense_recomputation.logits(self.lm.model, layout, sorted(chosen), **pair)[0, -1]
        selecting = None
        if settings.top_chunks:
            # The query's tokens choose together, then each token of the continuation.
            blocks = [len(prompt.query), *[1] * len(history)]
            selecting = dense.Selecting(settings.top_chunks, settings.select_over, blocks)
        factors = {"temperature": point[0], "scale": point[1], "mode": settings.scale_mode}
        return dense.dense_logits(self.lm.model, layout, selecting=selecting, **factors)[0, -1]

    def kl(self, prompt: Prompt, point: Point, num_tokens: int, history: str) -> tuple[float, int]:
        said: list[int] = []
        own: list[int] = []
        terms: list[float] = []
        while len(terms) < num_tokens:
            p = torch.softmax(self.teacher(prompt, said).double(), -1)
            q = torch.softmax(self.student(prompt, own if history == "own" else said, point).double(), -1)
            terms.append(sum(float(a) * float((a / b).log()) for a, b in zip(p, q, strict=True) if a > 0))
            said.append(int(p.argmax()))
            own.append(int(q.argmax()))
            if said[-1] in self.ends or (history == "own" and own[-1] in self.ends):
                break
        return sum(terms) / len(terms), len(terms)


def frequent_token(lm: ApeHFLM) -> int:
    """A token that teacher or students say early, to stand for an end of sequence."""
    reference = SlowReference(lm, ())
    first = int(reference.teacher(SAMPLES[0].prompt, []).argmax())
    return int(reference.teacher(SAMPLES[0].prompt, [first]).argmax())


SETTINGS: list[dict[str, Any]] = [
    {},
    {"strategy": "parallel"},
    {"scale_mode": "value", "positions": "serial"},
    {"scale_mode": "additive", "positions": "stretched"},
    {"strategy": "sink+selective"},
    {"top_chunks": 1, "select_over": "LHT"},
    {"strategy": "recompute", "recompute": 0.3},
]


@pytest.mark.parametrize("history", ["own", "teacher"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_divergences_equal_the_slow_reference(
    load: Callable[..., ApeHFLM], history: str, settings: dict[str, Any]
) -> None:
    lm = load(**settings)
    tiny.double_frequencies(lm.model)
    reference = SlowReference(lm, end_tokens(lm))
    with tiny.InDouble():
        measured = Meter(lm, Objective(3, history, "stop"), max_rows=None, cache=None).measure(SAMPLES[:2], POINTS)
        for row, one in enumerate(SAMPLES[:2]):
            for column, point in enumerate(POINTS):
                expected, positions = reference.kl(one.prompt, point, 3, history)
                assert measured.kl[row, column] == pytest.approx(expected, abs=1e-9)
                assert measured.positions[row, column] == positions


@pytest.mark.parametrize("positions", ["query", "both"])
@pytest.mark.parametrize("history", ["own", "teacher"])
def test_divergences_after_the_querys_tokens_equal_the_slow_reference(
    load: Callable[..., ApeHFLM], history: str, positions: str
) -> None:
    lm = load()
    tiny.double_frequencies(lm.model)
    reference, new = SlowReference(lm, ()), 2 if positions == "both" else 1
    prompt = SAMPLES[0].prompt
    with tiny.InDouble():
        objective = Objective(new, history, "continue", positions)
        scores = Meter(lm, objective, max_rows=3, cache=None).sample(SAMPLES[0], POINTS)
        for score, point in zip(scores, POINTS, strict=True):
            # The query's tokens as a query of its own, cut after each of them.
            cut = [replace(prompt, query=prompt.query[:end]) for end in range(1, len(prompt.query))]
            expected = [reference.kl(part, point, 1, history)[0] for part in cut]
            assert score.divergences[: len(cut)] == pytest.approx(expected, abs=1e-9)
            assert np.mean(score.divergences[len(cut) :]) == pytest.approx(
                reference.kl(prompt, point, new, history)[0], abs=1e-9
            )
            assert score.positions == len(prompt.query) - 1 + new


@pytest.mark.parametrize("history", ["own", "teacher"])
def test_a_second_token_that_chooses_its_chunks_alone(load: Callable[..., ApeHFLM], history: str) -> None:
    lm = load(strategy="sink+selective")
    reference = SlowReference(lm, end_tokens(lm))
    measured = Meter(lm, Objective(2, history, "stop"), max_rows=None, cache=None).measure(SAMPLES[:1], POINTS)
    expected = [reference.kl(SAMPLES[0].prompt, point, 2, history)[0] for point in POINTS]
    assert np.allclose(measured.kl[0], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("history", ["own", "teacher"])
def test_scores_are_plain_numbers_that_a_file_can_hold(load: Callable[..., ApeHFLM], history: str) -> None:
    meter = Meter(load(), Objective(2, history, "stop"), max_rows=None, cache=None)
    for score in meter.sample(SAMPLES[0], POINTS):
        assert {type(number) for number in score.divergences} == {float}


def test_chunks_that_are_kept_are_not_encoded_again(load: Callable[..., ApeHFLM]) -> None:
    lm = load(kv_cache_bytes="1MiB")
    assert lm.engine.store is not None
    meter = Meter(lm, Objective(2, "own", "stop"), max_rows=None, cache=None)
    first = meter.measure(SAMPLES[:1], POINTS).kl
    missed = lm.engine.store.counts.misses
    assert missed
    assert np.array_equal(meter.measure(SAMPLES[:1], POINTS).kl, first)
    assert lm.engine.store.counts.misses == missed


@pytest.mark.parametrize("history", ["own", "teacher"])
def test_float32_divergences_are_within_1e_5_of_the_slow_reference(float32_checkpoint: str, history: str) -> None:
    lm = ApeHFLM(pretrained=float32_checkpoint, device="cpu")
    reference = SlowReference(lm, end_tokens(lm))
    measured = Meter(lm, Objective(3, history, "stop"), max_rows=None, cache=None).measure(SAMPLES, POINTS)
    for row, one in enumerate(SAMPLES):
        for column, point in enumerate(POINTS):
            assert measured.kl[row, column] == pytest.approx(reference.kl(one.prompt, point, 3, history)[0], abs=1e-5)


@pytest.mark.parametrize("history", ["own", "teacher"])
@pytest.mark.parametrize("after_eos", ["stop", "continue"])
def test_positions_after_an_end_of_sequence_count_only_where_asked_for(
    load: Callable[..., ApeHFLM], history: str, after_eos: str
) -> None:
    lm = load()
    end = frequent_token(lm)
    lm.model.generation_config.eos_token_id = [end]
    assert end in end_tokens(lm)
    reference = SlowReference(lm, end_tokens(lm) if after_eos == "stop" else ())
    measured = Meter(lm, Objective(4, history, after_eos), max_rows=None, cache=None).measure(SAMPLES, POINTS)
    expected = [[reference.kl(one.prompt, point, 4, history) for point in POINTS] for one in SAMPLES]
    assert measured.positions.tolist() == [[count for _, count in row] for row in expected]
    assert np.allclose(measured.kl, [[kl for kl, _ in row] for row in expected], atol=1e-9, rtol=0)
    assert (measured.positions.min() < 4) == (after_eos == "stop")


def test_a_point_that_ends_its_sequence_before_the_teacher_does_counts_up_to_there(
    load: Callable[..., ApeHFLM],
) -> None:
    lm = load()
    reference = SlowReference(lm, ())
    told: list[int] = []
    while len(told) < 4:
        told.append(int(reference.teacher(SAMPLES[0].prompt, told).argmax()))
    own = [int(reference.student(SAMPLES[0].prompt, [], point).argmax()) for point in POINTS]
    early = next(token for token in own if token not in told)
    lm.model.generation_config.eos_token_id = [early]
    reference = SlowReference(lm, end_tokens(lm))
    measured = Meter(lm, Objective(4, "own", "stop"), max_rows=None, cache=None).measure(SAMPLES[:1], POINTS)
    expected = [reference.kl(SAMPLES[0].prompt, point, 4, "own") for point in POINTS]
    assert measured.positions[0].tolist() == [count for _, count in expected]
    assert set(measured.positions[0].tolist()) >= {1, 4}
    assert np.allclose(measured.kl[0], [kl for kl, _ in expected], atol=1e-9, rtol=0)


@pytest.mark.parametrize("history", ["own", "teacher"])
@pytest.mark.parametrize("strategy", ["parallel", "ape"])
def test_one_chunk_without_temperature_and_scale_diverges_by_nothing(
    load: Callable[..., ApeHFLM], history: str, strategy: str
) -> None:
    meter = Meter(load(strategy=strategy), Objective(4, history, "stop"), max_rows=None, cache=None)
    assert np.abs(meter.measure([sample([12])], [Point(1.0, 1.0)]).kl).max() < 1e-9


def test_histories_agree_for_one_token_and_part_for_more(load: Callable[..., ApeHFLM]) -> None:
    lm = load()

    def measure(num_tokens: int, history: str) -> Any:
        return Meter(lm, Objective(num_tokens, history, "stop"), max_rows=None, cache=None).measure(SAMPLES, POINTS).kl

    assert np.allclose(measure(1, "own"), measure(1, "teacher"), atol=1e-12, rtol=0)
    assert not np.allclose(measure(4, "own"), measure(4, "teacher"), atol=1e-3, rtol=0)


@pytest.mark.parametrize("history", ["own", "teacher"])
def test_scoring_reads_on_the_kernel_that_was_asked_for(load: Callable[..., ApeHFLM], history: str) -> None:
    lm = load(attn_backend="eager")
    lm.engine.used.clear()
    Meter(lm, Objective(2, history, "stop"), max_rows=None, cache=None).measure(SAMPLES[:1], POINTS)
    assert set(lm.engine.used) == {"eager"}
    encoding = lm.engine.used["eager"]
    lm.engine.used.clear()
    lm.engine.encode(SAMPLES[0].prompt)
    assert 0 < lm.engine.used["eager"] < encoding


def test_every_batch_of_points_is_told_as_it_is_scored(load: Callable[..., ApeHFLM]) -> None:
    meter = Meter(load(), Objective(2, "own", "stop"), max_rows=3, cache=None)
    told: list[int] = []
    prompt = SAMPLES[0].prompt
    encoded, teacher = meter.lm.engine.encode(prompt), meter.teacher(SAMPLES[0])
    meter.scorer.score(encoded, prompt, teacher, POINTS, sample="sample", on_scored=told.append)
    assert told == [3, 1]


@pytest.mark.parametrize("history", ["own", "teacher"])
def test_points_in_batches_of_any_size_score_the_same(load: Callable[..., ApeHFLM], history: str) -> None:
    lm = load()
    whole, single, pairs = (
        Meter(lm, Objective(3, history, "stop"), max_rows=rows, cache=None).measure(SAMPLES, POINTS).kl
        for rows in (None, 1, 3)
    )
    assert np.allclose(whole, single, atol=1e-12, rtol=0)
    assert np.allclose(whole, pairs, atol=1e-12, rtol=0)


def test_short_memory_halves_the_batch_until_it_fits(
    load: Callable[..., ApeHFLM], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lm = load()
    expected = Meter(lm, Objective(2, "own", "stop"), max_rows=None, cache=None).measure(SAMPLES, POINTS).kl
    read, sizes = Tail.read, []

    def with_little_memory(tail: Tail, *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(tail.cache, SegmentedCache):
            sizes.append(tail.rows)
        if tail.rows > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return read(tail, *args, **kwargs)

    monkeypatch.setattr(Tail, "read", with_little_memory)
    got = Meter(lm, Objective(2, "own", "stop"), max_rows=None, cache=None).measure(SAMPLES, POINTS).kl
    assert np.allclose(got, expected, atol=1e-12, rtol=0)
    assert "document 0 of task task: memory is short; going on with 2 points at a time." in caplog.text
    # Once found, the size that fits is kept.
    assert sizes[:3] == [4, 2, 1]
    assert set(sizes[3:]) == {1}


def test_memory_that_does_not_even_hold_one_point_is_told_with_the_sample(
    load: Callable[..., ApeHFLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Tail.read

    def no_memory(tail: Tail, *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(tail.cache, SegmentedCache):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 b.")
        return read(tail, *args, **kwargs)

    monkeypatch.setattr(Tail, "read", no_memory)
    meter = Meter(load(), Objective(2, "own", "stop"), max_rows=None, cache=None)
    with pytest.raises(ApeError, match=r"document 1 of task task: memory does not suffice for one \(T, S\) point"):
        meter.measure(SAMPLES[1:], POINTS)


@pytest.mark.parametrize("history", ["own", "teacher"])
def test_logits_that_are_not_finite_are_told_with_sample_and_point(float32_checkpoint: str, history: str) -> None:
    lm = ApeHFLM(pretrained=float32_checkpoint, device="cpu")
    with torch.no_grad():
        # Logits so large that only T=1 keeps them finite.
        lm.model.model.layers[0].self_attn.q_proj.weight *= 1e36
    meter = Meter(lm, Objective(2, history, "stop"), max_rows=None, cache=None)
    sentence = r"document 5 of task task: the logits of the point \(T=1e-06, S=1\) for new token 1 are not finite"
    with pytest.raises(ApeError, match=sentence):
        meter.measure(SAMPLES[2:], [Point(1.0, 1.0), Point(1e-6, 1.0)])


def test_a_broken_teacher_is_told_with_the_sample(load: Callable[..., ApeHFLM]) -> None:
    lm = load()
    with torch.no_grad():
        lm.model.get_output_embeddings().weight[7] = float("nan")
    meter = Meter(lm, Objective(2, "own", "stop"), max_rows=None, cache=None)
    with pytest.raises(ApeError, match="document 0 of task task: the logits of the sequential teacher"):
        meter.measure(SAMPLES, POINTS)
