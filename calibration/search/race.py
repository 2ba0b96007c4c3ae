"""A race: what is worse beyond doubt is not measured any further.

Encodings are measured on the same samples, a few at a time. After each round every encoding is held against the one
that leads. A difference is beyond doubt where a confidence sequence of its mean leaves 0 out: an interval that holds at
all rounds at once, so that one may look as often as one likes (the asymptotic confidence sequence of Waudby-Smith et
al., "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52, 2024). The error
is divided among all points of all encodings (Bonferroni), so that the best one stays, whichever it is. Races of this
kind go back to Maron and Moore, "Hoeffding races" (1994), whose bound needs values of a known range, which a KL has
not. What was left out since something cheaper was close enough comes back if that is found not to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.search.rule import Rule, worth_trying

ERROR = 0.05
"""Chance that the best encoding is left out, over all rounds and rivals."""
FIRST_LOOK = 8
"""Samples before the first look: fewer say too little of the scatter."""
_DEARER = "costs more than one that is close enough"
# The sequence is about tightest after so many samples.
_TIGHTEST = 24


class Dropped(NamedTuple):
    """When and why an encoding was left out of the race.

    Attributes:
        after: Samples that it was measured on.
        reason: As the end of a sentence that begins with its name.
    """

    after: int
    reason: str


class Raced(NamedTuple):
    """The end of a race.

    Attributes:
        values: Of each encoding, what the choice makes small, `(samples measured, points)`.
        dropped: Those that were left out, by their numbers.
    """

    values: list[Floats]
    dropped: dict[int, Dropped]


def looks(samples: int) -> Iterator[int]:
    """After how many samples one looks: each round a quarter more, at least four; at last after all."""
    reached = min(FIRST_LOOK, samples)
    while reached < samples:
        yield reached
        reached = min(samples, reached + max(4, reached // 4))
    yield samples


def lower_bound(differences: Floats, error: float, added: Floats | float = 0.0) -> Floats:
    """Below each column's mean, at every look at once.

    Args:
        differences: `(samples, columns)`.
        error: Chance that a mean is ever below its bound.
        added: One sample more than was measured, `(columns,)`: a few that happen to be alike would else be certain.

    Returns:
        `(columns,)`.
    """
    seen = np.vstack([differences, np.broadcast_to(added, differences.shape[1:])])
    count = len(seen)
    squared = (-2 * math.log(error) + math.log(-2 * math.log(error) + 1)) / _TIGHTEST
    spread = count * squared + 1
    width = math.sqrt(2 * spread / (count**2 * squared) * math.log1p(math.sqrt(spread) / (2 * error)))
    found: Floats = seen.mean(0) - seen.std(0, ddof=1) * width
    return found


def race(
    costs: Sequence[float],
    samples: int,
    measure: Callable[[Sequence[int], range], Mapping[int, Floats]],
    rule: Rule,
    *,
    racing: bool = True,
) -> Raced:
    """Measure encodings on samples, leaving out on the way what cannot be chosen any more.

    Args:
        costs: Of each encoding, its share of the sequential model's prefill.
        samples: How many there are.
        measure: Given numbers of encodings and of samples, gives of each encoding what the choice makes small,
            `(samples asked for, points)`.
        rule: By which the choice is made.
        racing: Whether any is left out.
    """
    values: list[list[Floats]] = [[] for _ in costs]
    dropped: dict[int, Dropped] = {}
    if racing:
        dear = np.flatnonzero(~worth_trying(costs)).tolist()
        dropped = {number: Dropped(0, "costs as much as the sequential model") for number in dear}
        if rule.budget is not None and min(costs) <= rule.budget:
            over = [number for number, cost in enumerate(costs) if cost > rule.budget]
            dropped |= {number: Dropped(0, f"costs {costs[number]:.3f}, more than the budget") for number in over}
    done = 0
    for look in looks(samples):
        live = [number for number in range(len(costs)) if number not in dropped]
        for number, found in measure(live, range(done, look)).items():
            values[number].append(found)
        done = look
        if not racing or rule.average != "mean":
            continue
        if rule.accept is not None:
            while (again := _missed(values, dropped, costs, rule.accept)) is not None:
                missing = range(dropped.pop(again).after, done)
                values[again].append(measure([again], missing)[again])
                live.append(again)
        if done < samples:
            present = {number: np.concatenate(values[number]) for number in sorted(live)}
            reasons = _acceptable(present, costs, rule.accept) if rule.accept is not None else _worse(present)
            dropped |= {number: Dropped(done, reason) for number, reason in reasons.items()}
    return Raced([np.concatenate(own) if own else np.empty((0, 0)) for own in values], dropped)


def _worse(values: Mapping[int, Floats]) -> dict[int, str]:
    """Those all of whose points are worse than the best point of the one that leads."""
    leader = _nearest(values)
    best = values[leader][:, [values[leader].mean(0).argmin()]]
    error = _each(values)
    rivals = {number: own for number, own in values.items() if number != leader}
    bounds = {number: float(lower_bound(own - best, error).min()) for number, own in rivals.items()}
    return {number: f"is worse than the leader by at least {more:.4g}" for number, more in bounds.items() if more > 0}


def _acceptable(values: Mapping[int, Floats], costs: Sequence[float], accept: float) -> dict[int, str]:
    """Those that are too far away beyond doubt, and those that cost more than one that is close enough beyond doubt.

    Where all are too far away, the nearest stays.
    """
    error = _each(values)

    def beyond_doubt(differences: Floats) -> Floats:
        # Not paired with others, values have long tails, and the first few seldom show how far those reach.
        return lower_bound(differences, error, -np.abs(differences).max(0))

    above = {number: float(beyond_doubt(own - accept).min()) for number, own in values.items()}
    reasons = {number: f"is at least {accept + more:.4g} away" for number, more in above.items() if more > 0}
    reasons.pop(_nearest(values), None)
    close = [number for number, own in values.items() if beyond_doubt(accept - own).max() > 0]
    if close:
        cheapest = min(costs[number] for number in close)
        dearer = [number for number in values if costs[number] > cheapest]
        reasons |= dict.fromkeys(dearer, _DEARER)
    return reasons


def _missed(
    values: Sequence[Sequence[Floats]], dropped: Mapping[int, Dropped], costs: Sequence[float], accept: float
) -> int | None:
    """The cheapest that was left out for one that is close enough, where none that cheap is close enough any more.

    A single hopeless sample of a hundred does that to a mean, and no bound on the first few foresees it.
    """
    live = [number for number, own in enumerate(values) if own and number not in dropped]
    close = [costs[number] for number in live if np.concatenate(values[number]).mean(0).min() <= accept]
    left_out = [number for number, one in dropped.items() if one.reason == _DEARER]
    missed = [number for number in left_out if costs[number] < min(close, default=math.inf)]
    return min(missed, key=lambda number: (costs[number], number), default=None)


def _each(values: Mapping[int, Floats]) -> float:
    """The error of one comparison."""
    return ERROR / sum(own.shape[1] for own in values.values())


def _nearest(values: Mapping[int, Floats]) -> int:
    """The encoding that leads: that of the point with the least mean."""
    return min(values, key=lambda number: float(values[number].mean(0).min()))
