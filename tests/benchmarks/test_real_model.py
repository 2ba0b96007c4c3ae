"""The benchmark of a real model runs at a tiny size, goes on where it stopped, and reads its tables off the files."""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from conftest import REPOSITORY

from lm_eval_ape.cli import main

LABELS = ("person", "number", "place")
TINY = [
    *("--rows", "2", "--few_rows", "2", "--samples", "2", "--search_samples", "2", "--few_samples", "2"),
    *("--fit_samples", "2", "--probe", "1", "--examples", "6", "6", "--more_examples", "8", "--chunks", "2"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows of 2WikiMultihopQA, TREC and BANKING77, made up, of each as many as parts need."""
    folder = tmp_path / "data"
    rows: dict[str, list[dict[str, Any]]] = {
        "longbench/2wikimqa": [
            {
                "input": f"Who made film {number}?",
                "context": "\n".join(f"Passage {at}:\nFilm {at} was made by person {at}." for at in range(1, 10)),
                "answers": [f"person {number}"],
                **{"length": 60, "dataset": "2wikimqa", "language": "en", "all_classes": None, "_id": str(number)},
            }
            for number in range(36)
        ]
    }
    for split in ("train", "test"):
        texts = [(f"Which {label} is {split} {number}?", label) for number in range(14) for label in LABELS]
        rows[f"fewshot/trec/{split}"] = [
            {"text": text, "label": 0, "label_text": label, "label_coarse_text": label} for text, label in texts
        ]
        rows[f"fewshot/banking77/{split}"] = [{"text": text, "label": 0, "label_text": label} for text, label in texts]
    for name, content in rows.items():
        file = folder / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return folder


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, with commands that run in this process and small made-up tasks."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    module = importlib.import_module("real_model")

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        assert command[1:3] == ["-m", "lm_eval_ape"]
        with redirect_stdout(sys.stderr):
            return SimpleNamespace(returncode=main(command[3:]))

    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run))
    sizes = {"perplexity_path": "python", "perplexity_tokens": 80, "perplexity_query_tokens": 10}
    made_up = {"keyvalue": {"keyvalue_pairs": 3}, "needle": {"needle_words": 40}, "perplexity": sizes}
    monkeypatch.setattr(module, "MADE_UP", made_up)
    monkeypatch.setattr(module, "WIDE", "0.5,0.9,1.0")
    monkeypatch.setattr(module, "STRATEGIES", ("sequential", "sink", "recompute[recompute=0.15]"))
    monkeypatch.setattr(module, "SELECTORS", ("query", "random"))
    monkeypatch.setattr(module, "SHARES", ("0.3",))
    return module


@pytest.mark.slow
def test_every_part_gives_its_tables_and_a_second_run_reads_them_again(  # noqa: PLR0917 (fixtures)
    bench: ModuleType,
    data: Path,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--data", str(data), "--output_path", str(tmp_path / "out"), "--model_args", f"pretrained={checkpoint}"]
    monkeypatch.setattr(sys, "argv", ["real_model.py", *given, *TINY, "--dtype", "float32"])
    bench.main()
    tables = capsys.readouterr().out
    for part in bench.PARTS:
        assert f"### {part}\n" in tables
    assert all(f"| `{strategy}` |" in tables for strategy in bench.STRATEGIES)
    # Each table has cells, and each command is told with the place of the data left open.
    assert '--metadata \'{"fewshot_dir": "DIR/fewshot"' in tables
    assert not [line for line in tables.splitlines() if line.startswith("|") and "nan" in line]
    monkeypatch.setattr(bench, "subprocess", None)
    bench.main()
    assert capsys.readouterr().out == tables


@pytest.mark.parametrize(
    ("given", "words"),
    [(["nothing"], "there is no part 'nothing': there are retrieved"), ([], "has no folder longbench")],
)
def test_what_is_impossible_is_said_first(  # noqa: PLR0917 (fixtures)
    bench: ModuleType,
    given: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ["--data", str(tmp_path), "--output_path", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["real_model.py", *given, *where])
    with pytest.raises(SystemExit):
        bench.main()
    assert words in capsys.readouterr().err


def test_a_command_that_fails_ends_the_benchmark_with_a_sentence(
    bench: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["--data", str(data), "--output_path", str(tmp_path / "out"), "--model_args", "pretrained=nowhere.gguf"]
    monkeypatch.setattr(sys, "argv", ["real_model.py", "protocol", *given, *TINY])
    with pytest.raises(SystemExit, match="protocol/0 ended with status 2; its own words stand above"):
        bench.main()
    assert not list((tmp_path / "out").rglob("finished.json"))
