"""How T and S are fitted by gradient."""

from __future__ import annotations

from dataclasses import dataclass

from lm_eval_ape.artefacts.points import Point


@dataclass(frozen=True)
class Plan:
    """How to fit.

    Attributes:
        granularity: `model`: one T and S; `layer`: one of each a layer; `head`: one a layer and head.
        prefix: Whether the prefix gets a T and S of its own.
        start: T and S from which all start; the prefix starts from (1, 1).
        steps: Most steps.
        learning_rate: Adam's at first, in units of log T and log S.
        patience: Steps without any improvement after which the fit stops.
        bounds: Least and largest T and S.
        strengths: Strengths of the penalty to try; only one if there are no folds.
    """

    granularity: str
    prefix: bool
    start: Point
    steps: int
    learning_rate: float
    patience: int
    bounds: tuple[float, float]
    strengths: tuple[float, ...]
