"""Several processes give what one gives, and end together when one of them fails."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import subprocess
from pathlib import Path
from typing import Any

import harness
import launcher
import pytest
import scale_out
import yaml

HERE = Path(__file__).parent
DATA = """
import json, pathlib, datasets
def load(**_):
    rows = json.loads(pathlib.Path(__file__).with_name("rows.json").read_text())
    return {"test": datasets.Dataset.from_list(rows)}
def single(**_):
    return {"test": load()["test"].select([0])}
def texts(**_):
    # One without a context, which is scored otherwise than the others, by one process alone.
    keep = lambda row, number: row | {"context": row["context"] * (number != 3)}
    return {"test": load()["test"].map(keep, with_indices=True)}
"""
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "toy_answer": ("generate_until", "load", {}),
    "toy_choice": ("multiple_choice", "load", {}),
    "toy_text": ("loglikelihood_rolling", "texts", {}),
    "toy_fewshot": ("generate_until", "load", {"num_fewshot": 1, "fewshot_split": "test"}),
    "toy_single": ("multiple_choice", "single", {}),
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five documents, and one of them alone."""
    folder = tmp_path_factory.mktemp("tasks")
    docs = harness.documents(5, passages=2, words=4)
    (folder / "rows.json").write_text(json.dumps(docs), encoding="utf-8")
    (folder / "data.py").write_text(DATA, encoding="utf-8")
    for name, (kind, load, more) in KINDS.items():
        config = harness.task(name, kind, [], **more)
        config.pop("custom_dataset")
        text = f"custom_dataset: !function data.{load}\n" + yaml.safe_dump(config)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def one(checkpoint: str, tasks: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a single process writes."""
    folder = tmp_path_factory.mktemp("one")
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            scale_out.main(checkpoint, tasks, str(folder))
    finally:
        logging.disable(logging.NOTSET)
    return folder


@pytest.fixture(scope="module")
def three(
    checkpoint: str, tasks: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """What three processes write, and print."""
    folder = tmp_path_factory.mktemp("three")
    return folder, launcher.torchrun(3, str(HERE / "scale_out.py"), checkpoint, tasks, str(folder))


def read(folder: Path, pattern: str) -> Any:
    (path,) = folder.glob(pattern)
    return json.loads(path.read_text(encoding="utf-8"))


Three = tuple[Path, "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("strategy", ["ape", "sequential"])
def test_three_processes_evaluate_as_one_to_the_last_digit(strategy: str, one: Path, three: Three) -> None:
    alone, together = read(one, f"{strategy}.*.json"), read(three[0], f"{strategy}.*.json")
    assert set(alone["samples"]) == set(KINDS)
    assert together == alone
