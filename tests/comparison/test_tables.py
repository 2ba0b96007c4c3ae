"""What the tables say of a board."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lm_eval_ape.artefacts import board_file
from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.comparison.tables import tables
from lm_eval_ape.errors import ApeError


@pytest.mark.parametrize(
    ("mean", "higher", "noise", "mark"),
    [(0.1, True, False, "▲"), (-0.1, True, False, "▼"), (0.1, False, False, "▼"), (0.1, True, True, "≈")],
)
def test_a_difference_is_marked_by_direction_and_noise(
    finished: Path, mean: float, higher: bool, noise: bool, mark: str
) -> None:
    board = json.loads((finished / "board.json").read_text())
    board["tasks"]["toy_choice"]["higher_is_better"] = higher
    score = board["rows"][1]["tasks"]["toy_choice"]
    score["difference"] = {"mean": mean, "low": -0.2, "high": 0.3, "p_value": 0.0002, "within_noise": noise}
    score["kept"] = 0.876
    table = tables(Board.model_validate(board))[0]
    shown = [f"{100 * mean:+.2f}", "[-20.00, +30.00]"] if higher else [f"{mean:+.4f}", "[-0.2000, +0.3000]"]
    assert table.rows[-2][-5:] == [*shown, "<0.001", mark, "88%"]
    assert ("losses (↓) as they are, ± standard error" in table.caption) == (not higher)


def test_losses_are_shown_in_their_own_unit(finished: Path) -> None:
    board = json.loads((finished / "board.json").read_text())
    for fact in board["tasks"].values():
        fact["higher_is_better"] = False
    board["rows"][0]["tasks"]["toy_choice"] |= {"score": 5.92657958, "stderr": 0.25}
    scores = tables(Board.model_validate(board))[0]
    row = next(row for row in scores.rows if row[0] == "toy_choice")
    assert row[5:7] == ["5.9266", "± 0.2500"]
    assert scores.caption.startswith("Losses ± standard error")


def test_settings_that_all_rows_share_are_said_once(finished: Path) -> None:
    scores = tables(board_file.read(finished / "board.json"))[0]
    assert [row[2] for row in scores.rows[:3]] == ["one sequence", "T=1 S=1", "T=0.5 S=0.7"]
    assert scores.caption.endswith("All that cut the context: chunking=passages.")


def test_runs_that_disagree_about_a_metrics_direction_are_refused(run_hf: Callable[..., Path], tmp_path: Path) -> None:
    lower = {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": False}]}
    run_hf(tmp_path / "up")
    run_hf(tmp_path / "down", **lower)
    sources = [str(tmp_path / name) for name in ("up", "down")]
    with pytest.raises(ApeError, match="do not agree whether a higher acc of toy_choice is better"):
        compare(Options.read({"sources": sources}))


def test_without_a_common_direction_there_is_no_average(finished: Path) -> None:
    from lm_eval_ape.comparison.board import make_board
    from lm_eval_ape.comparison.runs import read_folders

    runs = read_folders([str(finished)])
    for run in runs:
        run.results.higher_is_better["toy_answer"]["exact_match"] = False
    board = make_board(runs, resamples=99).as_json()
    assert all(row["average"] is None for row in board["rows"])
    assert "There is no average: a higher score is better in some tasks and worse in others." in board["notes"]
    assert board["rows"][0]["tasks"]["toy_answer"]["kept"] is None
    assert tables(Board.model_validate(board))[0].rows[0][0] == "toy_answer"
