"""Layers of a model in words: `all`, `last:2`, or numbers from 0 and ranges of them like `3+8-11`."""

from __future__ import annotations

import re
from collections.abc import Callable

from lm_eval_ape.errors import ApeError

ALL_LAYERS = "all"
_LAST = re.compile(r"last:([1-9]\d*)")
_RANGES = re.compile(r"\d+(-\d+)?(\+\d+(-\d+)?)*")


def read_layers(words: str) -> Callable[[int], tuple[int, ...]]:
    """What some words say of a model with so many layers.

    Args:
        words: `all`, `last:N`, or numbers and ranges joined by `+`.

    Returns:
        Gives, for a model's number of layers, the numbers of those that are meant, ascending.

    Raises:
        ApeError: The words say nothing; or, of the function, they name a layer that the model does not have.
    """
    if words == ALL_LAYERS:
        return lambda count: tuple(range(count))
    if found := _LAST.fullmatch(words):
        return lambda count: _known(words, tuple(range(count - int(found[1]), count)), count)
    if not _RANGES.fullmatch(words):
        raise ApeError(
            f"recompute_layers must be all, last:N, or numbers from 0 and ranges like 3+8-11, but got {words!r}."
        )
    numbers: set[int] = set()
    for part in words.split("+"):
        first, _, last = part.partition("-")
        if int(last or first) < int(first):
            raise ApeError(f"recompute_layers={words}: {part} ends before it begins.")
        numbers |= set(range(int(first), int(last or first) + 1))
    return lambda count: _known(words, tuple(sorted(numbers)), count)


def _known(words: str, layers: tuple[int, ...], count: int) -> tuple[int, ...]:
    if layers[0] < 0 or layers[-1] >= count:
        raise ApeError(f"recompute_layers={words}, but the model has {count} layers, numbered from 0.")
    return layers
