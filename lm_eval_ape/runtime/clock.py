"""The time that work on a device takes, told by a clock that waits for it."""

from __future__ import annotations

from time import perf_counter

import torch


def now(device: torch.device) -> float:
    """Seconds of a clock, read once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()
