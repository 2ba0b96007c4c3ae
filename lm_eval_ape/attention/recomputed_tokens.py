"""Tokens of a context that are read once more, each with everything before it in view.

Prefix and context lie in one row of keys and values, each token at its position. The tokens that are recomputed put
their own new keys and values into their places, layer by layer, and attend to the row up to themselves: to frozen keys
and to new ones alike (CacheBlend, Yao et al. 2024).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lm_eval_ape.attention.attend import attend
from lm_eval_ape.attention.merge import Attended, merge, with_sinks
from lm_eval_ape.attention.row_statistics import Asked
from lm_eval_ape.attention.segments import BatchReading, Encoded, SegmentedLayer

# Queries are read in so many blocks, so that few keys of a block are hidden from some of its queries,
BLOCKS = 16
# but not in smaller ones than this.
BLOCK_QUERIES = 32


class RecomputedLayer(SegmentedLayer):
    """A layer of a pass over tokens that take their places in a row of keys and values.

    Args:
        reading: Which kernel serves, and where it is counted.
        index: The layer's number.
        keys: The row's keys, `(1, kv_heads, tokens, head_dim)`, which the pass changes.
        values: The row's values, likewise.
        places: Which tokens of the row pass, ascending, `(passing,)`, on the CPU.
        last: Whether nothing but the pass's keys and values is wanted of this layer.
    """

    def __init__(
        self, reading: BatchReading, index: int, *, keys: Tensor, values: Tensor, places: Tensor, last: bool
    ) -> None:
        super().__init__(reading, index)
        self.row = keys, values
        self.places = places
        self.last = last

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Put keys and values into their places in the row; end the pass if nothing else is wanted."""
        places = self.places.to(key_states.device)
        for row, new in zip(self.row, (key_states, value_states), strict=True):
            row.index_copy_(2, places, new.to(row.dtype))
        if self.last:
            raise Encoded
        keys: Any = key_states
        keys.lm_eval_ape_layer = self
        return keys, value_states

    def read(self, asked: Asked, window: int | None, sinks: Tensor | None) -> Tensor:
        """Attend to the row, each token up to itself.

        Args:
            asked: The passing tokens' queries.
            window: The layer's sliding window: a query sees keys less than this far before it.
            sinks: Learned attention-sink logits, one a head.

        Returns:
            `(1, heads, passing, head_dim)`.
        """
        parts = []
        for block in _blocks(len(self.places)):
            attended = merge(self._block(asked, block, window))
            parts.append((attended if sinks is None else with_sinks(attended, sinks)).out)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def _block(self, asked: Asked, block: slice, window: int | None) -> list[Attended]:
        """Attention of neighbouring queries: to keys that all of them see, and to those that only some see."""
        places = self.places[block]
        first, last = int(places[0]), int(places[-1])
        least, most = (0, 0) if window is None else (max(0, first - window + 1), max(0, last - window + 1))
        seen_by_all = slice(most, first + 1)
        groups = [self._attend(asked, block, seen_by_all, None)] if most <= first else []
        for keys in (slice(least, min(most, first + 1)), slice(max(first + 1, least), last + 1)):
            if keys.start < keys.stop:
                behind = places[:, None] - torch.arange(keys.start, keys.stop)
                visible = (behind >= 0) & (behind < (window or last + 1))
                groups.append(self._attend(asked, block, keys, visible[None, None].to(asked.query.device)))
        return groups

    def _attend(self, asked: Asked, block: slice, keys: slice, mask: Tensor | None) -> Attended:
        key, value = (side[:, :, keys] for side in self.row)
        return attend(
            asked.query[:, :, block],
            key,
            value,
            scaling=asked.scaling,
            mask=mask,
            softcap=asked.softcap,
            backend=self.reading.backend,
            used=self.reading.used,
        )


def _blocks(queries: int) -> list[slice]:
    size = max(BLOCK_QUERIES, -(-queries // BLOCKS))
    return [slice(first, min(first + size, queries)) for first in range(0, queries, size)]
