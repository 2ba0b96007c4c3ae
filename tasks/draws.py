"""Random choices that are the same on every machine and in every version of Python."""

import random
import uuid
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Draws:
    """Choices made from `random.Random(seed).random()` alone, whose sequence Python guarantees.

    Python does not guarantee that of `choice`, `shuffle` and `sample`.

    Args:
        seed: Text that distinguishes these choices from all others.
    """

    def __init__(self, seed: str) -> None:
        self._generator = random.Random(seed)

    def number(self, count: int) -> int:
        """A whole number from 0 to `count` - 1."""
        return int(self._generator.random() * count)

    def pick(self, items: Sequence[Item]) -> Item:
        """One of some items."""
        return items[self.number(len(items))]

    def order(self, count: int) -> list[int]:
        """The numbers from 0 to `count` - 1 in a random order."""
        keys = [self._generator.random() for _ in range(count)]
        return sorted(range(count), key=keys.__getitem__)

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """The items in a random order."""
        return [items[number] for number in self.order(len(items))]

    def identifier(self) -> str:
        """A random UUID, version 4."""
        parts = (self.number(2**32) for _ in range(4))
        return str(uuid.UUID(int=sum(part << 32 * place for place, part in enumerate(parts)), version=4))
