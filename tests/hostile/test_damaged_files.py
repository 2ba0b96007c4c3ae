"""A file with a wrong value anywhere is a sentence that names it, or is read and shown without any exception."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import damage
from helpers.property_profiles import examples
from helpers.undrawn import page
from lm_eval_ape.analysis import tables as analysis_tables
from lm_eval_ape.artefacts import analysis_file, board_file, calibration_file
from lm_eval_ape.calibration import tables
from lm_eval_ape.comparison import formats
from lm_eval_ape.comparison.board import make_board
from lm_eval_ape.comparison.runs import read_folders
from lm_eval_ape.errors import ApeError
from lm_eval_ape.report.model_card import card

KINDS = ("board", "calibration", "analysis")


def show_board(path: Path) -> None:
    board = board_file.read(path)
    formats.markdown(board), formats.comma_separated(board), page(board=board)


def show_calibration(path: Path) -> None:
    content = calibration_file.read(path)
    chosen = calibration_file.found(content)
    assert 0 < chosen.attn_temperature < math.inf
    assert 0 < chosen.attn_scale < math.inf
    card(content), tables.sentences(content), page(calibration=content)


def show_analysis(path: Path) -> None:
    content = analysis_file.read(path)
    analysis_tables.markdown(content), analysis_tables.comma_separated(content), page(analysis=content)


SHOWN: dict[str, Callable[[Path], None]] = {
    "board": show_board,
    "calibration": show_calibration,
    "analysis": show_analysis,
}


@pytest.mark.parametrize("name", KINDS)
def test_the_valid_files_are_read_and_shown(name: str) -> None:
    SHOWN[name](damage.VALID / f"{name}.json")


@pytest.mark.parametrize("name", KINDS)
@examples(15)
@given(data=st.data())
def test_a_wrong_value_is_a_sentence_or_is_shown(name: str, data: st.DataObject) -> None:
    content = data.draw(damage.damaged(name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.json"
        path.write_text(damage.written(name, content), encoding="utf-8")
        with contextlib.suppress(ApeError):
            SHOWN[name](path)


@pytest.mark.parametrize("name", damage.RUN)
@examples(20)
@given(data=st.data())
def test_a_wrong_value_in_a_run_is_a_sentence_or_comes_to_a_board(name: str, data: st.DataObject) -> None:
    content = data.draw(damage.damaged(name))
    with tempfile.TemporaryDirectory() as folder:
        runs = damage.run_folder(Path(folder))
        (runs / "ape" / damage.RUN[name]).write_text(damage.written(name, content), encoding="utf-8")
        try:
            board = make_board(read_folders([str(runs)]), resamples=99)
        except ApeError:
            return
        scores = [row.tasks["ape_pocket_twohop_test"].score for row in board.rows if row.tasks]
        assert all(isinstance(score, float) and math.isfinite(score) for score in scores)
        formats.markdown(board), formats.comma_separated(board)
