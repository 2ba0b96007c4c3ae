"""Small samples and models for calibrations."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from helpers import harness, tiny
from lm_eval_ape.harness.ape_hf import ApeHFLM

CALIBRATION = "ape_longbench_2wikimqa_calibration"


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder in LongBench's form: 36 short rows of 2wikimqa, 32 for calibration and 4 for test."""
    folder = tmp_path_factory.mktemp("longbench")
    docs = harness.documents(36, passages=3, words=6)
    with (folder / "2wikimqa.jsonl").open("w", encoding="utf-8") as file:
        for number, doc in enumerate(docs):
            row = {"_id": str(number), "input": doc["question"], "context": doc["context"], "length": 30}
            row |= {"answers": [doc["choices"][doc["answer"]]], "all_classes": None, "language": "en"}
            file.write(json.dumps({**row, "dataset": "2wikimqa"}) + "\n")
    return str(folder)


@pytest.fixture(scope="session")
def float32_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama in float32."""
    return tiny.save_checkpoint(tmp_path_factory.mktemp("llama32"), dtype=torch.float32)


@pytest.fixture
def options(rows: str, checkpoint: str) -> Callable[..., dict[str, Any]]:
    """Options of a small calibration, some of them replaced."""

    def make(model_args: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
        model = {"pretrained": checkpoint, "dtype": "float64", "chunk_tokens": 40, **(model_args or {})}
        metadata = {"longbench_dir": rows}
        small = {"num_tokens": 3, "limit": 4, "temperatures": "0.8,0.9,1.0", "scales": "0.7,1.0", "device": "cpu"}
        return {"model_args": model, "tasks": [CALIBRATION], "metadata": metadata, **small, **given}

    return make


@pytest.fixture
def flags(options: Callable[..., dict[str, Any]]) -> Callable[..., list[str]]:
    """The same as a command line."""

    def make(model_args: dict[str, Any] | None = None, **given: Any) -> list[str]:
        line = []
        for name, value in options(model_args, **given).items():
            if value is None:
                continue
            if isinstance(value, bool):
                line += [f"--{name}"] if value else []
                continue
            text = value
            if name == "model_args":
                text = ",".join(f"{key}={setting}" for key, setting in value.items())
            elif isinstance(value, dict):
                text = json.dumps(value)
            elif isinstance(value, list):
                text = ",".join(value)
            line += [f"--{name}", str(text)]
        return line

    return make


@pytest.fixture
def load(checkpoint: str) -> Callable[..., ApeHFLM]:
    """Load the float64 model with settings."""

    def make(**model_args: Any) -> ApeHFLM:
        return ApeHFLM(**{"pretrained": checkpoint, "dtype": "float64", "device": "cpu", **model_args})

    return make


DATA = """
import json, pathlib, datasets
def load(part):
    rows = json.loads(pathlib.Path(__file__).with_name("rows.json").read_text())
    return {"test": datasets.Dataset.from_list(rows[:6] if part == "calibration" else rows[6:])}
def calibration(**_): return load("calibration")
def test(**_): return load("test")
"""
TASK = """
task: toy_{part}
custom_dataset: !function data.{part}
test_split: test
output_type: multiple_choice
doc_to_text: {prompt}
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}]
metadata: {{version: 2.0}}
"""


@pytest.fixture(scope="session")
def toy_tasks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user's own folder of tasks: multiple choice, 6 documents to calibrate on and 5 to test on."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rows.json").write_text(json.dumps(harness.documents(11, passages=2, words=5)), encoding="utf-8")
    (folder / "data.py").write_text(DATA, encoding="utf-8")
    for part in ("calibration", "test"):
        text = TASK.format(part=part, prompt=json.dumps(harness.PROMPT))
        (folder / f"{part}.yaml").write_text(text, encoding="utf-8")
    return str(folder)
