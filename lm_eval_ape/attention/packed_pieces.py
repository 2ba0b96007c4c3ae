"""Pieces of text packed in one row without padding: all of a layer but its attention passes over their tokens at once.

The attention takes pieces of about the same length together, as rows of a batch that is padded to the longest. A prefix
that other pieces of the row see may stand in front of them in the row itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from weakref import ref

import torch
from torch import Tensor

from lm_eval_ape.attention.segments import BatchReading, SegmentedCache, SegmentedLayer


class PiecesTogether:
    """Neighbouring pieces of a packed row that attend together.

    Args:
        reading: What each of them reads beside itself, and how; its rows are the pieces.
        first: Their first token's number in the row.
        lengths: Tokens of each piece.
    """

    def __init__(self, reading: BatchReading, first: int, lengths: Sequence[int]) -> None:
        self.reading = reading
        self.first = first
        self.lengths = tuple(lengths)
        self.width = max(self.lengths)
        self._moved: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def rows(self, packed: Tensor) -> Tensor:
        """The pieces' own part of a packed row, one piece a row; padding repeats a piece's last token.

        Args:
            packed: `(1, heads, tokens, width)`.

        Returns:
            `(pieces, heads, longest piece, width)`; a view where all pieces are as long as another.
        """
        own = packed[0, :, self.first : self.first + sum(self.lengths)].transpose(0, 1)
        if not self._alike:
            own = own.index_select(0, self._on(packed.device)[0])
        return own.unflatten(0, (len(self.lengths), self.width)).transpose(1, 2)

    def packed(self, rows: Tensor) -> Tensor:
        """The inverse of `rows`, without the padding: `(1, heads, tokens of the pieces, width)`."""
        own = rows.transpose(1, 2).flatten(0, 1)
        if not self._alike:
            own = own.index_select(0, self._on(rows.device)[1])
        return own.transpose(0, 1).unsqueeze(0)

    def mask(self, window: int | None, device: torch.device) -> Tensor | None:
        """What a sliding window leaves of causal attention, `(1, 1, longest, longest)`; None where that is all."""
        if window is None or self.width <= window:
            return None
        visible = torch.ones(self.width, self.width, dtype=torch.bool, device=device)
        return visible.tril().triu(1 - window)[None, None]

    @property
    def _alike(self) -> bool:
        return min(self.lengths) == self.width

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of each place in the padded rows its token, counted from the pieces' first, and of each token its place.

        They go to a device once, not in every layer, which the host would wait for.
        """
        if device not in self._moved:
            lengths, places = torch.tensor(self.lengths).unsqueeze(1), torch.arange(self.width)
            tokens = (lengths.cumsum(0) - lengths + places.minimum(lengths - 1)).flatten()
            self._moved[device] = tokens.to(device), (places < lengths).flatten().nonzero().squeeze(1).to(device)
        return self._moved[device]


class PackedLayer(SegmentedLayer):
    """A layer of a pass over pieces that are packed in one row.

    Args:
        reading: Which kernel serves, and where it is counted.
        index: The layer's number.
        together: The pieces, in the order of the row, by those that attend together.
    """

    def __init__(self, reading: BatchReading, index: int, *, together: Sequence[PiecesTogether]) -> None:
        super().__init__(reading, index)
        self.together = together


class PartOfRow(Sequence[Tensor]):
    """Keys or values of some tokens of a packed row, layer by layer, each there once the pass has come to it.

    Args:
        cache: The row's cache. It holds what reads this, so this holds it weakly.
        side: Which of the two.
        tokens: Which tokens.
    """

    def __init__(self, cache: SegmentedCache, side: Literal["keys", "values"], tokens: slice) -> None:
        self._cache = ref(cache)
        self._side = side
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, layer: Any) -> Any:
        """A layer's, `(1, kv_heads, tokens, width)`."""
        return getattr(self._layers[layer], self._side)[:, :, self._tokens]

    @property
    def _layers(self) -> list[Any]:
        cache = self._cache()
        assert cache is not None
        return cache.layers
