"""Fits descend, stop, resume, and are held together by the penalty."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lm_eval_ape.artefacts.points import DEFAULT, Point
from lm_eval_ape.calibration.gradient.differentiator import Differentiator
from lm_eval_ape.calibration.gradient.fit import Fit, Fitted
from lm_eval_ape.calibration.gradient.fit_state import StateFile
from lm_eval_ape.calibration.gradient.folds import part
from lm_eval_ape.calibration.gradient.kept_contexts import Contexts
from lm_eval_ape.calibration.gradient.penalty import penalised
from lm_eval_ape.calibration.gradient.plan import Plan
from lm_eval_ape.calibration.grid.grid import make_grid
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.prompts.prompt import Prompt


def tokens(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(5, 300, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def sample(seed: int) -> Sample:
    prompt = Prompt(tokens(3, seed), (tokens(7, seed + 1), tokens(5, seed + 2)), tokens(4, seed + 3))
    return Sample("task", seed, 0, prompt, str(seed))


SAMPLES = [sample(10 * number) for number in range(4)]
PLAN = Plan("head", False, DEFAULT, 4, 0.1, 100, (0.25, 4.0), (0.1,))


class Bench:
    """Fits on the same samples."""

    def __init__(self, lm: ApeHFLM) -> None:
        self.lm = lm
        self.meter = Meter(lm, Objective(2, "teacher", "continue"), max_rows=None, cache=None)
        self.teachers = [self.meter.teacher(one) for one in SAMPLES]

    def fit(self, plan: Plan = PLAN, *, share: float = 0.25, folder: Path | None = None, **options: Any) -> Fitted:
        return self.make(plan, share=share, folder=folder, **options).run()

    def make(self, plan: Plan, *, share: float, folder: Path | None, limit: int | None = None) -> Fit:
        folds = 2 if len(plan.strengths) > 1 else 0
        return Fit(
            self.lm,
            plan,
            part(len(SAMPLES), validation_share=share, folds=folds, seed=3),
            samples=SAMPLES,
            teachers=self.teachers,
            differentiator=Differentiator(self.lm),
            contexts=Contexts(self.lm, limit),
            file=StateFile(folder, "fit"),
        )


@pytest.fixture
def bench(load: Callable[..., ApeHFLM]) -> Bench:
    return Bench(load())


def test_one_value_for_the_model_is_at_least_as_good_as_the_finest_grid(bench: Bench) -> None:
    axis = np.geomspace(0.4, 2.5, 13)
    grid = make_grid(axis.tolist(), axis.tolist(), num_tokens=2)
    finest = bench.meter.measure(SAMPLES, grid.points).kl.mean(0)
    plan = replace(PLAN, granularity="model", steps=20, strengths=(0.0,), bounds=(0.4, 2.5))
    # The divergence of a random model has several valleys: start in the grid's own, but not at its best point.
    near = Point(*(round(value, 1) for value in grid.points[int(finest.argmin())]))
    fitted = bench.fit(replace(plan, start=near), share=0)
    own = Point(fitted.factors.temperature[0][0], fitted.factors.scale[0][0])
    assert bench.meter.measure(SAMPLES, [own]).kl.mean() <= finest.min() + 1e-9
    assert min(fitted.training) < fitted.training[0]


def test_more_values_fit_the_samples_better(bench: Bench) -> None:
    least = {
        granularity: min(bench.fit(replace(PLAN, granularity=granularity, steps=5, strengths=(0.0,)), share=0).training)
        for granularity in ("model", "layer", "head")
    }
    assert least["head"] < least["layer"] < least["model"]


def test_two_runs_end_with_the_same_bytes(bench: Bench) -> None:
    plan = replace(PLAN, strengths=(0.0, 1.0), prefix=True)
    first, second = (bench.fit(plan) for _ in range(2))
    assert first == second
    assert first.factors.digest == second.factors.digest
    assert first.factors.prefix_scale is not None


def test_a_killed_fit_goes_on_where_it_stopped(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLAN, strengths=(0.0, math.inf))
    whole = bench.fit(plan)
    killed = bench.make(plan, share=0.25, folder=tmp_path)
    measure, steps = killed._measure, []

    def dying(parameters: torch.Tensor) -> Any:
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(1)
        return measure(parameters)

    monkeypatch.setattr(killed, "_measure", dying)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    resumed = bench.make(plan, share=0.25, folder=tmp_path)
    again, asked = resumed._measure, []
    monkeypatch.setattr(resumed, "_measure", lambda parameters: asked.append(1) or again(parameters))
    assert resumed.run() == whole
    assert len(asked) == PLAN.steps + 1 - 2
    # A finished one asks for nothing.
    assert bench.fit(plan, folder=tmp_path) == whole


def test_a_damaged_state_is_told_and_the_fit_starts_anew(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = bench.fit(folder=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (b"half a fi", whole[:-1], whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]):
        file.write_bytes(damaged)
        caplog.clear()
        assert bench.fit(folder=tmp_path) == expected
        assert f"{file} is left aside and the fit starts anew" in caplog.text
        assert file.read_bytes() == whole


def test_an_infinite_penalty_is_one_value_for_the_model(bench: Bench) -> None:
    together = bench.fit(replace(PLAN, strengths=(math.inf,)), share=0)
    values = {value for row in together.factors.temperature for value in row}
    assert len(values) == 1
    assert values != {DEFAULT.temperature}


def test_a_stronger_penalty_keeps_heads_closer_together(bench: Bench) -> None:
    spreads = []
    for strength in (0.0, 30.0):
        fitted = bench.fit(replace(PLAN, steps=8, strengths=(strength,)), share=0)
        spreads.append(float(np.log(fitted.factors.scale).std()))
    assert spreads[1] < 0.8 * spreads[0]


def test_the_penalty_with_the_least_held_out_divergence_is_taken(bench: Bench) -> None:
    fitted = bench.fit(replace(PLAN, strengths=(0.0, 0.1, math.inf)))
    assert set(fitted.held_out) == {0.0, 0.1, math.inf}
    assert fitted.held_out[fitted.strength] == min(fitted.held_out.values())


def test_a_fit_stops_when_validation_no_longer_improves(bench: Bench) -> None:
    fitted = bench.fit(replace(PLAN, steps=30, patience=3, learning_rate=0.5))
    assert len(fitted.stopping) < 31
    assert fitted.stopping[fitted.step] == min(fitted.stopping)
    assert len(fitted.stopping) - 1 - fitted.step == 3


def test_values_stay_within_their_bounds(bench: Bench) -> None:
    fitted = bench.fit(replace(PLAN, steps=4, learning_rate=0.5, bounds=(0.8, 1.1), strengths=(0.0,)), share=0)
    values = np.array([fitted.factors.temperature, fitted.factors.scale])
    assert values.min() >= 0.8
    assert values.max() <= 1.1
    assert {values.min(), values.max()} & {0.8, 1.1}


def test_contexts_beyond_the_memory_granted_are_encoded_again(bench: Bench) -> None:
    assert bench.fit(limit=1) == bench.fit()
    few = Contexts(bench.lm, None)
    encoded = few.get(0, SAMPLES[0].prompt)
    # Three layers of two heads of eight dimensions in float64, keys and values.
    assert few.bytes == 3 * 2 * 8 * 8 * 2 * (3 + 12)
    assert few.get(0, SAMPLES[0].prompt) is encoded


def test_the_penaltys_slope_is_that_of_its_formula() -> None:
    parameters = torch.randn(3, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    strengths = torch.tensor([0.0, 0.5, math.inf], dtype=torch.float64)
    value = sum(0.5 * ((row - row.mean()) ** 2).mean() for row in parameters[1])
    (expected,) = torch.autograd.grad(value, parameters)
    slope = torch.randn(3, 2, 3, 4, dtype=torch.float64)
    found = penalised(slope, parameters.detach(), strengths)
    assert torch.allclose(found[:2], (slope + expected)[:2], atol=1e-12)
    assert torch.allclose(found[2], slope[2].mean((-2, -1), keepdim=True).expand(2, 3, 4))
