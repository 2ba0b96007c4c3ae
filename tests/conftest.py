"""Shared fixtures. Nothing here or in any test reaches the network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).parent))

import torch

# Tiny models gain nothing from threads, and test processes side by side lose much.
torch.set_num_threads(1)

import pytest  # noqa: E402
import tiny  # noqa: E402


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama in float64 with its tokenizer, on disk as a checkpoint from the hub would be."""
    return tiny.save_checkpoint(tmp_path_factory.mktemp("llama"), dtype=torch.float64)
