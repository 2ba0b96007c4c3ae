"""The time that work on a device takes, by a clock that waits for it."""

from __future__ import annotations

from time import perf_counter

import torch


def now(device: torch.device) -> float:
    """Seconds of a clock, read once the device has done what it was given."""
    # Where CUDA was never started, no work of its waits (and it may not even be there).
    if device.type == "cuda" and torch.cuda.is_initialized():
        torch.cuda.synchronize(device)
    return perf_counter()
