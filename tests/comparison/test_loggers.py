"""Logging to W&B and Trackio: through the harness's loggers, one run a strategy and one for the board."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from lm_eval import loggers as harness_loggers

from lm_eval_ape.comparison import loggers
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.measured import MeasuredApeHFLM
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.errors import ApeError
from lm_eval_ape.report.page import report

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """A stand-in with the names of trackio that the harness's logger calls."""
    calls: list[tuple[str, Any]] = []
    module = types.ModuleType("trackio")
    module.__spec__ = ModuleSpec("trackio", None)
    module.init = lambda **given: calls.append(("init", given))  # type: ignore[attr-defined]
    module.log = lambda values, step=None: calls.append(("log", values))  # type: ignore[attr-defined]
    module.finish = lambda: calls.append(("finish", None))  # type: ignore[attr-defined]
    module.Trace = lambda **given: given  # type: ignore[attr-defined]
    module.config = {}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", module)
    return calls


def test_each_strategy_is_a_run_of_the_group_and_so_is_the_board(
    options: Make, tmp_path: Path, trackio: list[tuple[str, Any]]
) -> None:
    given = options(output_path=str(tmp_path / "mine"), tasks="toy_choice", limit=2, strategies="sequential,parallel")
    board = compare(Options.read({**given, "trackio_args": ["project=p", "space_id=s"]})).as_json()
    assert board is not None
    opened = [given for kind, given in trackio if kind == "init"]
    assert [run["name"] for run in opened] == ["sequential", "parallel", "board"]
    assert {(run["group"], run["project"], run["space_id"]) for run in opened} == {("mine", "p", "s")}
    assert sum(kind == "finish" for kind, _ in trackio) == 3
    logged = [values for kind, values in trackio if kind == "log"]
    assert logged[0]["toy_choice/acc"] == board["rows"][0]["tasks"]["toy_choice"]["score"]
    traces = [values["toy_choice/sample"] for values in logged if "toy_choice/sample" in values]
    assert len(traces) == 4
    assert all("Question:" in trace["messages"][0]["content"] for trace in traces)
    scores = {row["label"]: row["tasks"]["toy_choice"]["score"] for row in board["rows"]}
    assert logged[-1] == {f"toy_choice/{label}": score for label, score in scores.items()}


def test_a_missing_package_is_told_before_the_model_is_loaded(
    options: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MeasuredApeHFLM, "__init__", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    for name in ("wandb", "trackio"):
        with pytest.raises(ApeError, match=f"{name}_args needs the package {name}, .* pip install {name}"):
            compare(Options.read(options(output_path=str(tmp_path), **{f"{name}_args": "project=p"})))
    with pytest.raises(ApeError, match="wandb_config_args goes with wandb_args"):
        Options.read(options(output_path=str(tmp_path), wandb_config_args="a=1"))


def test_a_logger_that_fails_loses_nothing(
    options: Make, tmp_path: Path, trackio: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(harness_loggers.TrackioLogger, "log_eval_result", fail)
    given = options(output_path=str(tmp_path), tasks="toy_choice", limit=2, strategies="sequential")
    assert compare(Options.read({**given, "trackio_args": "project=p"})) is not None
    assert (tmp_path / "board.json").is_file()
    assert sum(kind == "finish" for kind, _ in trackio) == 2


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb, which no extra installs")
def test_wandb_keeps_runs_board_and_report_offline(
    options: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    warned: list[Any] = []
    monkeypatch.setattr(loggers.logger, "warning", lambda *parts: warned.append(parts))
    given = options(output_path=str(tmp_path / "mine"), tasks="toy_choice", limit=2, strategies="sequential,parallel")
    assert compare(Options.read({**given, "wandb_args": "project=p"}), report=report) is not None
    assert warned == []
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 3
    assert all(list(run.glob("*.wandb")) for run in runs)
    assert (tmp_path / "mine" / "report.html").is_file()
