"""The paper's tables, filled in from two runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.errors import ApeError
from paper_table import main


def test_the_protocol_fills_the_papers_tables(
    flags: Callable[..., list[str]], toy_tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toys = {"tasks": ["toy_calibration"], "include_path": [toy_tasks], "limit": 2, "test_limit": 2}
    free = {"num_tokens": None, "temperatures": None, "scales": None, "output_path": str(tmp_path), "batch_size": 4}
    assert main(flags(**toys, **free)) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "paper_table.md").read_text(encoding="utf-8") == text
    runs = {name: calibration_file.read(tmp_path / name).as_json() for name in ("k1", "k8")}
    assert [len(run["labels"]["points"]) for run in runs.values()] == [25, 49]
    rows = {line.split(" | ")[0].lstrip("| "): line.strip("| ").split(" | ") for line in text.splitlines()}
    for title, run, name in (("KL, K=8", "k8", "chosen"), ("label-tuned", "k1", "label_tuned")):
        found = next(row for row in runs[run]["test"]["rows"] if row["name"] == name)
        assert rows[title][1:3] == [f"{value:g}" for value in found["point"]]
        assert float(rows[title][4]) == pytest.approx(100 * found["score"], abs=0.005)
    assert rows["APE default"][6:] == ["0.9", "0.9", "0.088", "48.99", "+2.76"]
    assert text.count("holds") + text.count("does not hold") >= 7


def test_what_the_protocol_fixes_is_refused(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    with pytest.raises(ApeError, match="fixes num_tokens"):
        main(flags(output_path=str(tmp_path)))
