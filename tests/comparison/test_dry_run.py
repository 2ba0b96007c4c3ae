"""`compare --dry_run`: what is told is what the strategies then read, and nothing is touched for it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import harness
from lm_eval_ape.cli import main
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.dry_run import dry_run
from lm_eval_ape.comparison.loggers import Loggers
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.comparison.running import Strategies
from lm_eval_ape.engine.operations import ModelShape
from lm_eval_ape.errors import ApeError
from lm_eval_ape.forecast import measuring

Make = Callable[..., dict[str, Any]]
DATA = """
import json, pathlib, datasets
def load(**_):
    rows = json.loads(pathlib.Path(__file__).with_name("rows.json").read_text())
    return {"test": datasets.Dataset.from_list(rows)}
def score(doc, results):
    return {"acc": float(results[0] < -1)}
"""
TEXTS = """
task: toy_texts
custom_dataset: !function data.load
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "Read.\\n{{context}}\\nThe end."
process_results: !function data.score
metric_list: [{metric: acc}]
metadata: {version: 1.0}
"""
LABELS = ["sequential", "parallel", "ape[attn_temperature=0.5,attn_scale=0.7]"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are not looked at."""
    monkeypatch.setattr(measuring, "ROUNDS", 1)


def records(folder: Path) -> dict[str, dict[str, Any]]:
    found = (json.loads(file.read_text()) for file in folder.glob("*/run.json"))
    return {record["label"]: record for record in found}


def test_what_is_told_is_what_the_strategies_then_read(options: Make, finished: Path) -> None:
    told = dry_run(Options.read(options(output_path="not_made")))
    ran = records(finished)
    prompts, tokens = 0, 0
    for label in LABELS:
        answered = [one for one in ran[label]["requests"] if one["new_tokens"] is not None]
        (row,) = [row for row in told.rows if row.name == f"{label}: prompts read"]
        assert row.prompts == len(answered)
        assert row.tokens == sum(one["tokens"] - one["dropped_tokens"] for one in answered)
        (scored,) = [row for row in told.rows if row.name == f"{label}: answers scored"]
        # Continuations that differ in the last token alone are read as one row.
        assert 0 < scored.prompts <= sum(one["new_tokens"] is None for one in ran[label]["requests"])
        prompts, tokens = prompts + row.prompts + scored.prompts, tokens + row.tokens + scored.tokens
    assert (told.prompts, told.tokens) == (prompts, tokens)
    assert not Path("not_made").exists()


def test_operations_of_the_strategies_are_those_of_the_formulas(options: Make, finished: Path, checkpoint: str) -> None:
    told = {row.name: row for row in dry_run(Options.read(options(output_path="x"))).rows}
    shape = ModelShape.of(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint)))
    own: dict[str, float] = defaultdict(float)
    for label in LABELS:
        for one in records(finished)[label]["requests"]:
            if one["new_tokens"] is not None and label == "sequential":
                own[label] += shape.forward(one["tokens"], one["tokens"] / 2) + shape.head
            elif one["new_tokens"] is not None:
                own[f"{label}, tokens"] += one["tokens"]
    assert told["sequential: prompts read"].operations == pytest.approx(own["sequential"])
    # Chunks see less than a sequence does, and no token is read twice.
    for label in LABELS[1:]:
        least = 2 * shape.layer_parameters * own[f"{label}, tokens"]
        assert least < told[f"{label}: prompts read"].operations < own["sequential"]
    new = told["sequential: tokens generated"].new_tokens
    generated = told["sequential: tokens generated"].operations
    steps = new - 12
    assert generated > steps * (2 * shape.layer_parameters + shape.head)


def test_divergences_and_reference_answers_have_their_parts(options: Make) -> None:
    given = options(output_path="x", tasks="toy_answer", kl_tokens=2, kl_limit=5, answer_nats=True)
    told = {row.name: row for row in dry_run(Options.read(given)).rows}
    assert told["KL: teacher"].prompts == 5
    for label in LABELS[1:]:
        assert told[f"{label}, KL: 1 point scored"].prompts == 5
    for label in LABELS:
        assert told[f"{label}, reference: answers scored"].prompts == 12
    assert "sequential, KL: 1 point scored" not in told


def test_whole_texts_are_counted(checkpoint: str, tmp_path: Path) -> None:
    docs = harness.documents(3, words=3)
    (tmp_path / "rows.json").write_text(json.dumps(docs), encoding="utf-8")
    (tmp_path / "data.py").write_text(DATA, encoding="utf-8")
    (tmp_path / "texts.yaml").write_text(TEXTS, encoding="utf-8")
    given = {
        "model_args": {"pretrained": checkpoint, "chunking": "passages", "dtype": "float32"},
        "tasks": "toy_texts",
        "include_path": [str(tmp_path)],
        "strategies": ["sequential", "sink", "recompute"],
        "output_path": str(tmp_path / "board"),
        "device": "cpu",
    }
    told = {row.name: row for row in dry_run(Options.read(given)).rows}
    strategies = Strategies(Options.read(given), Loggers(Options.read(given), None), scored=False)
    strategies.run()
    for label, record in records(tmp_path / "board").items():
        row = told[f"{label}: whole texts scored"]
        assert row.prompts == 3
        if record["requests"]:
            assert row.tokens == sum(one["tokens"] for one in record["requests"])
    shape = ModelShape.of(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint)))
    whole = told["sequential: whole texts scored"]
    assert whole.operations > whole.tokens * (2 * shape.layer_parameters + shape.head)


def test_more_tokens_asked_for_are_more_tokens_counted(options: Make) -> None:
    few, many = (
        dry_run(Options.read(options(output_path="x", tasks="toy_answer", gen_kwargs=f"max_gen_toks={new}")))
        for new in (1, 5)
    )
    assert [row.new_tokens for row in few.rows if "generated" in row.name] == [12] * 3
    assert [row.new_tokens for row in many.rows if "generated" in row.name] == [60] * 3
    assert all(row.operations == 0 for row in few.rows if "generated" in row.name)


def test_the_line_for_scripts_is_the_last_and_nothing_is_written(
    toy_tasks: Path,
    checkpoint: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--model_args", f"pretrained={checkpoint},chunking=passages", "--tasks", "toy_choice"]
    arguments += ["--include_path", str(toy_tasks), "--device", "cpu", "--limit", "3", "--output_path", "board"]
    assert main(["compare", *arguments, "--dry_run"]) == 0
    shown = capfd.readouterr()
    told = json.loads(shown.out.splitlines()[-1])
    assert told["command"] == "compare"
    assert told["prompts"] == sum(part["prompts"] for part in told["parts"])
    assert "answers scored" in shown.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given",
    [
        {"strategies": "no_such_strategy"},
        {"baseline": "no such row"},
        {"metric": "no_such_metric"},
        {"model_args": {"pretrained": "no/such/model"}},
    ],
)
def test_what_a_comparison_refuses_is_refused_in_the_same_words(
    options: Make, given: dict[str, Any], tmp_path: Path
) -> None:
    asked = Options.read(options(**{"output_path": str(tmp_path / "board"), **given}))
    told = []
    for work in (compare, dry_run):
        with pytest.raises(ApeError) as refused:
            work(asked)
        told.append(str(refused.value))
    assert told[0] == told[1]


def test_a_board_of_finished_runs_alone_has_no_forecast(finished: Path) -> None:
    with pytest.raises(ApeError, match="no model is named"):
        dry_run(Options.read({"sources": [str(finished)]}))
