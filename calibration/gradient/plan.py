"""How T and S are fitted by gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from lm_eval_ape.artefacts.points import Granularity, Point

LEVELS: tuple[Granularity, ...] = ("model", "layer", "head")
"""From the coarsest on."""


class Trial(NamedTuple):
    """What is fitted side by side.

    Attributes:
        granularity: What has a T and S of its own.
        strength: Of the penalty.
    """

    granularity: Granularity
    strength: float


@dataclass(frozen=True)
class Plan:
    """How to fit.

    Attributes:
        granularity: The finest that is tried. `model`: one T and S; `layer`: one of each a layer; `head`: one a layer
            and head.
        prefix: Whether the prefix gets a T and S of its own.
        start: T and S from which all start; the prefix starts from (1, 1).
        steps: Most steps.
        learning_rate: How far a step goes at most: root mean square of the changes of log T and log S.
        patience: Steps without any improvement after which the fit stops.
        bounds: Least and largest T and S.
        strengths: Strengths of the penalty to try.
    """

    granularity: Granularity
    prefix: bool
    start: Point
    steps: int
    learning_rate: float
    patience: int
    bounds: tuple[float, float]
    strengths: tuple[float, ...]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """One T and S for the model, which no penalty changes, then each finer level with each finite strength."""
        finer = LEVELS[1 : LEVELS.index(self.granularity) + 1]
        pulled = [strength for strength in self.strengths if not math.isinf(strength)]
        return Trial("model", 0.0), *(Trial(level, strength) for level in finer for strength in pulled)
