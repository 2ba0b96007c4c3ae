"""The command line: instant help, one sentence for a mistake, and the demo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lm_eval_ape import __version__
from lm_eval_ape.cli import COMMANDS, main

HEAVY = ("torch", "transformers", "lm_eval", "numpy", "scipy", "datasets", "matplotlib", "rich")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS if name != "run")], ids="-".join)
def test_help_teaches_and_imports_nothing_heavy(command: list[str]) -> None:
    script = f"""
import contextlib, io, json, sys
from lm_eval_ape.cli import main
out = io.StringIO()
with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
    main({[*command, "--help"]!r})
heavy = sorted({{name.split(".")[0] for name in sys.modules}} & set({HEAVY!r}))
print(json.dumps({{"heavy": heavy, "help": out.getvalue()}}))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = json.loads(result.stdout)
    assert found["heavy"] == []
    assert "usage: lm-eval-ape" in found["help"]
    assert "example" in found["help"] or "same evaluation" in found["help"]


def test_run_hands_its_arguments_to_the_harness(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "--help"])
    assert end.value.code == 0
    assert "--include_path" in capsys.readouterr().out


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_a_mistake_is_one_sentence_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model_args", "pretrained=pocket,chunkng=passages", "--tasks", "ape_pocket_onehop_test"]
    assert main(["calibrate", *arguments]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("lm-eval-ape calibrate: ape-hf has no argument 'chunkng'. Did you mean 'chunking'?")


def test_paths_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paths"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert {name for name, _ in lines} == {"tasks", "run_configs", "pocket"}
    assert all(Path(path).is_dir() for _, path in lines)
    assert main(["paths", "pocket"]) == 0
    assert (Path(capsys.readouterr().out.strip()) / "model.safetensors").is_file()


def test_the_demo_calibrates_compares_and_reports(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["demo", "--limit", "4", "--passages", "4", "--output_path", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for strategy in ("sequential", "parallel", "sink", "ape"):
        assert strategy in out
    assert "±" in out
    assert "attn_temperature=" in " ".join(out.split())
    assert str(tmp_path / "report.html") in out.replace("\n", "")
    assert (tmp_path / "board" / "board.json").is_file()
    assert (tmp_path / "calibration" / "calibration.json").is_file()
    assert "ape_pocket_twohop_test" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", [["--fewshot_dir", "x"], ["--model", "smollm2", "--passages", "4"]])
def test_the_demo_refuses_what_belongs_to_the_other_model(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *option]) == 2
    assert "drop it, or give that model" in capsys.readouterr().err


def test_a_further_process_of_the_demo_leaves_table_and_page_to_the_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("lm_eval_ape.cli.demo.calibrate", lambda *_: {})
    monkeypatch.setattr("lm_eval_ape.comparison.compare.compare", lambda *_: None)
    assert main(["demo", "--output_path", str(tmp_path)]) == 0
    assert not capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_hub_that_cannot_be_reached_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(_: list[str]) -> int:
        raise ConnectionError("Couldn't reach 'some/data' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr("lm_eval_ape.cli.paths.main", unreachable)
    assert main(["paths"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("lm-eval-ape paths: Couldn't reach 'some/data' on the Hub (OfflineModeIsEnabled). ")
    assert told.count("\n") == 1


def test_a_reader_that_goes_away_is_no_mistake_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(_: list[str]) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("lm_eval_ape.cli.paths.main", cut_off)
    with pytest.raises(BrokenPipeError):
        main(["paths"])


@pytest.mark.usefixtures("own_tasks_alone")
def test_a_task_that_the_harness_does_not_know_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model_args", "pretrained=pocket", "--tasks", "ape_pocket_onehopp", "--limit", "1"]) == 2
    assert "lm-eval-ape run: Tasks not found: ape_pocket_onehopp. `lm_eval ls tasks` lists" in capsys.readouterr().err
