"""Small tasks, a finished comparison of them, and a run of the harness's own `hf`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.loggers import EvaluationTracker

from helpers import harness
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.folder import save
from lm_eval_ape.comparison.options import Options

DATA = """
import json, pathlib, datasets
def load(**_):
    rows = json.loads(pathlib.Path(__file__).with_name("rows.json").read_text())
    return {"test": datasets.Dataset.from_list(rows)}
"""
STRATEGIES = "sequential,parallel,ape[attn_temperature=0.5,attn_scale=0.7]"
DOCS = harness.documents(12, words=3)

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def toy_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toy_answer`, which generates, and `toy_choice`, over the same twelve documents."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rows.json").write_text(json.dumps(DOCS), encoding="utf-8")
    (folder / "data.py").write_text(DATA, encoding="utf-8")
    for name, kind in (("toy_answer", "generate_until"), ("toy_choice", "multiple_choice")):
        config = harness.task(name, kind, [])
        config.pop("custom_dataset")
        text = "custom_dataset: !function data.load\n" + yaml.safe_dump(config)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def options(toy_tasks: Path, checkpoint: str) -> Make:
    """Options of a small comparison, some of them replaced."""

    def make(model_args: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
        model = {"pretrained": checkpoint, "dtype": "float64", "chunking": "passages", **(model_args or {})}
        shared = {"tasks": "toy_answer,toy_choice", "include_path": [str(toy_tasks)], "device": "cpu"}
        return {"model_args": model, **shared, "strategies": STRATEGIES, "resamples": 199, **given}

    return make


@pytest.fixture(scope="session")
def finished(options: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("board")
    compare(Options.read(options(output_path=str(folder))), command=["lm-eval-ape", "compare"])
    return folder


@pytest.fixture
def board_folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished comparison."""
    return Path(shutil.copytree(finished, tmp_path / "board"))


@pytest.fixture(scope="session")
def run_hf(checkpoint: str) -> Callable[..., Path]:
    """Run the harness's `hf` on `toy_choice` as `lm_eval --log_samples` does, and return the results file."""

    def run(folder: Path, docs: list[dict[str, Any]] = DOCS, **config: Any) -> Path:
        tracker = EvaluationTracker(output_path=str(folder))
        results = harness.evaluate(
            "hf",
            {"pretrained": checkpoint},
            harness.task("toy_choice", "multiple_choice", docs, **config),
            evaluation_tracker=tracker,
        )
        return save(results, results.pop("samples"), tracker)

    return run


@pytest.fixture(scope="session")
def hf_run(run_hf: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one such run, on the same documents."""
    return run_hf(tmp_path_factory.mktemp("hf")).parent.parent
