"""Pieces kept where the model computed them, up to so many bytes; the least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict

from lm_eval_ape.encoding.piece_layers import Layers, alone, size


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
        # A list of its own: the one who puts pieces together uses it up.
        return list(layers)

    def put(self, key: str, layers: Layers) -> None:
        """Keep a piece, and let go of others as far as the limit asks for it."""
        needed = size(layers)
        if needed > self.limit or key in self._pieces:
            return
        while self.bytes + needed > self.limit:
            _, old = self._pieces.popitem(last=False)
            self.bytes -= size(old)
        self._pieces[key] = [(alone(keys), alone(values)) for keys, values in layers]
        self.bytes += needed

    def clear(self) -> None:
        """Let go of everything."""
        self._pieces.clear()
        self.bytes = 0
