"""A batch that memory cannot hold is done in smaller and smaller pieces."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

Done = TypeVar("Done")


def in_pieces(
    work: Callable[[slice], Done],
    rows: int,
    size: Callable[[], int | None],
    make_room: Callable[[int, RuntimeError], None],
) -> list[Done]:
    """Do a batch's work, row by row in order, as many rows at a time as memory allows.

    Args:
        work: Does some neighbouring rows.
        rows: How many rows there are.
        size: Most rows at a time, asked before each piece; None for all.
        make_room: Called where a piece does not fit, with its rows and the error; what it does must let a further try
            succeed sooner or later (free memory, lower `size`), or it raises.

    Returns:
        What `work` gave for each piece.
    """
    done: list[Done] = []
    first = 0
    while first < rows:
        piece = min(size() or rows, rows - first)
        try:
            done.append(work(slice(first, first + piece)))
            first += piece
            continue
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            make_room(piece, error)
        # Outside of the handler, whose traceback would keep the failed piece alive.
        gc.collect()
        clear_device_cache()
    return done


def half(rows: int) -> int:
    """Half of some rows, at least one."""
    return -(-rows // 2)
