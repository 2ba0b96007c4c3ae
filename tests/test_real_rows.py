"""Real LongBench rows, a task of every type, all strategies: same prompts as `hf`, nothing lost, no error."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
import yaml
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from helpers import tiny
from lm_eval_ape.tasks import TASKS_DIR

pytestmark = pytest.mark.slow

NAMES = ["2wikimqa", "trec", "lcc", "gov_report", "passage_retrieval_en", "multifieldqa_zh", "samsum"]
STRATEGIES = ["sequential", "parallel", "sink", "ape"]
WINDOW = 60_000


def rows(folder: Path, name: str, count: int) -> list[dict[str, Any]]:
    with (folder / f"{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, count)]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """A random Llama with a tokenizer made from such rows, so that they are about as long as for a real model."""
    tokenizers: dict[Path, str] = {}

    def make(folder: Path) -> str:
        if folder not in tokenizers:
            texts = [row["context"] for name in NAMES for row in rows(folder, name, 2)]
            tokenizer = tiny.make_tokenizer(texts, size=6000)
            tokenizers[folder] = tiny.save_checkpoint(tmp_path_factory.mktemp("reader"), tokenizer=tokenizer)
        return tokenizers[folder]

    return make


def evaluate(model: str, args: dict[str, Any], manager: TaskManager, task: Any) -> dict[str, Any]:
    return simple_evaluate(
        model=model,
        model_args={"device": "cpu", "dtype": "float32", "max_length": WINDOW, **args},
        tasks=[task],
        task_manager=manager,
        limit=2,
        gen_kwargs={"max_gen_toks": 3},
        log_samples=True,
        bootstrap_iters=0,
    )


def samples(results: dict[str, Any]) -> list[dict[str, Any]]:
    (rows,) = results["samples"].values()
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_our_tasks_run_on_real_rows_under_every_strategy(
    name: str, longbench_dir: Path, reader: Callable[[Path], str], tmp_path: Path
) -> None:
    manager = TaskManager(
        include_path=str(TASKS_DIR), include_defaults=False, metadata={"longbench_dir": str(longbench_dir)}
    )
    pretrained = reader(longbench_dir)
    task = f"ape_longbench_{name}"
    expected = samples(evaluate("hf", {"pretrained": pretrained}, manager, task))
    for strategy in STRATEGIES if name == "2wikimqa" else ["ape"]:
        log = tmp_path / f"{strategy}.jsonl"
        chunking = {"chunking": "passages"} if name == "2wikimqa" else {"chunk_tokens": 1000}
        args = {"pretrained": pretrained, "strategy": strategy, "request_log": str(log), **chunking}
        got = samples(evaluate("ape-hf", args, manager, task))
        assert [sample["arguments"] for sample in got] == [sample["arguments"] for sample in expected]
        records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        assert all(record["dropped_tokens"] == 0 for record in records)
        if strategy == "sequential":
            assert [sample["resps"] for sample in got] == [sample["resps"] for sample in expected]
        else:
            passages = [row["context"].count("\nPassage ") + 1 for row in rows(longbench_dir, name, 2)]
            chunks = [len(record["chunk_tokens"]) for record in records]
            assert chunks == passages if name == "2wikimqa" else all(chunks)


@pytest.mark.parametrize(
    ("name", "retrieval"),
    [
        ("2wikimqa", {"chunking": "passages", "retriever": "bm25", "max_chunks": 5}),
        ("2wikimqa", {"preset": "C200x20"}),
        ("multifieldqa_zh", {"preset": "C200x20"}),
        ("gov_report", {"preset": "C4000x20"}),
    ],
    ids=str,
)
def test_retrieved_chunks_of_real_rows_are_the_same_for_all_strategies(
    name: str, retrieval: dict[str, Any], longbench_dir: Path, reader: Callable[[Path], str], tmp_path: Path
) -> None:
    manager = TaskManager(
        include_path=str(TASKS_DIR), include_defaults=False, metadata={"longbench_dir": str(longbench_dir)}
    )
    records = {}
    for strategy in ("sequential", "ape"):
        log = tmp_path / f"{strategy}.jsonl"
        args = {"pretrained": reader(longbench_dir), "strategy": strategy, "request_log": str(log), **retrieval}
        evaluate("ape-hf", args, manager, f"ape_longbench_{name}")
        records[strategy] = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    most = retrieval.get("max_chunks", 20)
    for one, other in zip(*records.values(), strict=True):
        assert one["kept_chunks"] == other["kept_chunks"] == sorted(other["kept_chunks"])
        assert one["dropped_tokens"] == other["dropped_tokens"]
        assert len(other["chunk_tokens"]) == min(most, other["chunks"])
        assert (other["dropped_tokens"] > 0) == (other["chunks"] > most)
        assert one["query_tokens"] == other["prefix_tokens"] + sum(other["chunk_tokens"]) + other["query_tokens"]


def test_bm25_puts_the_passage_with_the_abstracts_words_first(longbench_dir: Path) -> None:
    from lm_eval_ape.prompts.chunking import cut_text
    from lm_eval_ape.prompts.retrieval import best_chunks

    found = []
    for row in rows(longbench_dir, "passage_retrieval_en", 20):
        starts = [0, *cut_text(row["context"], "passages", ""), len(row["context"])]
        passages = [row["context"][start:end] for start, end in pairwise(starts)]
        (best,) = best_chunks(passages, row["input"], 1)
        found.append(passages[best].startswith(f"{row['answers'][0]}:"))
    assert sum(found) >= 0.9 * len(found)


def test_the_harnesss_own_longbench_task_runs_unchanged(
    longbench_dir: Path, reader: Callable[[Path], str], tmp_path: Path
) -> None:
    local = [{**row, "question": row["input"]} for row in rows(longbench_dir, "2wikimqa", 2)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in local), encoding="utf-8")
    builtin = Path(lm_eval.tasks.__file__).parent / "longbench" / "2wikimqa.yaml"
    config = {
        "include": str(builtin),
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(file)}},
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    task = "longbench_2wikimqa"
    pretrained = reader(longbench_dir)
    expected = samples(evaluate("hf", {"pretrained": pretrained}, manager, task))
    for strategy in STRATEGIES:
        args = {"pretrained": pretrained, "strategy": strategy, "chunking": "passages"}
        got = samples(evaluate("ape-hf", args, manager, task))
        assert [sample["arguments"] for sample in got] == [sample["arguments"] for sample in expected]
        if strategy == "sequential":
            assert [sample["resps"] for sample in got] == [sample["resps"] for sample in expected]
