"""The part `frontier` of `calibration.json`."""

from __future__ import annotations

import numpy as np

from lm_eval_ape.artefacts import frontier as parts
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.grid.average import Floats, average, averages
from lm_eval_ape.calibration.grid.choice import choose
from lm_eval_ape.calibration.grid.grid import Grid
from lm_eval_ape.calibration.grid.stability import INTERVAL, difference, resample
from lm_eval_ape.calibration.objective.objective import Signal
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.search.rule import Rule, frontier
from lm_eval_ape.calibration.search.search import Found, Tried


def frontier_part(found: Found, options: Options, grid: Grid, rule: Rule, signal: Signal) -> parts.Frontier:
    """What a search found, candidate by candidate.

    Args:
        found: It; something was chosen.
        options: Of the calibration.
        grid: The points that every encoding was measured at.
        rule: By which the choice was made.
        signal: What it made small.
    """
    assert found.chosen is not None
    chosen = found.tried[found.chosen]
    rated = [_rated(one, chosen, options, grid, signal) for one in found.tried]
    measured = [number for number, one in enumerate(rated) if one]
    on = frontier([found.tried[number].cost.share for number in measured], [one.value for one in rated if one])
    best = {number for number, whether in zip(measured, on, strict=True) if whether}
    samples = len(found.gathered.samples)
    value = options.accept if options.accept is not None else options.budget
    return parts.Frontier(
        rule=parts.Rule(name=rule.name, value=value),
        race=options.race,
        sequential_seconds=found.teacher_seconds,
        measurements=sum(len(one.numbers) for one in found.tried),
        of=samples * len(found.tried),
        prompts_left_out=found.not_common,
        candidates=[
            parts.Tried(
                name=one.encoding.name,
                arguments=one.encoding.arguments,
                operations=one.cost.operations,
                share=one.cost.share,
                seconds=one.cost.seconds,
                samples=len(one.numbers),
                best=own,
                frontier=number in best,
                share_of_resamples=share,
                dropped=parts.Dropped(**one.dropped._asdict()) if one.dropped else None,
            )
            for number, (one, own, share) in enumerate(zip(found.tried, rated, found.shares, strict=True))
        ],
        left_out=[parts.NotTried(**one._asdict()) for one in found.left_out],
        chosen=chosen.encoding.name,
    )


def refusal(found: Found, options: Options, grid: Grid, signal: Signal) -> str:
    """What to say where no encoding is close enough."""
    values = {one.encoding.name: _best(one, grid, options, signal)[2] for one in found.tried if one.numbers}
    nearest = min(values, key=lambda name: values[name])
    return (
        f"No encoding stays within {options.accept:g} nats: the nearest is {nearest} with {values[nearest]:.4g}. Raise "
        "--accept, or search among others; with the same --output_path nothing is measured again."
    )


def _rated(tried: Tried, chosen: Tried, options: Options, grid: Grid, signal: Signal) -> parts.Rated | None:
    """A candidate at its best point; None where it was not measured."""
    if not tried.numbers:
        return None
    point, own, value = _best(tried, grid, options, signal)
    others = _best(chosen, grid, options, signal)[1]
    # The chosen one was measured on all samples.
    common = others[tried.numbers]
    weights = resample(len(own), options.resamples, options.seed)
    low, high = np.percentile(averages(own[:, None], weights, options.average)[:, 0], INTERVAL).tolist()
    return parts.Rated(
        attn_temperature=point.temperature,
        attn_scale=point.scale,
        value=value,
        interval=parts.Interval(low=low, high=high),
        mean_kl=tried.table(grid, signal, options.average).means[point],
        more_than_chosen=difference(own, common, weights),
    )


def _best(tried: Tried, grid: Grid, options: Options, signal: Signal) -> tuple[Point, Floats, float]:
    """The best point of those that can be chosen, and what chose: on each sample, and its average."""
    table = tried.table(grid, signal, options.average)
    point = choose(table, grid.points).point
    place = table.points.index(point)
    return point, table.judged_by[:, place], float(average(table.judged_by, options.average)[place])
