"""Malformed input, kept in `cases/`: each is one sentence that names what was read and what to do, and nothing else.

A case has its content as `text` or `base64`, or is a valid file with one place changed (`edit`) or `remove`d.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from helpers import damage
from lm_eval_ape.artefacts import analysis_file, board_file, calibration_file
from lm_eval_ape.calibration.options import Options, read_file
from lm_eval_ape.cli import main
from lm_eval_ape.comparison.board import make_board
from lm_eval_ape.comparison.runs import read_folders
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.arguments import split_arguments
from lm_eval_ape.harness.specs import read_specs
from lm_eval_ape.settings import option_values as values
from lm_eval_ape.settings.option_values import arguments
from lm_eval_ape.tasks.longbench.data import load_longbench

SPECS: TypeAdapter[tuple[str, ...]] = TypeAdapter(values.Specs)

Case = dict[str, Any]
CASES = {
    path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for path in sorted((damage.FOLDER / "cases").glob("*.jsonl"))
}
NUMBERS = {"@nan": math.nan, "@inf": math.inf}


def content(case: Case, name: str) -> bytes:
    if "base64" in case:
        return base64.b64decode(case["base64"])
    if "text" in case:
        return str(case["text"]).encode()
    place, value = case["edit"] if "edit" in case else (case["remove"], damage.REMOVED)
    value = NUMBERS.get(value, value) if isinstance(value, str) else value
    return damage.written(name, damage.edited(damage.valid(name), place, value)).encode()


def of(*readers: str) -> pytest.MarkDecorator:
    pairs = [(reader, case) for reader in readers for case in CASES[reader]]
    ids = [f"{reader}: {case['name']}" for reader, case in pairs]
    return pytest.mark.parametrize(("reader", "case"), pairs, ids=ids)


def refused(case: Case, read: Callable[[], object], named: str = "") -> None:
    """Reading is one `ApeError` of one line, with the expected words and the name of what was read."""
    with pytest.raises(ApeError) as caught:
        read()
    sentence = str(caught.value)
    assert case["error"] in sentence
    assert named in sentence
    assert "\n" not in sentence.strip()
    assert len(sentence) < 1000


def test_there_are_enough_cases_and_every_file_of_them_is_used() -> None:
    assert sum(map(len, CASES.values())) >= 200
    read = {"board", "calibration", "analysis", "rows", "options", "model_arguments", "specs", *damage.RUN}
    assert read == CASES.keys()


@of("board", "calibration", "analysis")
def test_a_malformed_file_of_ours_is_a_sentence(reader: str, case: Case, tmp_path: Path) -> None:
    read = {"board": board_file.read, "calibration": calibration_file.read, "analysis": analysis_file.read}[reader]
    path = tmp_path / f"{reader}.json"
    path.write_bytes(content(case, reader))
    refused(case, lambda: read(path), str(path))


@of(*damage.RUN)
def test_a_malformed_file_of_a_run_is_a_sentence(reader: str, case: Case, tmp_path: Path) -> None:
    runs = damage.run_folder(tmp_path)
    (runs / "ape" / damage.RUN[reader]).write_bytes(content(case, reader))
    refused(case, lambda: make_board(read_folders([str(runs)]), resamples=99))


@of("rows")
def test_malformed_rows_of_a_data_set_are_a_sentence(reader: str, case: Case, tmp_path: Path) -> None:
    path = tmp_path / "2wikimqa.jsonl"
    path.write_bytes(content(case, reader))
    refused(case, lambda: load_longbench(longbench_dataset="2wikimqa", longbench_dir=str(tmp_path)), str(path))


@of("options")
def test_a_malformed_configuration_is_a_sentence(
    reader: str, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "options.yaml"
    path.write_bytes(content(case, reader))
    refused(case, lambda: Options.read(read_file(str(path))))
    assert not (tmp_path / "ran").exists()


@of("model_arguments")
def test_malformed_model_arguments_are_a_sentence(reader: str, case: Case) -> None:
    refused(case, lambda: split_arguments(arguments("model_args", case["text"])))


@of("specs")
def test_malformed_strategies_are_a_sentence(reader: str, case: Case) -> None:
    refused(case, lambda: read_specs(SPECS.validate_python(case["text"]), {"pretrained": "pocket"}))


@pytest.mark.parametrize("reader", ["board", "calibration", "analysis", *damage.RUN, "options"])
def test_the_command_line_prints_the_sentence_and_no_traceback(
    reader: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = next(case for case in CASES[reader] if case["name"] == ("cut off" if reader != "options" else "a tab"))
    if reader in damage.RUN:
        runs = damage.run_folder(tmp_path)
        (runs / "ape" / damage.RUN[reader]).write_bytes(content(case, reader))
        command = ["compare", "--from", str(runs)]
    elif reader == "options":
        path = tmp_path / "options.yaml"
        path.write_bytes(content(case, reader))
        command = ["calibrate", "--config", str(path)]
    else:
        (tmp_path / f"{reader}.json").write_bytes(content(case, reader))
        command = ["report", str(tmp_path)]
    assert main(command) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (sentence,) = [line for line in told.err.splitlines() if not line.startswith("Reading, drawing")]
    assert sentence.startswith(f"lm-eval-ape {command[0]}: ")
    assert case["error"] in sentence


@pytest.mark.parametrize("path", ["x" * 300, "/dev/null/report", "a/" * 3000])
def test_an_impossible_path_is_a_sentence(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--from", path]) == 2
    assert main(["report", path]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert path[:100] in errors


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval_ape.report.page.report", lambda *_: {}["nothing"])
    with pytest.raises(KeyError):
        main(["report", "x"])
