"""Sliding windows: which of a segment's keys queries see, by their positions, so that no others are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lm_eval_ape.attention.segments import Segment


class Sight(NamedTuple):
    """The keys of a segment that some query sees.

    Attributes:
        seen: Which of the segment's keys they are.
        mask: Which of them each query sees, boolean `(1, 1, queries, seen)`; None for all.
    """

    seen: slice | Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class Window:
    """A sliding window over positions, seen from the tail's last columns.

    Attributes:
        size: The layer's window, or None.
        start: Position of the tail's first column.
        tail: Columns of the tail so far; the queries are its last ones.
    """

    size: int | None
    start: int
    tail: int

    def hides(self, segment: Segment, queries: int) -> bool:
        """Whether no query sees any key of a segment."""
        return self.size is not None and self._first(queries) - segment.last >= self.size

    def cuts(self, segment: Segment) -> bool:
        """Whether some query does not see some key of a segment."""
        return self.size is not None and self._last - segment.first >= self.size

    def mask(self, segment: Segment, queries: int, device: torch.device) -> Tensor | None:
        """Which keys the queries see, boolean `(1, 1, queries, tokens)`; None for all."""
        return self._mask(segment.positions, queries).to(device) if self.cuts(segment) else None

    def sight(self, segment: Segment, queries: int, device: torch.device) -> Sight:
        """The keys that some query sees, so that no others are read."""
        if self.size is None or not self.cuts(segment):
            return Sight(slice(None), None)
        # The first query sees farthest back.
        seen = (self._first(queries) - segment.positions < self.size).nonzero().squeeze(1)
        mask = self._mask(segment.positions[seen], queries)
        start, stop = int(seen[0]), int(seen[-1]) + 1
        which = slice(start, stop) if stop - start == len(seen) else seen.to(device)
        return Sight(which, None if mask.all() else mask.to(device))

    @property
    def _last(self) -> int:
        """Position of the last query."""
        return self.start + self.tail - 1

    def _first(self, queries: int) -> int:
        """Position of the first query."""
        return self._last - queries + 1

    def _mask(self, positions: Tensor, queries: int) -> Tensor:
        assert self.size is not None
        places = torch.arange(self._first(queries), self._last + 1).unsqueeze(1)
        return (places - positions < self.size)[None, None]
