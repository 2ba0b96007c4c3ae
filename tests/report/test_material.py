"""What a report is made of: found in folders, checked, and told in a sentence where it cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.cli import main
from lm_eval_ape.comparison.compare import write
from lm_eval_ape.errors import ApeError
from lm_eval_ape.report.material import find
from lm_eval_ape.report.warnings import warnings


def test_boards_and_calibrations_are_found_below_the_folders_each_once(
    board: dict[str, Any], calibration_folder: Path, tmp_path: Path
) -> None:
    write(tmp_path / "deep" / "board", Board.model_validate(board))
    found = find([str(tmp_path), str(tmp_path / "deep" / "board" / "board.json"), str(calibration_folder)])
    assert [one.path.parent for one in found.boards] == [tmp_path / "deep" / "board"]
    assert [one.path.parent for one in found.calibrations] == [calibration_folder]


def test_nothing_found_says_what_was_looked_for_and_what_makes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    for part in (
        f"none of board.json, calibration.json, analysis.json in {tmp_path}",
        "lm-eval-ape compare",
        "lm-eval-ape calibrate",
    ):
        assert part in told
    with pytest.raises(ApeError, match="There is no folder"):
        find([str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[:-50], "cannot be read"),
        (lambda text: "[1, 2]", "is no board that this version can read: the file must be object"),
        (lambda text: '{"schema_version": 99}', "has schema version 99, and this lm-eval-ape reads up to 1"),
        (lambda text: text.replace('"rows"', '"lines"', 1), "has no 'rows'"),
        (lambda text: text.replace('"stderr"', '"error"', 1), "has no 'stderr'"),
        (lambda text: text.replace('"prompt_end"', '"end"', 1), "has no 'prompt_end'"),
    ],
)
def test_a_board_that_is_damaged_foreign_or_newer_is_a_sentence(
    board: dict[str, Any], tmp_path: Path, change: Callable[[str], str], sentence: str
) -> None:
    write(tmp_path, Board.model_validate(board))
    file = tmp_path / "board.json"
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ApeError) as error:
        find([str(tmp_path)])
    assert sentence in str(error.value)
    assert str(file) in str(error.value)


def test_what_is_missing_or_does_not_fit_is_said(
    board: dict[str, Any], calibration_folder: Path, tmp_path: Path
) -> None:
    for row in board["rows"]:
        row["kl"] = None
        for score in (*row["tasks"].values(), row["average"]):
            if score:
                score["kl"] = None
    board["rows"][1]["versions"] = {"lm_eval_ape": "0.0.9"}
    board["rows"][1]["device"] = "cuda"
    write(tmp_path, Board.model_validate(board))
    told = "\n".join(warnings(find([str(tmp_path), str(calibration_folder)])))
    assert board["notes"][0] in told
    for part in ("No KL was measured", "not all made with the same versions", "different devices", "other weights"):
        assert part in told
    assert "no times and no memory" in told
    assert "There is no calibration.json" in "\n".join(warnings(find([str(tmp_path)])))
    assert "There is no board.json" in "\n".join(warnings(find([str(calibration_folder)])))


def test_a_calibration_alone_makes_a_page_and_no_name_is_mathematics(
    calibration_folder: Path, board: dict[str, Any], tmp_path: Path
) -> None:
    from lm_eval_ape.report.page import report

    page = report([str(calibration_folder)], str(tmp_path / "page")).read_text(encoding="utf-8")
    assert 'id="calibration"' in page
    assert 'id="board"' not in page
    assert "chosen by KL (T=" in page
    names = {path.name for path in (tmp_path / "page" / "figures").iterdir()}
    assert names == {
        f"{name}_1.{kind}" for name in ("kl_surface", "bootstrap", "kl_and_label") for kind in ("png", "svg")
    }
    assert json.loads((calibration_folder / "calibration.json").read_text())["schema_version"] == 1


def test_figures_hold_hostile_names_as_text_and_identifiers_of_their_own(report_folder: Path) -> None:
    import re

    page = (report_folder / "report.html").read_text(encoding="utf-8")
    drawn = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    assert len(drawn) == 6
    assert any("onerror=window.hacked=1&gt;&lt;!-- $x_{1}$" in svg for svg in drawn)
    assert not re.search(r"<(script|img)\b", "".join(drawn))
    identifiers = [name for svg in drawn for name in re.findall(r'\sid="([^"]+)"', svg)]
    assert len(identifiers) == len(set(identifiers))
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page)
