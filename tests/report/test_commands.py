"""`lm-eval-ape card` and `lm-eval-ape report` on folders that a calibration and a comparison have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.cli import main
from lm_eval_ape.report.model_card import card


def test_card_prints_the_card_of_a_calibrations_folder(
    calibration_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", str(calibration_folder)]) == 0
    assert capsys.readouterr().out == card(calibration_file.read(calibration_folder))


def test_card_refuses_a_board_of_other_settings_in_a_sentence(
    calibration_folder: Path, report_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", str(calibration_folder), "--board", str(report_folder)]) == 2
    streams = capsys.readouterr()
    assert not streams.out
    assert streams.err.startswith("lm-eval-ape card: The board has no row of ")
    assert len(streams.err.splitlines()) == 1


def test_report_writes_a_page_where_it_is_told_to_and_says_where(
    calibration_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(calibration_folder), "--output_path", str(tmp_path / "page")]) == 0
    assert str(tmp_path / "page" / "report.html") in capsys.readouterr().out
    assert "attn_temperature" in (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
