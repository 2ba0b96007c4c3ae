"""What the pocket model learns, in order: copying by key first, reading passages later.

Trained on passages from the start, a model this small learns to copy some value of the right kind
and stays there. Looking a value up by its key has to come first, and then in steps small enough
that what was learnt still works at the next one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from lm_eval_ape.pocket.questions import Dataset


@dataclass(frozen=True)
class Lesson:
    """One step of the curriculum.

    Attributes:
        name: shown in the log.
        layers: layers of the model; a lesson with more than the one before adds them.
        gap: most words between a key and its value (None: whole passages).
        passages: fewest and most passages of a context.
        facts: most facts of a passage.
        fillers: fewest and most filler sentences of a passage.
        shares: how often each kind of question is asked.
        steps: most optimiser steps.
        mastery: go on as soon as the accuracy of every kind of question has reached this.
        tokens: tokens of a batch, roughly.
        rate: learning rate.
        decay: let the rate fall to a fiftieth over the lesson's steps.
        chains: number of chains among the statements (0: pairs of their own).
        joins: also ask for the end of a chain where its bridge is referred to, within the context.
        stretch: most positions to skip in a context, so that long distances occur in short rows.
    """

    name: str
    layers: int
    gap: int | None = None
    passages: tuple[int, int] = (2, 4)
    facts: int = 3
    fillers: tuple[int, int] = (0, 0)
    shares: tuple[tuple[Dataset, float], ...] = (("pocket_onehop", 1.0),)
    steps: int = 600
    mastery: float = 0.95
    tokens: int = 8000
    rate: float = 4e-3
    decay: bool = False
    stretch: int = 0
    chains: int = 0
    joins: bool = False

    def draw_passages(self, rng: random.Random) -> int:
        """A number of passages, short contexts as likely as long ones on a logarithmic scale."""
        low, high = self.passages
        return min(high, int(low * ((high + 1) / low) ** rng.random()))


_TWO_HOPS: Final[tuple[tuple[Dataset, float], ...]] = (
    ("pocket_onehop", 0.4),
    ("pocket_twohop", 0.6),
)
_PASSAGES: Final[tuple[tuple[Dataset, float], ...]] = (
    ("pocket_onehop", 0.3),
    ("pocket_twohop", 0.5),
    ("pocket_needle", 0.2),
)
_ALL: Final[tuple[tuple[Dataset, float], ...]] = (
    ("pocket_onehop", 0.25),
    ("pocket_twohop", 0.4),
    ("pocket_needle", 0.15),
    ("pocket_classify", 0.2),
)
CURRICULUM: Final = (
    *(Lesson(f"pairs, gap {gap}", layers=2, gap=gap, tokens=4000) for gap in range(9)),
    *(
        Lesson(
            f"chains, gap {gap}",
            layers=4,
            gap=gap,
            chains=6,
            joins=True,
            shares=_TWO_HOPS,
            rate=3e-3,
        )
        for gap in range(9)
    ),
    Lesson(
        "passages",
        layers=4,
        passages=(6, 10),
        joins=True,
        shares=_PASSAGES,
        steps=1000,
        mastery=0.9,
        rate=3e-3,
    ),
    Lesson(
        "fillers and examples",
        layers=4,
        passages=(2, 16),
        fillers=(0, 3),
        shares=_ALL,
        steps=1000,
        rate=2e-3,
        stretch=4000,
    ),
    Lesson(
        "length",
        layers=4,
        passages=(2, 44),
        fillers=(0, 6),
        shares=_ALL,
        steps=800,
        mastery=1.1,
        tokens=12000,
        rate=2e-3,
        decay=True,
        stretch=2000,
    ),
)
