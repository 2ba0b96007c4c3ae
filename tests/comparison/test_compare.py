"""The command: strategies through the harness, in its layout, each run once."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.utils import make_table
from scipy import stats

from lm_eval_ape import __version__
from lm_eval_ape.cli import main
from lm_eval_ape.comparison import running
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.measured import MeasuredApeHFLM
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.errors import ApeError

Make = Callable[..., dict[str, Any]]
LABELS = ["sequential", "parallel", "ape[attn_temperature=0.5,attn_scale=0.7]"]


def board_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "board.json").read_text()))


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Strategies that the harness is asked to run."""
    seen: list[str] = []
    evaluate = running.simple_evaluate

    def spy(**given: Any) -> Any:
        seen.append(given["model_args"]["strategy"])
        return evaluate(**given)

    monkeypatch.setattr(running, "simple_evaluate", spy)
    return seen


def test_results_and_samples_lie_as_the_harness_lays_them(finished: Path) -> None:
    for folder, strategy in (("sequential", "sequential"), ("parallel", "parallel")):
        (results_file,) = (finished / folder).glob("*/results_*.json")
        results = json.loads(results_file.read_text())
        assert "|toy_choice|" in make_table(results)
        assert results["config"]["model"] == results["model_source"] == "ape-hf"
        assert results["config"]["model_args"]["strategy"] == strategy
        assert results["config"]["lm_eval_ape"]["strategy"] == strategy
        assert results["config"]["lm_eval_ape"]["version"] == __version__
        for task in ("toy_answer", "toy_choice"):
            date = results_file.stem.removeprefix("results_")
            lines = results_file.with_name(f"samples_{task}_{date}.jsonl").read_text().splitlines()
            assert len(lines) == results["n-samples"][task]["effective"] == 12


def test_the_board_holds_the_harnesss_scores_and_scipys_intervals(finished: Path) -> None:
    board = board_of(finished)
    assert [row["label"] for row in board["rows"]] == LABELS
    assert board["baseline"] == "sequential"
    for row in board["rows"]:
        for score in row["tasks"].values():
            reported = next(
                value for name, value in score["reported"].items() if name in ("acc,none", "exact_match,none")
            )
            assert score["score"] == pytest.approx(reported)
        stderr = row["tasks"]["toy_choice"]["reported"]["acc_stderr,none"]
        assert row["tasks"]["toy_choice"]["stderr"] == pytest.approx(stderr)
    raw = [[run["metrics"]["acc"] for run in sample["runs"].values()] for sample in board["samples"]["toy_choice"]]
    baseline, parallel, _ = np.array(raw).T
    expected = stats.bootstrap(
        (parallel, baseline),
        lambda a, b, axis: (a - b).mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=199,
        random_state=np.random.default_rng(1234),
    ).confidence_interval
    found = board["rows"][1]["tasks"]["toy_choice"]["difference"]
    assert found["mean"] == pytest.approx(parallel.mean() - baseline.mean())
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected))
    average = board["rows"][1]["average"]
    assert average["score"] == pytest.approx(np.mean([task["score"] for task in board["rows"][1]["tasks"].values()]))


def test_the_board_says_what_a_report_needs(finished: Path) -> None:
    board = board_of(finished)
    assert board["command"] == "lm-eval-ape compare"
    assert board["versions"]["lm_eval_ape"] == __version__
    row = board["rows"][2]
    assert row["settings"]["attn_temperature"] == 0.5
    assert row["command"].startswith("lm_eval --model ape-hf --model_args pretrained=")
    assert "attn_temperature=0.5,attn_scale=0.7 --tasks toy_answer,toy_choice" in row["command"]
    assert row["identity"]["model"]["weights_sha256"]
    costs = row["costs"]
    assert costs["chunks"]["mean"] == 3
    assert 0 < costs["prefill_seconds"]["median"] < costs["seconds"]["median"]
    assert costs["scoring_seconds"]["median"] > 0
    assert 1 <= costs["new_tokens"]["median"] <= 6
    assert costs["peak_memory_bytes"] > 2**20
    assert board["rows"][0]["costs"]["chunks"]["mean"] == 0
    sample = board["samples"]["toy_choice"][0]
    assert sample["prompt_end"].endswith("Answer:")
    assert {run["prediction"] for run in sample["runs"].values()} <= {"city", "the director", "no"}
    ours, parallel = (sample["runs"][label]["requests"] for label in ("sequential", "parallel"))
    assert sample["length"] == ours[0]["tokens"] == parallel[0]["tokens"]
    assert len(ours) == 3
    lengths = board["lengths"]
    assert lengths["unit"] == "tokens"
    assert sum(bucket["documents"] for bucket in lengths["buckets"]) == 24
    assert [len(scores) for scores in lengths["rows"].values()] == [len(lengths["buckets"])] * 3


def test_generated_tokens_are_counted_up_to_the_end(options: Make, finished: Path) -> None:
    requests = json.loads((finished / "parallel" / "run.json").read_text())["requests"]
    generated = [r for r in requests if r["task"] == "toy_answer"]
    assert len(generated) == 12
    assert all(1 <= r["new_tokens"] <= 6 and r["prefill_seconds"] <= r["seconds"] for r in generated)
    assert all(r["new_tokens"] is None for r in requests if r["task"] == "toy_choice")


def test_finished_strategies_are_not_run_again(options: Make, board_folder: Path, evaluated: list[str]) -> None:
    before = board_of(board_folder)
    compare(Options.read(options(output_path=str(board_folder), strategies="sequential,sink,parallel")))
    assert evaluated == ["sink"]
    after = board_of(board_folder)
    assert after["rows"][2]["tasks"] == before["rows"][1]["tasks"]
    assert after["rows"][2]["results_file"] == before["rows"][1]["results_file"].replace(
        str(Path(before["rows"][1]["results_file"]).parents[2]), str(board_folder)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"limit": 11},
        {"batch_size": 2},
        {"model_args": {"chunk_tokens": 20}},
        {"model_args": {"dtype": "float32"}},
        {"gen_kwargs": "max_gen_toks=2"},
        {"tasks": "toy_choice"},
    ],
)
def test_anything_else_is_run_again_and_nothing_is_mixed(
    options: Make, board_folder: Path, evaluated: list[str], change: dict[str, Any]
) -> None:
    given = options(output_path=str(board_folder), strategies="parallel", **change)
    board = compare(Options.read(given)).as_json()
    assert evaluated == ["parallel"]
    assert board is not None
    assert list(board["tasks"]) == given["tasks"].split(",")
    assert board["tasks"]["toy_choice"]["documents"] == (change.get("limit") or 12)
    # The older run is kept, and is no row of a board of this folder.
    assert len(list((board_folder / "parallel").glob("*/results_*.json"))) == 2
    again = compare(Options.read({"sources": [str(board_folder / "parallel")]})).as_json()
    assert again is not None
    assert [row["label"] for row in again["rows"]] == ["parallel"]


def test_a_damaged_or_unfinished_run_is_run_again(options: Make, board_folder: Path, evaluated: list[str]) -> None:
    (samples,) = (board_folder / "sequential").glob("*/samples_toy_choice_*.jsonl")
    samples.write_text(samples.read_text()[:-40])
    (board_folder / "parallel" / "run.json").write_text("{")
    compare(Options.read(options(output_path=str(board_folder), strategies="sequential,parallel")))
    assert evaluated == ["sequential", "parallel"]


def test_other_weights_under_the_same_name_are_another_model(
    options: Make, board_folder: Path, evaluated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = MeasuredApeHFLM.__init__

    def load_changed(self: MeasuredApeHFLM, *args: Any, **kwargs: Any) -> None:
        load(self, *args, **kwargs)
        next(self.model.parameters()).data.mul_(1.5)

    monkeypatch.setattr(MeasuredApeHFLM, "__init__", load_changed)
    compare(Options.read(options(output_path=str(board_folder), strategies="sequential")))
    assert evaluated == ["sequential"]


def test_a_strategy_that_fails_costs_no_finished_one(options: Make, tmp_path: Path) -> None:
    given = options(output_path=str(tmp_path), strategies="sequential,ape[context_field=passage]")
    with pytest.raises(ApeError, match=r"ape\[context_field=passage\]: .*Finished runs are kept in"):
        compare(Options.read(given))
    board = compare(Options.read({"sources": [str(tmp_path)]})).as_json()
    assert board is not None
    assert [row["label"] for row in board["rows"]] == ["sequential"]


def test_a_calibration_and_a_chat_template_reach_the_model(
    options: Make, checkpoint: str, tmp_path: Path, evaluated: list[str]
) -> None:
    from lm_eval_ape.calibration.options import Options as CalibrationOptions
    from lm_eval_ape.calibration.run import calibrate

    base = options(output_path=str(tmp_path / "calibration"), num_tokens=1, limit=2, temperatures="0.7", scales="0.6")
    base.pop("strategies")
    calibrate(CalibrationOptions.read({**base, "resamples": 99}))
    given = options(output_path=str(tmp_path / "board"), limit=2, apply_chat_template=True)
    given["strategies"] = f"sequential,ape@{tmp_path / 'calibration'}"
    board = compare(Options.read(given)).as_json()
    assert board is not None
    settings = board["rows"][1]["settings"]
    assert (settings["attn_temperature"], settings["attn_scale"]) == (0.7, 0.6)
    assert all("<|user|>" in sample["prompt_end"] for sample in board["samples"]["toy_answer"])
    compare(Options.read(given))
    assert len(evaluated) == 2


def test_mistakes_are_told_before_any_weight_is_loaded(
    options: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MeasuredApeHFLM, "__init__", lambda *_, **__: pytest.fail("loaded"))
    for change, sentence in (
        ({"strategies": "sequential,appe"}, "Did you mean 'ape'"),
        ({"strategies": "sequential,ape@no/such"}, "no/such"),
        ({"model_args": {"device": "cpu"}}, "which has a flag of its own: --device"),
        ({"metric": "f1"}, "toy_answer has no metric f1; it has: exact_match"),
        ({"baseline": "hf"}, "There is no row 'hf' to be the baseline"),
        ({"sources": [str(tmp_path / "none")]}, "There is no run in"),
        ({"output_path": str(Path(__file__) / "board")}, "cannot be made"),
    ):
        with pytest.raises(ApeError) as error:
            compare(Options.read(options(**{"output_path": str(tmp_path / "out"), **change})))
        assert sentence in str(error.value)


def test_the_command_prints_the_table_and_writes_each_format(
    options: Make, board_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = options(output_path=str(board_folder), strategies="sequential,parallel")
    model = ",".join(f"{name}={value}" for name, value in given.pop("model_args").items())
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    flags[flags.index("--include_path") + 1] = given["include_path"][0]
    assert main(["compare", "--model_args", model, *flags, "--verbose"]) == 0
    out, err = capfd.readouterr()
    assert "toy_choice" in out
    assert "≈" in out
    assert "Loading" not in out
    assert "[2/2] parallel: T=1 S=1 chunking=passages; finished before" in err
    markdown = (board_folder / "board.md").read_text()
    assert "|toy_choice" in markdown
    assert "|-" in markdown
    assert "### Costs" in markdown
    assert "### Scores by length of the prompt, tokens" in markdown
    assert "lm-eval-ape compare --model_args" in markdown
    with (board_folder / "board.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["task"], line["strategy"]) for line in lines] == [
        (task, label) for label in LABELS[:2] for task in ("toy_answer", "toy_choice", "average")
    ]
    board = board_of(board_folder)
    assert float(lines[4]["score"]) == board["rows"][1]["tasks"]["toy_choice"]["score"]
    assert float(lines[4]["p_value"]) == board["rows"][1]["tasks"]["toy_choice"]["difference"]["p_value"]
    assert lines[0]["difference"] == ""


def test_a_mistake_on_the_command_line_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--model_args", "dtype=float16", "--tasks", "t"]) == 2
    assert capfd.readouterr().err.startswith("lm-eval-ape compare: model_args must name the model")


def test_help_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    script = """
import sys
from lm_eval_ape.cli.compare import build_parser
assert "examples:" in build_parser().format_help()
assert not {"torch", "lm_eval", "scipy", "numpy"} & set(sys.modules), sorted(sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
