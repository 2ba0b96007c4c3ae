"""The gradient's part of a calibration: from gathered samples to T and S, and what `calibration.json` says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lm_eval_ape.artefacts import estimates, gradient_fit
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Point
from lm_eval_ape.calibration.gradient.cross_fit import Held, choose_level, take
from lm_eval_ape.calibration.gradient.differentiator import Differentiator
from lm_eval_ape.calibration.gradient.fit import Fit, Fitted, factors_from
from lm_eval_ape.calibration.gradient.fit_state import StateFile
from lm_eval_ape.calibration.gradient.folds import Folds, part
from lm_eval_ape.calibration.gradient.kept_contexts import GIB, Contexts
from lm_eval_ape.calibration.gradient.penalty import STRENGTHS
from lm_eval_ape.calibration.gradient.plan import Plan, Trial
from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.grid.candidates import Candidate, factors_of, middle
from lm_eval_ape.calibration.grid.choice import Table
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.grid.stability import difference
from lm_eval_ape.calibration.objective.keys import fit_key
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.harness.samples import Sample


class Level(NamedTuple):
    """The fit of a granularity.

    Attributes:
        trial: What was fitted, with the penalty that was chosen.
        candidate: Its T and S: a point, if they are no more than that.
        held: It held against samples that it did not see.
        training: Mean divergence at each step on the samples that it learned from, in nats.
        held_out: Likewise of fits that did not learn from a sample.
        penalties: Each strength of the penalty that was tried, with the held-out divergence at the step it would take.
    """

    trial: Trial
    candidate: Candidate
    held: Held
    training: Floats
    held_out: Floats
    penalties: dict[float, float]


class Descent(NamedTuple):
    """What fits found on some samples.

    Attributes:
        plan: How it was fitted.
        levels: The fits, from the coarsest on.
        taken: Number of the one that is returned; None if none is better than the start.
        kl: Mean divergence of each sample with what is returned, `(samples,)`.
    """

    plan: Plan
    levels: list[Level]
    taken: int | None
    kl: Floats

    @property
    def level(self) -> Level:
        """What is returned; the finest if nothing is."""
        return self.levels[-1 if self.taken is None else self.taken]

    @property
    def candidate(self) -> Candidate:
        """T and S that are returned."""
        return self.plan.start if self.taken is None else self.level.candidate

    @property
    def refused(self) -> Candidate | None:
        """T and S of what was asked for, if they are not returned."""
        last = len(self.levels) - 1
        return None if self.taken == last else self.levels[last].candidate


def plan_of(options: Options, start: Point) -> Plan:
    """How to fit, as the options say it."""
    strengths = STRENGTHS if options.penalty is None else (options.penalty,)
    return Plan(
        options.granularity,
        options.prefix_factors,
        start,
        options.steps,
        options.learning_rate,
        options.patience,
        options.bounds,
        strengths,
    )


def descend(
    lm: ServedModel,
    options: Options,
    samples: Sequence[Sample],
    *,
    start: Point,
    weights: Floats,
    meter: Meter,
    cache: Path | None,
) -> Descent:
    """Fit T and S on samples, and return what is better than the start on samples that a fit did not see.

    Args:
        lm: The model.
        options: How to fit, and how samples are parted.
        samples: The samples.
        start: T and S to start from.
        weights: Resamples of the samples.
        meter: Measures divergences, with the teacher's history.
        cache: Folder that keeps the fit's state; None keeps nothing.

    Raises:
        ApeError: There are too few samples, logits are not finite or memory does not suffice.
    """
    plan = plan_of(options, start)
    folds = part(len(samples), folds=options.folds, seed=options.seed)
    teachers = {number: meter.teacher(samples[number]) for number in lm.processes.own(len(samples))}
    keep = None if options.keep_gib is None else int(options.keep_gib * GIB)
    key = fit_key(
        meter.model, lm.engine.settings, meter.objective, meter.scorer.ends, samples, plan=[asdict(plan), folds]
    )
    fit = Fit(
        lm,
        plan,
        folds,
        samples=samples,
        teachers=teachers,
        differentiator=Differentiator(lm, options.max_rows),
        contexts=Contexts(lm, keep),
        file=StateFile(cache and cache / "fit", key),
    )
    levels = judge(plan, fit.run(), folds, weights)
    found = Descent(plan, levels, choose_level([level.held for level in levels]), np.empty(0))
    return found._replace(kl=meter.measure(samples, [found.candidate]).kl[:, 0])


def judge(plan: Plan, fitted: Fitted, folds: Folds, weights: Floats) -> list[Level]:
    """Hold the fits of each granularity against samples that they did not see.

    Args:
        plan: How it was fitted.
        fitted: The fits.
        folds: The samples' folds.
        weights: Resamples of the samples.

    Returns:
        One a granularity, from the coarsest on.
    """
    levels = []
    for granularity, group in groupby(range(len(plan.trials)), key=lambda number: plan.trials[number].granularity):
        # Of equally good penalties the strongest.
        numbers = sorted(group, key=lambda number: -plan.trials[number].strength)
        curves = fitted.held_out[numbers]
        held = Held.of(curves, folds, weights)
        trial = numbers[held.taken.trial]
        factors = factors_from(fitted.path[held.taken.step, trial], granularity)
        ends = [take(curves[[number]]).step for number in range(len(numbers))]
        levels.append(
            Level(
                plan.trials[trial],
                middle(factors) if factors.single else factors,
                held,
                fitted.training[trial].mean(-1),
                fitted.held_out[trial].mean(-1),
                {
                    plan.trials[number].strength: float(own[end].mean())
                    for number, own, end in zip(numbers, curves, ends, strict=True)
                },
            )
        )
    return levels


def gradient_part(descent: Descent, table: Table, weights: Floats) -> gradient_fit.Gradient:
    """The part `gradient` of `calibration.json`.

    Args:
        descent: What was found.
        table: Divergences of the start, (0.9, 0.9) and (1, 1) on the same samples.
        weights: Resamples of the samples.
    """
    plan, taken, level = descent.plan, descent.taken, descent.level
    point, factors = middle(descent.candidate), factors_of(descent.candidate)

    def less(rival: Point) -> estimates.Difference:
        return difference(table.of(rival), descent.kl, weights)

    how = {**asdict(plan), "bounds": list(plan.bounds), "strengths": list(map(_strength, plan.strengths))}
    return gradient_fit.Gradient(
        granularity="model" if taken is None else level.trial.granularity,
        attn_temperature=point.temperature,
        attn_scale=point.scale,
        factors=gradient_fit.FactorTables(**factors.json),
        sha256=factors.digest,
        start=plan.start,
        plan=gradient_fit.FitPlan(**how),
        penalty=_strength(level.trial.strength),
        held_out=[gradient_fit.HeldOut(penalty=_strength(one), mean_kl=mean) for one, mean in level.penalties.items()],
        step=0 if taken is None else level.held.taken.step,
        training=level.training.tolist(),
        stopping=level.held_out.tolist(),
        fitting=list(range(len(descent.kl))),
        validation=[],
        kl=descent.kl.tolist(),
        mean_kl=float(descent.kl.mean()),
        less_kl=gradient_fit.LessKL(start=less(plan.start), default=less(DEFAULT), neutral=less(NEUTRAL)),
        levels=[_level_part(one, taken=number == taken) for number, one in enumerate(descent.levels)],
    )


def _level_part(level: Level, *, taken: bool) -> gradient_fit.Level:
    held = level.held
    return gradient_fit.Level(
        granularity=level.trial.granularity,
        penalty=_strength(level.trial.strength),
        step=held.taken.step,
        taken=taken,
        kl=held.kl.tolist(),
        mean_kl=float(held.kl.mean()),
        start_kl=float(held.start.mean()),
        less_kl=held.less,
        training=level.training.tolist(),
        held_out=level.held_out.tolist(),
    )


def _strength(strength: float) -> float | str:
    """JSON has no infinity."""
    return "inf" if math.isinf(strength) else strength
