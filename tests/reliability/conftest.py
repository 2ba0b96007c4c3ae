"""Work that is small enough to be stopped at every write."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure

from helpers import harness
from lm_eval_ape.calibration.grid import measure
from lm_eval_ape.calibration.objective import teacher
from lm_eval_ape.comparison import measured
from lm_eval_ape.comparison.measured import MeasuredApeHFLM
from lm_eval_ape.comparison.memory import PeakMemory
from lm_eval_ape.display.plot_style import save
from lm_eval_ape.harness.ape_hf import ApeHFLM


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`toy` and `toy_test`, multiple choice over two documents and one."""
    folder = tmp_path_factory.mktemp("tasks")
    data = "from helpers import harness\nimport datasets\n"
    for name, part in (("toy", "[:2]"), ("toy_test", "[2:]")):
        data += f"def {name}(**_): return {{'test': datasets.Dataset.from_list(harness.documents(3, 2, 3){part})}}\n"
        config = harness.task(name, "multiple_choice", [])
        config.pop("custom_dataset")
        text = f"custom_dataset: !function data.{name}\n" + yaml.safe_dump(config)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "data.py").write_text(data, encoding="utf-8")
    return str(folder)


class Plain(Figure):
    """A figure that costs nothing to draw."""

    def savefig(self, file: Path, **_: Any) -> None:
        file.write_text("figure")


@pytest.fixture
def given(tasks: str, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options that the commands share; the model is loaded once, before any fork, and clocks stand still."""
    model = {"pretrained": checkpoint, "dtype": "float64", "chunking": "passages"}
    loaded = {kind: kind.create_from_arg_obj(model, {"device": "cpu"}) for kind in (ApeHFLM, MeasuredApeHFLM)}
    for kind, lm in loaded.items():
        monkeypatch.setattr(kind, "create_from_arg_obj", lambda *_, _lm=lm, **__: _lm)
    monkeypatch.setattr(measured, "now", lambda device: 0.0)
    monkeypatch.setattr(teacher, "now", lambda device: 0.0)
    monkeypatch.setattr(measure, "now", lambda device: 0.0)
    monkeypatch.setattr(PeakMemory, "bytes", 0)
    # The names of the harness's files are dates: standing still, a strategy that is run again writes the same ones.
    moment = type("Moment", (datetime,), {"now": classmethod(lambda kind, *_: kind(2026, 1, 1))})
    monkeypatch.setattr("lm_eval.loggers.evaluation_tracker.datetime", moment)
    # Seconds of asking the machine for its packages.
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)
    monkeypatch.setattr("lm_eval_ape.calibration.figures.all_figures", lambda _: {"kl_surface": Plain()})
    monkeypatch.setattr("lm_eval_ape.analysis.figures.draw", lambda _, folder: save(Plain(), folder, "entropy"))
    return {"model_args": model, "tasks": "toy", "include_path": tasks, "device": "cpu"}


@pytest.fixture
def no_work(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever loads a model or trains one fails the test."""
    for kind in (ApeHFLM, MeasuredApeHFLM):
        monkeypatch.setattr(kind, "create_from_arg_obj", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr("pocket_training.train.Trainer", lambda *_: pytest.fail("trained"))
