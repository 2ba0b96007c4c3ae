"""A batch that memory cannot hold is done in smaller and smaller pieces."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

logger = logging.getLogger(__name__)

Done = TypeVar("Done")


class Room:
    """How many rows at a time memory has room for: learnt where it is short, and kept for later batches.

    Args:
        most: Most rows at a time to begin with; None for all of a batch.
        rows: What rows are, for messages.
        relieve: Makes room in another way, tried before rows get fewer; says in words what it did, or None where it can
            do nothing more.
    """

    def __init__(
        self, most: int | None = None, rows: str = "rows", relieve: Callable[[], str | None] = lambda: None
    ) -> None:
        self.most = most
        self._rows = rows
        self._relieve = relieve

    def pieces(
        self,
        work: Callable[[slice], Done],
        rows: int,
        *,
        most: int | None = None,
        what: str = "",
        refusal: Callable[[], Exception] | None = None,
    ) -> list[Done]:
        """Do a batch's work, row by row in order, as many rows at a time as memory allows.

        Args:
            work: Does some neighbouring rows.
            rows: How many rows there are.
            most: Most of this batch's rows at a time, whatever memory allows; None for no such limit.
            what: What the work is of, for messages.
            refusal: Makes the error for a single row that does not fit; by default memory's own is raised.

        Returns:
            What `work` gave for each piece.
        """
        done: list[Done] = []
        first, relieved = 0, False
        while first < rows:
            size = min(self.most or rows, most or rows, rows - first)
            try:
                done.append(work(slice(first, first + size)))
                first, relieved = first + size, False
                continue
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                before = f"{what}: memory" if what else "Memory"
                # Once a piece: what was let go may be made again by the next try.
                if not relieved and (words := self._relieve()):
                    relieved = True
                    logger.warning("%s is short; %s.", before, words)
                elif size > 1:
                    self.most = -(-size // 2)
                    logger.warning("%s is short; going on with %d %s at a time.", before, self.most, self._rows)
                elif refusal is None:
                    raise
                else:
                    raise refusal() from error
            # Outside of the handler, whose traceback would keep the failed piece alive.
            gc.collect()
            clear_device_cache()
        return done
