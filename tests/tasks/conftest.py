"""Official LongBench data for the tests that want it; they are skipped where it is not."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DATA_VARIABLE = "LM_EVAL_APE_TEST_DATA"


def _data_folder(name: str) -> Path:
    root = Path(os.environ.get(DATA_VARIABLE, REPOSITORY.parent / "shared" / "data"))
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"needs official data in {folder}; {DATA_VARIABLE} names another root folder")
    return folder


@pytest.fixture
def longbench_dir() -> Path:
    """Folder of official `.jsonl` files, maybe partial, and of `config/`."""
    return _data_folder("longbench")


@pytest.fixture
def longbench_preds() -> Path:
    """Folder of predictions for all 21 datasets and of their official scores, `result.json`."""
    return _data_folder("longbench/preds/llama3-8b-instruct")
