"""Folders are made or told about; files are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.files import make_folder, read_json, write_text


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    with pytest.raises(ApeError, match="cannot be made"):
        make_folder(Path(__file__) / "below a file")


def test_a_failed_write_leaves_the_older_file(tmp_path: Path) -> None:
    file = tmp_path / "board.json"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\ud800")
    assert file.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b""])
def test_what_is_no_json_is_told_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    file.write_bytes(content)
    with pytest.raises(ApeError, match=r"The calibration .* cannot be read: .*\. Calibrate again\."):
        read_json(file, "calibration", "Calibrate again.")
