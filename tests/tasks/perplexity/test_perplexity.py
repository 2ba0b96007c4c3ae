"""Language modelling: where texts are cut, and what the metrics are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import harness, tiny
from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks import TASKS_DIR
from lm_eval_ape.tasks.perplexity.data import load_perplexity
from lm_eval_ape.tasks.perplexity.tokens import cut_end

TOKENIZER = tiny.make_tokenizer()
WORDS = harness.WORDS
SIZES = {"perplexity_tokens": 120, "perplexity_query_tokens": 30}


def text(number: int, words: int = 400) -> str:
    return " ".join(WORDS[(number * 5 + place * place) % len(WORDS)] + "," * (place % 7 == 0) for place in range(words))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """34 texts in a .jsonl file, one in a .txt file, and two that are too short."""
    lines = [{"text": text(number)} for number in range(34)] + [{"text": "Too short."}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (tmp_path / "a.txt").write_text(f"\n{text(99)}\n", encoding="utf-8")
    (tmp_path / "c.txt").write_text("short", encoding="utf-8")
    (tmp_path / "notes.md").write_text("no text", encoding="utf-8")
    return str(tmp_path)


def rows(folder: str, checkpoint: str, **options: Any) -> list[dict[str, Any]]:
    return list(load_perplexity(perplexity_path=folder, pretrained=checkpoint, **{**SIZES, **options})["test"])


@pytest.mark.parametrize("query_tokens", [1, 30, 90])
@pytest.mark.parametrize("number", range(4))
def test_the_parts_have_the_texts_own_tokens(number: int, query_tokens: int) -> None:
    whole = TOKENIZER(text(number), add_special_tokens=False)["input_ids"]
    cut = cut_end(text(number), TOKENIZER, 120, query_tokens)
    assert cut is not None
    assert text(number).startswith(cut.context + cut.query)
    assert cut.context == cut.context.rstrip()
    context, both = (
        TOKENIZER(part, add_special_tokens=False)["input_ids"] for part in (cut.context, cut.context + cut.query)
    )
    assert context == whole[: len(context)]
    assert both == whole[: len(both)]
    assert len(both) - len(context) == cut.tokens == query_tokens
    assert 120 <= len(both) <= 120 + 64


def test_a_text_that_can_be_cut_nowhere_is_counted_as_the_harness_does() -> None:
    # Between two spaces nothing is kept: every cut before one moves to the last word.
    cut = cut_end(f"river{' ' * 400}river", TOKENIZER, 150, 40)
    assert cut is not None
    assert cut.context == "river"
    both, context = (len(TOKENIZER(part)["input_ids"]) for part in (cut.context + cut.query, cut.context))
    assert cut.tokens == both - context


def test_a_short_text_is_none() -> None:
    assert cut_end("A film.", TOKENIZER, 120, 30) is None


def test_rows_come_from_all_files_and_short_texts_are_warned_about(
    folder: str, checkpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = rows(folder, checkpoint)
    assert len(whole) == 35
    assert whole[0]["context"] == text(99)[: len(whole[0]["context"])]
    assert {row["query_tokens"] for row in whole} == {30}
    assert "2 of 37 texts of" in caplog.text
    assert "have fewer than 120 tokens and are left out" in caplog.text


def test_parts_make_up_the_whole_and_share_no_text(folder: str, checkpoint: str) -> None:
    whole, calibration, test = (
        rows(folder, checkpoint, perplexity_part=part) for part in ("all", "calibration", "test")
    )
    assert (len(calibration), len(test)) == (32, 3)
    assert sorted(row["_id"] for row in [*calibration, *test]) == sorted(row["_id"] for row in whole)
    assert len({row["_id"] for row in whole}) == 35


def test_no_text_that_is_long_enough_is_an_error(folder: str, checkpoint: str) -> None:
    with pytest.raises(ApeError, match="has no text of perplexity_tokens=9000 tokens"):
        rows(folder, checkpoint, perplexity_tokens=9000)
    with pytest.raises(ApeError, match=r"notes.md is no .txt or .jsonl file and no folder of such files"):
        rows(f"{folder}/notes.md", checkpoint)


def test_metrics_are_those_of_the_plain_model(folder: str, checkpoint: str) -> None:
    """One chunk under sink is the sequential model, and both are transformers' own."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    losses = []
    for row in rows(folder, checkpoint)[:3]:
        ids = torch.tensor([tokenizer(row["context"] + row["query"])["input_ids"]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].log_softmax(-1)
        losses.append(-logits.gather(-1, ids[0, 1:, None])[-row["query_tokens"] :].mean().item())
    metadata = {"perplexity_path": folder, "pretrained": checkpoint, **SIZES}
    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata)
    found = {}
    for label, arguments in {
        "hf": ("hf", {}),
        "sequential": ("ape-hf", {"strategy": "sequential"}),
        "one": ("ape-hf", {"strategy": "sink", "chunks": 1}),
        "eight": ("ape-hf", {"strategy": "sink", "chunks": 8}),
    }.items():
        given = {"pretrained": checkpoint, "device": "cpu", "dtype": "float64", **arguments[1]}
        results = harness.simple_evaluate(
            model=arguments[0],
            model_args=given,
            tasks=["ape_perplexity"],
            task_manager=manager,
            limit=3,
            bootstrap_iters=0,
        )
        found[label] = results["results"]["ape_perplexity"]
    for label in ("hf", "sequential", "one"):
        assert found[label]["nats_per_token,none"] == pytest.approx(sum(losses) / 3, abs=1e-9)
        assert found[label]["token_perplexity,none"] == pytest.approx(math.exp(sum(losses) / 3), abs=1e-6)
    assert abs(found["eight"]["nats_per_token,none"] - found["one"]["nats_per_token,none"]) > 1e-3


def test_the_shipped_models_tokenizer_is_found_by_its_name(folder: str) -> None:
    assert load_perplexity(perplexity_path=folder, pretrained="pocket", **SIZES)["test"][0]["query_tokens"] == 30


def test_pythons_own_manual_needs_no_file(checkpoint: str) -> None:
    sizes = {"perplexity_tokens": 500, "perplexity_query_tokens": 50}
    parts = [
        list(load_perplexity(perplexity_part=part, perplexity_path="python", pretrained=checkpoint, **sizes)["test"])
        for part in ("calibration", "test")
    ]
    assert len(parts[0]) == 32
    assert len(parts[1]) > 20
    texts = [row["context"] + row["query"] for rows in parts for row in rows]
    assert len(set(texts)) == len(texts)
    manual = "\n\n".join(text for _, text in sorted(topics.items()))
    assert all(text in manual for text in texts)
