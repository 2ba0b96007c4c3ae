"""Per-token KL of a comparison: what the calibration measures, kept with the run, and never part of its costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.calibration.grid.scoring import Scorer
from lm_eval_ape.comparison import running
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.comparison.tables import tables

Make = Callable[..., dict[str, Any]]
APE = "ape[attn_temperature=0.5,attn_scale=0.7]"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many evaluations and how many prompts a command costs."""
    counts = {"runs": 0, "prompts": 0}
    evaluate, score = running.simple_evaluate, Scorer.score

    def count_run(**given: Any) -> Any:
        counts["runs"] += 1
        return evaluate(**given)

    def count_prompt(self: Scorer, *args: Any, **given: Any) -> Any:
        counts["prompts"] += 1
        return score(self, *args, **given)

    monkeypatch.setattr(running, "simple_evaluate", count_run)
    monkeypatch.setattr(Scorer, "score", count_prompt)
    return counts


def board_with_kl(options: Make, folder: Path, **given: Any) -> dict[str, Any]:
    found = compare(Options.read(options(output_path=str(folder), **{"kl_tokens": 3, **given}))).as_json()
    assert found is not None
    return found


def test_asking_for_kl_later_computes_only_that_and_asking_again_nothing(
    options: Make, board_folder: Path, work: dict[str, int]
) -> None:
    before = json.loads((board_folder / "parallel" / "run.json").read_text())
    board = board_with_kl(options, board_folder)
    # Both tasks have the same twelve prompts; two strategies cut them.
    assert work == {"runs": 0, "prompts": 24}
    assert json.loads((board_folder / "parallel" / "run.json").read_text()) == before
    again = board_with_kl(options, board_folder)
    assert work == {"runs": 0, "prompts": 24}
    assert again["samples"] == board["samples"]
    # What is there is shown, also where it was not asked for.
    unasked = compare(Options.read({"sources": [str(board_folder)], "resamples": 199})).as_json()
    assert unasked is not None
    assert {row["label"] for row in unasked["rows"] if row["kl"]} == {"parallel", APE}


def test_a_boards_kl_is_the_calibrations_token_by_token(options: Make, board_folder: Path, tmp_path: Path) -> None:
    from lm_eval_ape.calibration.options import Options as CalibrationOptions
    from lm_eval_ape.calibration.run import calibrate

    board = board_with_kl(options, board_folder)
    given = options(output_path=str(tmp_path), num_tokens=3, history="teacher", temperatures="0.5", scales="0.7")
    given.pop("strategies")
    content = calibrate(CalibrationOptions.read(given)).as_json()
    at = content["grid"]["points"].index([0.5, 0.7])
    expected = {(sample["task"], sample["doc_id"]): sample["kl"][at] for sample in content["samples"]}
    for task, samples in board["samples"].items():
        for sample in samples:
            (prompt,) = sample["runs"][APE]["kl"]
            assert fmean(prompt["nats"]) == pytest.approx(expected[task, sample["doc_id"]], abs=1e-12)
            assert len(prompt["tokens"]) == len(prompt["nats"]) <= 3
            assert sample["runs"]["sequential"]["kl"] is None
        row = next(row for row in board["rows"] if row["label"] == APE)
        means = [expected[task, sample["doc_id"]] for sample in samples]
        assert row["tasks"][task]["kl"]["mean"] == pytest.approx(np.mean(means))
        assert row["tasks"][task]["kl"]["documents"] == 12
    assert row["average"]["kl"]["mean"] == pytest.approx(np.mean(list(expected.values())))
    scores = tables(Board.model_validate(board))[0]
    assert scores.headers[-1] == "KL"
    assert [line[-1] for line in scores.rows[:1]] == ["0"]
    assert scores.rows[2][-1] == f"{row['average']['kl']['mean']:.3g}"
    assert f"{row['average']['kl']['mean']:.3g}" in (board_folder / "board.md").read_text()
    assert "kl_mean" in (board_folder / "board.csv").read_text().splitlines()[0]


def test_a_kl_of_another_run_or_prompt_is_not_shown(options: Make, board_folder: Path) -> None:
    board_with_kl(options, board_folder)
    file = board_folder / "parallel" / "kl.json"
    content = json.loads(file.read_text())
    content["samples"][0]["prompt_sha256"] = "0" * 64
    file.write_text(json.dumps(content))
    found = compare(Options.read({"sources": [str(board_folder)], "resamples": 199})).as_json()
    assert found is not None
    assert found["rows"][1]["tasks"]["toy_answer"]["kl"]["documents"] == 11
    assert any("the KL of parallel is over 11 of 12 documents" in note for note in found["notes"])
    content["identity"]["run"] = {}
    file.write_text(json.dumps(content))
    other = compare(Options.read({"sources": [str(board_folder)], "resamples": 199})).as_json()
    assert other is not None
    assert other["rows"][1]["kl"] is None


def test_a_limit_measures_the_first_documents_and_the_board_says_so(
    options: Make, board_folder: Path, work: dict[str, int]
) -> None:
    board = board_with_kl(options, board_folder, strategies="sequential,parallel", kl_limit=5)
    assert work == {"runs": 0, "prompts": 5}
    measured = [sample["doc_id"] for sample in board["samples"]["toy_choice"] if sample["runs"]["parallel"]["kl"]]
    assert measured == [0, 1, 2, 3, 4]
    assert board["rows"][1]["tasks"]["toy_choice"]["kl"]["documents"] == 5
    share = "5 of 12 documents (asked for were the first 5 of each task)"
    assert f"toy_answer, toy_choice: the KL of parallel is over {share}." in board["notes"]


def test_different_numbers_of_tokens_are_told(options: Make, board_folder: Path) -> None:
    board_with_kl(options, board_folder, strategies="sequential,parallel", kl_tokens=2)
    board_with_kl(options, board_folder, strategies=f"sequential,{APE}")
    found = compare(Options.read({"sources": [str(board_folder)], "resamples": 199})).as_json()
    assert found is not None
    told = f"KLs are over different numbers of tokens (2 of parallel, 3 of {APE}) and cannot be compared."
    assert told in found["notes"]


def test_whole_texts_have_no_next_token_and_the_board_says_so(options: Make, toy_tasks: Path, tmp_path: Path) -> None:
    import shutil

    import yaml

    from helpers import harness

    folder = Path(shutil.copytree(toy_tasks, tmp_path / "tasks"))
    config = harness.task("toy_text", "loglikelihood_rolling", [])
    config.pop("custom_dataset")
    config["metric_list"] = [{"metric": "acc"}]
    config["process_results"] = "!!"
    text = "custom_dataset: !function data.load\n" + yaml.safe_dump(config)
    text = text.replace("process_results: '!!'", "process_results: !function data.score")
    (folder / "toy_text.yaml").write_text(text, encoding="utf-8")
    (folder / "data.py").write_text(
        (folder / "data.py").read_text() + "\ndef score(doc, results):\n    return {'acc': float(results[0] < -1)}\n"
    )
    board = board_with_kl(
        options,
        tmp_path / "board",
        tasks="toy_text,toy_choice",
        include_path=[str(folder)],
        limit=2,
        strategies="sequential,parallel",
    )
    told = "toy_text scores whole texts, so there is no next token to measure the KL of parallel at."
    assert told in board["notes"]
    assert board["rows"][1]["tasks"]["toy_text"]["kl"] is None
    assert board["rows"][1]["tasks"]["toy_choice"]["kl"]["documents"] == 2
