"""A point: one temperature T with one scale S, and the two points that everything is compared with."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Point(NamedTuple):
    """One (T, S).

    Attributes:
        temperature: T, which divides the logits of context keys.
        scale: S, which weighs the context in the merge.
    """

    temperature: float
    scale: float

    def __str__(self) -> str:
        return f"(T={self.temperature:g}, S={self.scale:g})"


DEFAULT = Point(0.9, 0.9)
"""APE's untuned setting (Yang et al., ICLR 2025)."""
NEUTRAL = Point(1.0, 1.0)
"""Ordinary attention over chunks that were encoded apart."""
Granularity = Literal["model", "layer", "head"]
"""What has a T and S of its own."""
