"""The tasks of Zhang et al.'s other kinds, swept over the number of chunks, through our own commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from helpers import harness
from lm_eval_ape.cli import main
from lm_eval_ape.tasks import TASKS_DIR

TASKS = ["ape_needle_test", "ape_keyvalue_test", "ape_fewshot_trec_test", "ape_perplexity"]


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Options that make the tasks small, and the local files that they read."""
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        rows = [
            {"text": f"{split} {word} {number}", "label_text": kind, "label_coarse_text": kind}
            for number, word in enumerate(harness.WORDS * 3)
            for kind in ("a city", "a film")
        ]
        file = folder / "trec" / f"{split}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for number in range(3):
        words = [harness.WORDS[(place * place + number) % len(harness.WORDS)] for place in range(400)]
        (folder / f"{number}.txt").write_text(" ".join(words), encoding="utf-8")
    options = {"fewshot_dir": str(folder), "fewshot_examples": 8, "needle_words": 60, "keyvalue_pairs": 6}
    options |= {"perplexity_path": str(folder), "perplexity_tokens": 150, "perplexity_query_tokens": 30}
    return json.dumps(options)


def test_numbers_of_chunks_are_swept_over_all_kinds_of_tasks(checkpoint: str, metadata: str, tmp_path: Path) -> None:
    chunks = [1, 2, 8]
    flags = ["--model_args", f"pretrained={checkpoint},dtype=float64", "--device", "cpu", "--tasks", ",".join(TASKS)]
    flags += ["--strategies", "sequential," + ",".join(f"sink[chunks={count}]" for count in chunks)]
    flags += ["--metadata", metadata, "--gen_kwargs", "max_gen_toks=2", "--limit", "2", "--resamples", "99"]
    assert main(["compare", *flags, "--output_path", str(tmp_path)]) == 0
    board = json.loads((tmp_path / "board.json").read_text())
    swept = board["rows"][1:]
    assert [row["costs"]["chunks"]["mean"] for row in swept] == chunks
    assert [row["settings"]["chunks"] for row in swept] == chunks
    metrics = {task: fact["metric"] for task, fact in board["tasks"].items()}
    assert metrics == dict(zip(TASKS, ["sub_em", "sub_em", "accuracy", "nats_per_token"], strict=True))
    losses = [row["tasks"]["ape_perplexity"]["score"] for row in board["rows"]]
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    assert len({round(loss, 6) for loss in losses}) == 3


def test_items_are_grouped_and_retrieved_by_the_separator(checkpoint: str, metadata: str, tmp_path: Path) -> None:
    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=json.loads(metadata))
    found = {}
    for name, given in {"grouped": {"chunks": 3}, "retrieved": {"retriever": "bm25", "max_chunks": 2}}.items():
        log = tmp_path / f"{name}.jsonl"
        arguments = {"pretrained": checkpoint, "chunking": "separator", "separator": "\n", "request_log": str(log)}
        harness.simple_evaluate(
            model="ape-hf",
            model_args={"device": "cpu", **arguments, **given},
            tasks=["ape_keyvalue_test"],
            task_manager=manager,
            gen_kwargs={"max_gen_toks": 2},
            limit=4,
            bootstrap_iters=0,
        )
        found[name] = [json.loads(line) for line in log.read_text().splitlines()]
    assert {len(record["chunk_tokens"]) for record in found["grouped"]} == {3}
    assert {record["dropped_tokens"] for record in found["grouped"]} == {0}
    task = manager.load("ape_keyvalue_test")["tasks"]["ape_keyvalue_test"]
    for record in found["retrieved"]:
        assert record["chunks"] == 6
        assert task.eval_docs[record["doc_id"]]["position"] in record["kept_chunks"]


@pytest.mark.usefixtures("own_tasks_alone")
def test_a_run_by_the_harness_has_its_tokenizer_from_the_models_arguments(
    metadata: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model_args", "pretrained=pocket,preset=C200x20", "--tasks", "ape_perplexity", "--limit", "1"]
    assert main(["run", *flags, "--device", "cpu", "--metadata", metadata, "--output_path", str(tmp_path)]) == 0
    assert "token_perplexity" in capsys.readouterr().out
    (file,) = tmp_path.glob("*/results_*.json")
    results = json.loads(file.read_text())
    settings = results["config"]["lm_eval_ape"]
    assert (settings["preset"], settings["retriever"], settings["chunk_tokens"]) == ("C200x20", "bm25", 200)
    assert results["configs"]["ape_perplexity"]["metadata"]["perplexity_tokens"] == 150
