"""Recomputation through the harness, from Python, and with chunks that are kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from test_model import KINDS, assert_same

from helpers import harness
from lm_eval_ape import ParallelModel, calibrate
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.encoding.kv_store.store import Counts
from lm_eval_ape.engine import engine
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.choices import SELECTORS

DOCS = harness.documents(4)
DOC = DOCS[0]
TEXT = harness.PROMPT.replace("{{context}}", DOC["context"]).replace("{{question}}", DOC["question"])


def load(checkpoint: str, **given: Any) -> ApeHFLM:
    shared = {"pretrained": checkpoint, "dtype": "float64", "device": "cpu", "chunking": "passages"}
    return ApeHFLM(**{**shared, "strategy": "recompute", **given})


@pytest.fixture
def recomputations(monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """The prompts whose contexts were recomputed."""
    prompts: list[Prompt] = []
    recompute = engine.recompute

    def counted(model: Any, prompt: Prompt, *args: Any, **options: Any) -> Any:
        prompts.append(prompt)
        return recompute(model, prompt, *args, **options)

    monkeypatch.setattr(engine, "recompute", counted)
    return prompts


@pytest.mark.parametrize("by", SELECTORS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_tokens_recomputed_give_hfs_answers(checkpoint: str, kind: str, by: str) -> None:
    task = harness.task("small", kind, DOCS)
    args = {"pretrained": checkpoint, "strategy": "recompute", "recompute": 1, "recompute_by": by}
    expected = harness.evaluate("hf", {"pretrained": checkpoint}, task)
    got = harness.evaluate("ape-hf", {**args, "chunking": "passages"}, task, batch_size=2)
    assert_same(harness.responses(got, "small"), harness.responses(expected, "small"))


@pytest.mark.parametrize(
    "cut",
    [
        {"chunking": "passages", "retriever": "bm25", "max_chunks": 2},
        {"chunking": "separator", "separator": "\n", "max_chunks": 3},
        {"chunks": 4},
    ],
    ids=str,
)
def test_all_tokens_recomputed_are_sequential_however_contexts_are_cut(checkpoint: str, cut: dict[str, Any]) -> None:
    task = harness.task("small", "multiple_choice", DOCS)
    runs = [
        harness.evaluate("ape-hf", {"pretrained": checkpoint, **cut, **own}, task, batch_size=2)
        for own in ({"strategy": "sequential"}, {"strategy": "recompute", "recompute": 1})
    ]
    assert_same(*(harness.responses(run, "small") for run in runs))


@pytest.mark.parametrize(("by", "contexts"), [("query", 2), ("random", 1)])
def test_options_share_one_choice_of_tokens(
    checkpoint: str, by: str, contexts: int, recomputations: list[Prompt]
) -> None:
    """Of two questions on one context, three options each: one choice a question, or where none asks a context."""
    lm = load(checkpoint, recompute_by=by)
    other = TEXT.replace(DOC["question"], "Who?")
    pairs = [(text, option) for text in (TEXT, other) for option in (" a", " b c", " d")]
    requests = [
        Instance("multiple_choice", DOC, pair, number, metadata=("small", 0, 1)) for number, pair in enumerate(pairs)
    ]
    recomputations.clear()
    together = lm.loglikelihood(requests, disable_tqdm=True)
    assert len(recomputations) == contexts
    alone = [lm.loglikelihood([request], disable_tqdm=True)[0] for request in requests]
    assert [score for score, _ in together] == pytest.approx([score for score, _ in alone], abs=1e-9)


def test_the_request_log_says_how_many_tokens_of_which_chunks(checkpoint: str, tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    args = {"pretrained": checkpoint, "chunking": "passages", "request_log": str(log)}
    tasks = [harness.task(kind, kind, DOCS) for kind in KINDS]
    harness.evaluate("ape-hf", {**args, "strategy": "epic", "recompute": 6}, *tasks, batch_size=2)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    cut, read = (
        Counter((line["task"], line["doc_id"], line["idx"]) for line in lines if field in line)
        for field in ("chunk_tokens", "recomputed_tokens")
    )
    assert {name for name, *_ in cut} == set(KINDS)
    assert read == cut
    for line in lines:
        if "recomputed_tokens" in line:
            first, *others = line["recomputed_tokens"]
            assert (first, sum(others)) == (0, 6)
            # The same number of each, as far as it goes.
            assert max(others) - min(others) <= 1


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_kept_chunks_are_found_wherever_they_stand(checkpoint: str, shared_prefix: bool) -> None:
    lm, plain = (
        load(checkpoint, kv_cache_bytes=size, recompute=0.2, shared_prefix=shared_prefix) for size in ("64MiB", "0")
    )
    store = lm.engine.store
    assert store is not None
    prefix, *chunks = (tuple(range(5 + 9 * number, 12 + 10 * number)) for number in range(5))
    first, *others = chunks
    # Without a shared prefix the first chunk is one piece with what stands before it.
    free = chunks if shared_prefix else others
    read(lm, Prompt(prefix, tuple(chunks), (7, 8)))
    orders = [tuple(chunks), (first, *others[::-1]), (first, others[-1]), (first, *others, *others)]
    orders += [tuple(free[::-1])] * shared_prefix
    for order in orders:
        prompt = Prompt(prefix, order, (9, 7, 3))
        store.counts = Counts()
        got = read(lm, prompt)
        assert (store.counts.misses, store.counts.memory_hits) == (0, len(set(order)) + shared_prefix)
        assert torch.equal(got, read(plain, prompt))


@torch.no_grad()
def read(lm: ApeHFLM, prompt: Prompt) -> torch.Tensor:
    with lm.engine.tail(lm.engine.encode(prompt)) as tail:
        return tail.read(prompt.query, keep=1)


def test_a_calibration_scores_temperatures_over_what_was_recomputed_once(recomputations: list[Prompt]) -> None:
    options = {"limit": 2, "temperatures": [0.9, 1.0], "scales": [0.9, 1.0], "num_tokens": 2}
    kl = []
    for share in (0.0, 0.05):
        given = {"strategy": "recompute", "recompute": share, "chunking": "passages", "max_chunks": 5}
        model = ParallelModel("pocket", **given)
        recomputations.clear()
        content = calibrate(model, ["ape_pocket_twohop_calibration"], **options).content
        # Beside the probes of the model, once a prompt for all four points.
        assert Counter(len(prompt.chunks) for prompt in recomputations if len(prompt.chunks) > 2) == {5: 2}
        assert content.settings["recompute"] == share
        kl.append(content.grid.mean_kl)
    assert np.max(kl[1]) < np.min(kl[0])


def test_a_context_is_encoded_once_and_recomputed_for_every_question(recomputations: list[Prompt]) -> None:
    model = ParallelModel("pocket", strategy="recompute", dtype="float64", recompute=1)
    passages = ["Tom Hill lives in Paris. ", "Ann Reed is a doctor. ", "Ann Reed lives with Tom Hill. "]
    context = model.encode("Read.\n\n", passages)
    before = [keys.clone() for segment in context.encoded.segments for keys in segment.keys]
    question = "\n\nQuestion: Where does Ann Reed live?\nAnswer:"
    assert max(map(abs, context.divergence(question, num_tokens=3))) < 1e-9
    context.loglikelihood(question, [" Paris", " Rome"])
    assert [prompt.query for prompt in recomputations[-2:]] == [recomputations[-1].query] * 2
    assert all(map(torch.equal, before, [keys for segment in context.encoded.segments for keys in segment.keys]))


def test_a_board_says_what_was_recomputed_and_what_it_cost(tmp_path: Path) -> None:
    board = compare(
        Options.read(
            {
                "model_args": {"pretrained": "pocket", "chunking": "passages", "max_chunks": 5},
                "tasks": "ape_pocket_twohop_test",
                "strategies": "sequential,sink[positions=serial],epic[recompute=0.1],cacheblend",
                "limit": 3,
                "output_path": str(tmp_path),
            }
        )
    )
    assert board is not None
    shares = [row.costs.recomputed for row in board.rows if row.costs]
    assert [share and round(share.mean, 2) for share in shares] == [None, None, 0.1, 0.15]
    text = (tmp_path / "board.md").read_text()
    assert "Recomputed" in text
    assert "Prefill of sequential's" in text
    assert "15.0%" in text
