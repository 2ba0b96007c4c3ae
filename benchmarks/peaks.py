"""The memory that a benchmark's rivals need."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any

import torch

from lm_eval_ape.comparison.memory import PeakMemory

MIB = 2**20


def peak(work: Callable[[], Any], device: str) -> float:
    """MiB that the process needs at most while it works, its model included (on CUDA, that are allocated)."""
    gc.collect()
    if device == "cpu":
        # Otherwise memory that was freed but not given back would hide what the work needs.
        ctypes.CDLL(None).malloc_trim(0)
    memory = PeakMemory.begin(torch.device(device))
    work()
    return memory.bytes / MIB
