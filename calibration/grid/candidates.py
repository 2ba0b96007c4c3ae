"""What can be measured and scored: one (T, S) for the whole model, or T and S of each layer and head."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.attention.factors import Factors, Table

Candidate: TypeAlias = Point | Factors


def factors_of(candidate: Candidate) -> Factors:
    """A candidate as tables."""
    return candidate if isinstance(candidate, Factors) else Factors.of(*candidate)


def key_of(candidate: Candidate) -> Point | str:
    """What names a candidate where results are kept: the point, or the tables' digest."""
    return candidate.digest if isinstance(candidate, Factors) else candidate


def read_key(kept: Any) -> Point | str:
    """The key that JSON gives back."""
    return kept if isinstance(kept, str) else Point(*kept)


def middle(candidate: Candidate) -> Point:
    """The point in the middle of a candidate: the geometric means of its T and of its S."""
    if isinstance(candidate, Point):
        return candidate
    return Point(_mean(candidate.temperature), _mean(candidate.scale))


def settings_of(candidate: Candidate) -> dict[str, Any]:
    """The fields of `Settings` that make a model read contexts with a candidate."""
    point = middle(candidate)
    factors = candidate if isinstance(candidate, Factors) else None
    return {"attn_temperature": point.temperature, "attn_scale": point.scale, "factors": factors}


def _mean(table: Table) -> float:
    return round(float(np.exp(np.log(table).mean())), 6)
