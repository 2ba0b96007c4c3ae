"""T and S of each layer and head by gradient descent on the teacher-forced KL.

All fits of a calibration run side by side as rows of one batch over the shared context keys: for each strength of the
penalty one row that learns from all fitting samples, and one for each fold that is held out. A step is one pass over
all samples and one step of Adam (Kingma and Ba, ICLR 2015) on log T and log S, its rate falling to 0 along half a
cosine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from lm_eval_ape.attention.factors import NAMES, Factors
from lm_eval_ape.calibration.gradient.differentiator import Differentiator, Gradient
from lm_eval_ape.calibration.gradient.fit_state import FitState, StateFile
from lm_eval_ape.calibration.gradient.folds import Parts
from lm_eval_ape.calibration.gradient.kept_contexts import Contexts
from lm_eval_ape.calibration.gradient.penalty import penalised
from lm_eval_ape.calibration.gradient.plan import Plan
from lm_eval_ape.calibration.objective.teacher import Teacher
from lm_eval_ape.engine.non_finite import NotFiniteError, explain
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.harness.samples import Sample


class Rows(NamedTuple):
    """What each row of a batch is.

    Attributes:
        strengths: Of its penalty, `(rows,)`.
        trains: Whether it learns from a sample, `(rows, samples)`.
        stops: Whether a sample decides when it is best, `(rows, samples)`.
        folds: Number of the fold that it leaves out, `(rows,)`; -1 where it learns from all fitting samples.
    """

    strengths: Tensor
    trains: Tensor
    stops: Tensor
    folds: Tensor

    @classmethod
    def of(cls, strengths: Sequence[float], parts: Parts) -> Rows:
        """For each strength, a row on all fitting samples, then one for each fold held out."""
        samples = len(parts.fitting) + len(parts.validation)

        def among(numbers: Sequence[int]) -> Tensor:
            return torch.zeros(samples, dtype=torch.bool).index_fill_(0, torch.tensor(numbers, dtype=torch.long), True)

        fitting = among(parts.fitting)
        trains, stops = [fitting], [among(parts.validation or parts.fitting)]
        for fold in parts.folds:
            trains.append(fitting & ~among(fold))
            stops.append(among(fold))
        count = len(strengths)
        return cls(
            torch.tensor(strengths, dtype=torch.float64).repeat_interleave(len(trains)),
            torch.stack(trains).repeat(count, 1),
            torch.stack(stops).repeat(count, 1),
            torch.arange(-1, len(parts.folds)).repeat(count),
        )


class Fitted(NamedTuple):
    """The result of a fit.

    Attributes:
        factors: T and S.
        strength: Of the penalty that was chosen.
        step: The step whose parameters were best, from 0.
        training: Mean divergence on the fitting samples at each step, in nats.
        stopping: Likewise on the validation samples (without them, on the fitting samples).
        held_out: For each strength tried, the least over steps of the mean divergence on held-out folds; empty without.
    """

    factors: Factors
    strength: float
    step: int
    training: list[float]
    stopping: list[float]
    held_out: dict[float, float]


class Fit:
    """Fits T and S on samples.

    Args:
        lm: The model.
        plan: How to fit.
        parts: Which samples are for what.
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
        parts: Parts,
        *,
        samples: Sequence[Sample],
        teachers: Mapping[int, Teacher],
        differentiator: Differentiator,
        contexts: Contexts,
        file: StateFile,
    ) -> None:
        self.lm = lm
        self.plan = plan
        self.rows = Rows.of(plan.strengths, parts)
        self.samples = samples
        self.teachers = teachers
        self.differentiator = differentiator
        self.contexts = contexts
        self.file = file

    def run(self) -> Fitted:
        """Fit, or go on with a fit that was stopped."""
        plan = self.plan
        state = self.lm.processes.from_first(self.file.load()) or self._begin()
        optimiser = torch.optim.Adam([state.parameters], lr=plan.learning_rate)
        if state.optimiser:
            optimiser.load_state_dict({**optimiser.state_dict(), "state": {0: state.optimiser}})
        quiet = self.lm.processes.rank != 0
        with tqdm(total=plan.steps + 1, desc="Fitting T and S", unit="step", initial=state.steps, disable=quiet) as bar:
            while not self._finished(state):
                training, stopping, slope = self._measure(state.parameters)
                state.measured(training, stopping)
                bar.update()
                row = self._chosen(state)
                bar.set_postfix_str(f"KL training {training[row]:.4f}, validation {stopping[row]:.4f}")
                if not self._finished(state):
                    self._step(optimiser, state, slope)
                state.optimiser = optimiser.state_dict()["state"].get(0, {})
                if self.lm.processes.rank == 0:
                    self.file.save(state)
        return self._result(state)

    def _begin(self) -> FitState:
        layers, heads = _shape(self.lm, self.plan.granularity)
        start = [self.plan.start.temperature, self.plan.start.scale, *([1.0, 1.0] if self.plan.prefix else [])]
        one = torch.tensor(start, dtype=torch.float64).log().view(1, -1, 1, 1)
        parameters = one.repeat(len(self.rows.strengths), 1, layers, heads)
        return FitState(parameters, {}, parameters.clone())

    def _finished(self, state: FitState) -> bool:
        return state.steps > self.plan.steps or (state.steps > 0 and state.idle() >= self.plan.patience)

    def _measure(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean divergences on each row's training and stopping samples, and the mean slope on the training samples."""
        found = []
        for number in self.lm.processes.own(len(self.samples)):
            trains = self.rows.trains[:, number]
            needed = (trains | self.rows.stops[:, number]).nonzero()[:, 0]
            own = self._differentiate(number, parameters[needed], trains[needed])
            found.append((number, (number, needed, own)))
        kl = torch.zeros(len(parameters), len(self.samples), dtype=torch.float64)
        slope = torch.zeros_like(parameters)
        # In the samples' order whichever process had them, so that sums round alike.
        for number, needed, own in self.lm.processes.put_together(found):
            kl[needed, number] = own.kl
            slope[needed] += own.slope
        training, stopping = ((kl * mask).sum(1) / mask.sum(1) for mask in (self.rows.trains, self.rows.stops))
        return training, stopping, slope / self.rows.trains.sum(1).view(-1, 1, 1, 1)

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

    def _step(self, optimiser: torch.optim.Optimizer, state: FitState, slope: Tensor) -> None:
        plan = self.plan
        done = (state.steps - 1) / plan.steps
        for group in optimiser.param_groups:
            group["lr"] = plan.learning_rate * (1 + math.cos(math.pi * done)) / 2
        state.parameters.grad = penalised(slope, state.parameters, self.rows.strengths)
        optimiser.step()
        state.parameters.grad = None
        state.parameters.clamp_(*map(math.log, plan.bounds))

    def _held_out(self, state: FitState) -> dict[float, float]:
        curves = torch.stack(state.stopping)
        held_out = {}
        for strength in self.plan.strengths:
            rows = (self.rows.strengths == strength) & (self.rows.folds >= 0)
            if rows.any():
                # Folds differ in size by one sample at most.
                weights = self.rows.stops[rows].sum(1).to(curves)
                held_out[strength] = float(((curves[:, rows] @ weights) / weights.sum()).min())
        return held_out

    def _chosen(self, state: FitState) -> int:
        """The row on all fitting samples with the best strength; of equally good ones the largest."""
        held_out = self._held_out(state)
        strengths = self.plan.strengths
        best = min(reversed(strengths), key=lambda one: held_out[one]) if held_out else strengths[0]
        return int(((self.rows.strengths == best) & (self.rows.folds < 0)).nonzero()[0, 0])

    def _result(self, state: FitState) -> Fitted:
        row = self._chosen(state)
        stopping = torch.stack(state.stopping)[:, row]
        return Fitted(
            factors_from(state.best[row]),
            float(self.rows.strengths[row]),
            int(stopping.argmin()),
            torch.stack(state.training)[:, row].tolist(),
            stopping.tolist(),
            self._held_out(state),
        )


def factors_from(parameters: Tensor) -> Factors:
    """Tables from `(2 or 4, layers, heads)` logarithms, rounded to six decimals."""
    tables = [tuple(tuple(round(value, 6) for value in row) for row in table) for table in parameters.exp().tolist()]
    return Factors(**dict(zip(NAMES, tables, strict=False)))


def _shape(lm: ServedModel, granularity: str) -> tuple[int, int]:
    config = lm.engine.model.config.get_text_config()
    shapes = {
        "model": (1, 1),
        "layer": (config.num_hidden_layers, 1),
        "head": (config.num_hidden_layers, config.num_attention_heads),
    }
    return shapes[granularity]
