"""What was out of the ordinary about requests, counted, and said once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from lm_eval_ape.settings.strategy import Settings

logger = logging.getLogger(__name__)


class Tally(NamedTuple):
    """What was out of the ordinary about some requests.

    Attributes:
        notes: By what it was, in words that follow "they", how many requests it concerns.
        places: By task and what its contexts are, in words, how many requests have them.
        unread: What a retriever dropped: `requests` that it read, their `chunks`, those `dropped`, and their `tokens`.
    """

    notes: Counter[str]
    places: Counter[tuple[str, str]]
    unread: Counter[str]


def warn_of(tallies: Iterable[Tally], settings: Settings) -> None:
    """Warn once about each thing out of the ordinary, with how many requests it concerns."""
    notes, unread = Counter[str](), Counter[str]()
    for tally in tallies:
        notes.update(tally.notes)
        unread.update(tally.unread)
    for note, count in notes.items():
        logger.warning("%d request%s: they %s.", count, "" if count == 1 else "s", note)
    if unread["tokens"]:
        logger.warning(
            "retriever=%s with max_chunks=%d: of %d requests' %d chunks it dropped %d, with %d tokens.",
            settings.retriever,
            settings.max_chunks,
            *(unread[what] for what in ("requests", "chunks", "dropped", "tokens")),
        )
