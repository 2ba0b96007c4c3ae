"""Pieces kept where the model computed them, up to so many bytes; the least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

# Keys and values of each layer, `(1, kv_heads, tokens, head_dim)`.
Layers = list[tuple[Tensor, Tensor]]


def size(layers: Layers) -> int:
    """Bytes of a piece's keys and values."""
    return sum(tensor.nbytes for pair in layers for tensor in pair)


class MemoryStore:
    """The pieces in memory.

    Args:
        limit: Most bytes; a piece that alone has more is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._pieces: OrderedDict[str, Layers] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pieces)

    def get(self, key: str) -> Layers | None:
        """A piece, which is then the most recently used one."""
        if (layers := self._pieces.get(key)) is None:
            return None
        self._pieces.move_to_end(key)
        # A list of its own: whoever puts pieces together uses it up.
        return list(layers)

    def put(self, key: str, layers: Layers) -> None:
        """Keep a piece, and let go of others as far as the limit asks for it."""
        needed = size(layers)
        if needed > self.limit or key in self._pieces:
            return
        while self.bytes + needed > self.limit:
            _, old = self._pieces.popitem(last=False)
            self.bytes -= size(old)
        # Copies: a slice of a batch would keep the whole batch alive.
        self._pieces[key] = [(alone(keys), alone(values)) for keys, values in layers]
        self.bytes += needed

    def clear(self) -> None:
        """Let go of everything."""
        self._pieces.clear()
        self.bytes = 0


def alone(tensor: Tensor) -> Tensor:
    """The tensor, contiguous in memory that nothing else lies in; itself if it lies there already."""
    is_alone = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if is_alone else tensor.clone(memory_format=torch.contiguous_format)
