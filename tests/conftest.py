"""Shared fixtures. Nothing here or in any test reaches the network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from torch.utils import collect_env

# Tiny models gain nothing from threads, and test processes side by side lose much.
torch.set_num_threads(1)

import pytest  # noqa: E402

from helpers import property_profiles, tiny  # noqa: E402

property_profiles.load()


@pytest.fixture(scope="session", autouse=True)
def machine_described_once() -> Iterator[None]:
    """The harness describes the machine in every results file, which takes half a second, and pip, each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect_env, "get_pretty_env_info", cache(collect_env.get_pretty_env_info))
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama in float64 with its tokenizer, on disk as a checkpoint from the hub would be."""
    return tiny.save_checkpoint(tmp_path_factory.mktemp("llama"), dtype=torch.float64)


REPOSITORY = Path(__file__).resolve().parents[1]
DATA_VARIABLE = "LM_EVAL_APE_TEST_DATA"


def _data_folder(name: str) -> Path:
    root = Path(os.environ.get(DATA_VARIABLE, REPOSITORY.parent / "shared" / "data"))
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"needs official data in {folder}; {DATA_VARIABLE} names another root folder")
    return folder


@pytest.fixture
def longbench_dir() -> Path:
    """Folder of official LongBench `.jsonl` files, maybe partial, and of `config/`."""
    return _data_folder("longbench")


@pytest.fixture
def longbench_preds() -> Path:
    """Folder of predictions for all 21 datasets and of their official scores, `result.json`."""
    return _data_folder("longbench/preds/llama3-8b-instruct")
