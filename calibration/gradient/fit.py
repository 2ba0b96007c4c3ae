"""T and S of each layer and head by gradient descent on the teacher-forced KL.

All fits of a calibration run side by side as rows of one batch over the shared context keys: for each level (model,
layers, heads) and each strength of the penalty one row that learns from all samples, and one for each fold that is held
out. A step is one pass over all samples. Where it makes a row's objective smaller, the row's next one is longer; where
it does not, it is taken back and tried again shorter (a line search by backtracking, Nocedal and Wright, Numerical
Optimization, 2006). Rows share nothing, so what is held out from one has no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from lm_eval_ape.artefacts.points import Granularity
from lm_eval_ape.attention.factors import NAMES, Factors
from lm_eval_ape.calibration.gradient.differentiator import Differentiator, Gradient
from lm_eval_ape.calibration.gradient.fit_state import FitState, StateFile
from lm_eval_ape.calibration.gradient.folds import Folds
from lm_eval_ape.calibration.gradient.kept_contexts import Contexts
from lm_eval_ape.calibration.gradient.levels import direction
from lm_eval_ape.calibration.gradient.penalty import penalised, penalty
from lm_eval_ape.calibration.gradient.plan import LEVELS, Plan, Trial
from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.objective.teacher import Teacher
from lm_eval_ape.engine.non_finite import NotFiniteError, explain
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.harness.samples import Sample

# What a step's length is multiplied by.
_LONGER, _SHORTER = 1.5, 0.25
_LEAST = 1e-12


class Rows(NamedTuple):
    """What each row of a batch is: for each trial, a row on all samples, then one for each fold held out.

    Attributes:
        trials: Number of its trial, `(rows,)`.
        strengths: Of its penalty, `(rows,)`.
        trains: Whether it learns from a sample, `(rows, samples)`.
        whole: Whether it learns from all samples, `(rows,)`.
    """

    trials: Tensor
    strengths: Tensor
    trains: Tensor
    whole: Tensor

    @classmethod
    def of(cls, trials: Sequence[Trial], folds: Folds) -> Rows:
        """The rows of trials."""
        trains = torch.ones(1 + len(folds), sum(map(len, folds)), dtype=torch.bool)
        for row, fold in enumerate(folds, start=1):
            trains[row, list(fold)] = False
        numbers = torch.arange(len(trials)).repeat_interleave(len(trains))
        strengths = torch.tensor([trial.strength for trial in trials], dtype=torch.float64)
        trains = trains.repeat(len(trials), 1)
        return cls(numbers, strengths[numbers], trains, trains.all(1))


class Fitted(NamedTuple):
    """The fits of all trials.

    Attributes:
        path: T and S of each trial's fit to all samples at each step, `(steps, trials, 2 or 4, layers, heads)`,
            logarithms.
        training: Each trial's divergence on the samples that it learns from, `(trials, steps, samples)`, in nats.
        held_out: Likewise of fits that did not learn from the sample.
    """

    path: Tensor
    training: Floats
    held_out: Floats


class Fit:
    """Fits T and S on samples.

    Args:
        lm: The model.
        plan: How to fit.
        folds: The samples in parts, each of which is held out once.
        samples: The samples.
        teachers: By the samples' numbers, the teachers of those that are this process's.
        differentiator: Gives divergences and slopes.
        contexts: Keeps encoded contexts.
        file: Keeps the state.
    """

    def __init__(
        self,
        lm: ServedModel,
        plan: Plan,
        folds: Folds,
        *,
        samples: Sequence[Sample],
        teachers: Mapping[int, Teacher],
        differentiator: Differentiator,
        contexts: Contexts,
        file: StateFile,
    ) -> None:
        self.lm = lm
        self.plan = plan
        self.rows = Rows.of(plan.trials, folds)
        self.samples = samples
        self.teachers = teachers
        self.differentiator = differentiator
        self.contexts = contexts
        self.file = file

    def run(self) -> Fitted:
        """Fit, or go on with a fit that was stopped."""
        plan = self.plan
        state = self.lm.processes.from_first(self.file.load()) or self._begin()
        quiet = self.lm.processes.rank != 0
        with tqdm(total=plan.steps + 1, desc="Fitting T and S", unit="step", initial=state.steps, disable=quiet) as bar:
            while not self._finished(state):
                kl, slope = self._measure(state.trying, last=state.steps == plan.steps)
                self._judge(state, kl, slope)
                bar.update()
                training, held_out = (curves[:, -1].mean(-1).min() for curves in self._curves(state))
                bar.set_postfix_str(f"least KL training {training:.4f}, held out {held_out:.4f}")
                if self.lm.processes.rank == 0:
                    self.file.save(state)
        return Fitted(torch.stack(state.path), *self._curves(state))

    def _begin(self) -> FitState:
        layers, heads = _shape(self.lm, self.plan.granularity)
        start = [self.plan.start.temperature, self.plan.start.scale, *([1.0, 1.0] if self.plan.prefix else [])]
        one = torch.tensor(start, dtype=torch.float64).log().view(1, -1, 1, 1)
        parameters = one.repeat(len(self.rows.trials), 1, layers, heads)
        rates = torch.full((len(parameters),), torch.inf, dtype=torch.float64)
        return FitState(parameters, parameters, torch.zeros_like(parameters), rates)

    def _finished(self, state: FitState) -> bool:
        """Whether all steps are taken, or no trial has improved on held-out samples for too many of them."""
        if not state.kl:
            return False
        best = self._curves(state)[1].mean(-1).argmin(-1)
        return state.steps > self.plan.steps or state.steps - 1 - int(best.max()) >= self.plan.patience

    def _measure(self, parameters: Tensor, *, last: bool) -> tuple[Tensor, Tensor]:
        """Divergences, `(rows, samples)`, and the mean slope on each row's training samples, none at the last step.

        Rows that are equal, as all are at first, are read once.
        """
        different, same = parameters.unique(dim=0, return_inverse=True)
        found = []
        for number in self.lm.processes.own(len(self.samples)):
            trains = self.rows.trains[:, number] & (not last)
            wanted = torch.zeros(len(different), dtype=torch.bool).index_put_((same,), trains, accumulate=True)
            own = self._differentiate(number, different, wanted)
            slopes = own.slope[same] * trains.view(-1, 1, 1, 1)
            found.append((number, (number, Gradient(own.kl[same], slopes))))
        kl = torch.zeros(len(parameters), len(self.samples), dtype=torch.float64)
        slope = torch.zeros_like(parameters)
        # In the samples' order whichever process had them, so that sums round alike.
        for number, own in self.lm.processes.put_together(found):
            kl[:, number] = own.kl
            slope += own.slope
        return kl, slope / self.rows.trains.sum(1).view(-1, 1, 1, 1)

    def _differentiate(self, number: int, parameters: Tensor, wanted: Tensor) -> Gradient:
        """Divergences and slopes of some rows on one sample."""
        sample, teacher = self.samples[number], self.teachers[number]

        def differentiate(contexts: Contexts) -> Gradient:
            encoded = contexts.get(number, sample.prompt)
            return self.differentiator.differentiate(
                sample.prompt, encoded, teacher, parameters, wanted, sample=str(sample)
            )

        try:
            return differentiate(self.contexts)
        except NotFiniteError as error:
            # Read again: the keys and values at hand may be where it arose.
            raise explain(self.lm, error, lambda: differentiate(Contexts(self.lm, 0))) from None

    def _judge(self, state: FitState, kl: Tensor, slope: Tensor) -> None:
        """Keep what was measured in the rows where it is better than what was reached, and try the next step."""
        plan, rows = self.plan, self.rows
        better = torch.ones(len(kl), dtype=torch.bool)
        if state.kl:
            better = self._objective(state.trying, kl) < self._objective(state.reached, state.kl[-1])
            state.rates = state.rates * torch.where(better, _LONGER, _SHORTER)
            kl = torch.where(better[:, None], kl, state.kl[-1])
        wide = better.view(-1, 1, 1, 1)
        state.reached = torch.where(wide, state.trying, state.reached)
        state.slope = torch.where(wide, penalised(slope, state.trying, rows.strengths), state.slope)
        state.kl.append(kl)
        state.path.append(state.reached[rows.whole])
        move = direction(state.slope, [plan.trials[trial].granularity for trial in rows.trials])
        lengths = move.square().mean((1, 2, 3)).sqrt()
        # At first as far as is allowed, and never farther.
        state.rates = torch.minimum(state.rates, plan.learning_rate / lengths.clamp(min=_LEAST))
        tried = state.reached + state.rates.view(-1, 1, 1, 1) * move
        state.trying = tried.clamp(*map(math.log, plan.bounds))

    def _objective(self, parameters: Tensor, kl: Tensor) -> Tensor:
        """What each row makes small: the mean divergence on its training samples, and the penalty, `(rows,)`."""
        rows = self.rows
        return (kl * rows.trains).sum(1) / rows.trains.sum(1) + penalty(parameters, rows.strengths)

    def _curves(self, state: FitState) -> tuple[Floats, Floats]:
        """Each trial's divergences on samples that it learned from and on held-out ones, `(trials, steps, samples)`."""
        kl = torch.stack(state.kl).unflatten(1, (len(self.plan.trials), -1)).transpose(0, 1)
        # Of each sample, the row of the fold that it is in.
        fold = (~self.rows.trains[: kl.shape[2]]).to(torch.uint8).argmax(0)
        held_out = kl.gather(2, fold.expand(*kl.shape[:2], 1, -1))[:, :, 0]
        return kl[:, :, 0].numpy(), held_out.numpy()


def factors_from(parameters: Tensor, granularity: Granularity) -> Factors:
    """Tables from `(2 or 4, layers, heads)` logarithms that a granularity shares, rounded to six decimals."""
    layers, heads = (None if level in LEVELS[: LEVELS.index(granularity) + 1] else 1 for level in ("layer", "head"))
    shared = parameters[:, :layers, :heads]
    tables = [tuple(tuple(round(value, 6) for value in row) for row in table) for table in shared.exp().tolist()]
    return Factors(**dict(zip(NAMES, tables, strict=False)))


def _shape(lm: ServedModel, granularity: Granularity) -> tuple[int, int]:
    config = lm.engine.model.config.get_text_config()
    shapes: dict[Granularity, tuple[int, int]] = {
        "model": (1, 1),
        "layer": (config.num_hidden_layers, 1),
        "head": (config.num_hidden_layers, config.num_attention_heads),
    }
    return shapes[granularity]
