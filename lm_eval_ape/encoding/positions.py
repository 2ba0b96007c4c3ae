"""Where chunks stand: the position ids of context chunks that are encoded in parallel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def chunk_positions(lengths: Sequence[int], start: int, mode: str) -> list[Tensor]:
    """Give each chunk its position ids.

    Args:
        lengths: Tokens of each chunk, each at least 1.
        start: Position after the prefix.
        mode: `shared`, every chunk counts from `start` (APE, Yang et al. 2025); `stretched`, likewise but spread
            evenly, real-valued, to the longest chunk's length (Zhang et al. 2024); `serial`, one chunk after another,
            as in the sequential prompt.

    Returns:
        One `(tokens,)` tensor a chunk: float64 for `stretched`, int64 otherwise.
    """
    if mode == "serial":
        ends = torch.tensor(lengths).cumsum(0) + start
        return [torch.arange(end - length, end) for length, end in zip(lengths, ends.tolist(), strict=True)]
    if mode == "stretched":
        last = start + max(lengths) - 1
        return [torch.linspace(start, last if length > 1 else start, length, dtype=torch.float64) for length in lengths]
    return [torch.arange(start, start + length) for length in lengths]


def query_start(lengths: Sequence[int], start: int, mode: str) -> int:
    """Position of the first query token: one more than the largest chunk position."""
    return start + (sum(lengths) if mode == "serial" else max(lengths, default=0))
