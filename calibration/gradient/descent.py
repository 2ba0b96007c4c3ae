"""The gradient's part of a calibration: from gathered samples to T and S, and what `calibration.json` says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, NamedTuple, cast

from lm_eval_ape.artefacts.calibration import Difference, FactorTables, FitPlan, Gradient, HeldOut, LessKL
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Point
from lm_eval_ape.calibration.gradient.differentiator import Differentiator
from lm_eval_ape.calibration.gradient.fit import Fit, Fitted
from lm_eval_ape.calibration.gradient.fit_state import StateFile
from lm_eval_ape.calibration.gradient.folds import Parts, part
from lm_eval_ape.calibration.gradient.kept_contexts import GIB, Contexts
from lm_eval_ape.calibration.gradient.penalty import STRENGTHS
from lm_eval_ape.calibration.gradient.plan import Plan
from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.grid.candidates import Candidate, middle
from lm_eval_ape.calibration.grid.choice import Table
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.grid.stability import difference
from lm_eval_ape.calibration.objective.keys import fit_key
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.harness.samples import Sample


class Descent(NamedTuple):
    """What a fit found on some samples.

    Attributes:
        plan: How it was fitted.
        parts: Which samples were for what.
        fitted: The result.
        candidate: Its T and S: a point, if they are no more than that.
        kl: Mean divergence of each sample with them, `(samples,)`.
    """

    plan: Plan
    parts: Parts
    fitted: Fitted
    candidate: Candidate
    kl: Floats


def plan_of(options: Options, start: Point) -> Plan:
    """How to fit, as the options say it."""
    if options.granularity == "model":
        strengths: tuple[float, ...] = (0.0,)
    else:
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
    lm: ServedModel, options: Options, samples: Sequence[Sample], *, start: Point, meter: Meter, cache: Path | None
) -> Descent:
    """Fit T and S on samples.

    Args:
        lm: The model.
        options: How to fit, and how samples are parted.
        samples: The samples.
        start: T and S to start from.
        meter: Measures divergences, with the teacher's history.
        cache: Folder that keeps the fit's state; None keeps nothing.

    Raises:
        ApeError: There are too few samples, logits are not finite or memory does not suffice.
    """
    plan = plan_of(options, start)
    folds = options.folds if len(plan.strengths) > 1 else 0
    parts = part(len(samples), validation_share=options.validation_share, folds=folds, seed=options.seed)
    teachers = {number: meter.teacher(samples[number]) for number in lm.processes.own(len(samples))}
    keep = None if options.keep_gib is None else int(options.keep_gib * GIB)
    key = fit_key(
        meter.model, lm.engine.settings, meter.objective, meter.scorer.ends, samples, plan=[asdict(plan), parts]
    )
    fit = Fit(
        lm,
        plan,
        parts,
        samples=samples,
        teachers=teachers,
        differentiator=Differentiator(lm, options.max_rows),
        contexts=Contexts(lm, keep),
        file=StateFile(cache and cache / "fit", key),
    )
    fitted = fit.run()
    factors = fitted.factors
    candidate: Candidate = middle(factors) if factors.single else factors
    return Descent(plan, parts, fitted, candidate, meter.measure(samples, [candidate]).kl[:, 0])


def gradient_part(descent: Descent, table: Table, weights: Floats) -> Gradient:
    """The part `gradient` of `calibration.json`.

    Args:
        descent: What was found.
        table: Divergences of the start, (0.9, 0.9) and (1, 1) on the same samples.
        weights: Resamples of the samples.
    """
    plan, parts, fitted = descent.plan, descent.parts, descent.fitted
    point = middle(descent.candidate)

    def less(rival: Point) -> Difference:
        return difference(table.of(rival), descent.kl, weights)

    how = {**asdict(plan), "bounds": list(plan.bounds), "strengths": list(map(_strength, plan.strengths))}
    return Gradient(
        granularity=cast(Literal["model", "layer", "head"], plan.granularity),
        attn_temperature=point.temperature,
        attn_scale=point.scale,
        factors=FactorTables(**fitted.factors.json),
        sha256=fitted.factors.digest,
        start=plan.start,
        plan=FitPlan(**how),
        penalty=_strength(fitted.strength),
        held_out=[HeldOut(penalty=_strength(one), mean_kl=mean) for one, mean in fitted.held_out.items()],
        step=fitted.step,
        training=fitted.training,
        stopping=fitted.stopping,
        fitting=list(parts.fitting),
        validation=list(parts.validation),
        kl=descent.kl.tolist(),
        mean_kl=float(descent.kl.mean()),
        less_kl=LessKL(start=less(plan.start), default=less(DEFAULT), neutral=less(NEUTRAL)),
    )


def _strength(strength: float) -> float | str:
    """JSON has no infinity."""
    return "inf" if math.isinf(strength) else strength
