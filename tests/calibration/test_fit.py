"""Fits descend level by level, stop, resume, and are held together by the penalty."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lm_eval_ape.artefacts.points import DEFAULT, Granularity, Point
from lm_eval_ape.attention.factors import Factors
from lm_eval_ape.calibration.gradient.cross_fit import take
from lm_eval_ape.calibration.gradient.descent import Level, judge
from lm_eval_ape.calibration.gradient.differentiator import Differentiator
from lm_eval_ape.calibration.gradient.fit import Fit, Fitted, factors_from
from lm_eval_ape.calibration.gradient.fit_state import StateFile
from lm_eval_ape.calibration.gradient.folds import part
from lm_eval_ape.calibration.gradient.kept_contexts import Contexts
from lm_eval_ape.calibration.gradient.levels import direction
from lm_eval_ape.calibration.gradient.penalty import penalised, penalty
from lm_eval_ape.calibration.gradient.plan import Plan
from lm_eval_ape.calibration.grid.candidates import middle
from lm_eval_ape.calibration.grid.grid import make_grid
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.grid.stability import resample
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
FOLDS = part(len(SAMPLES), folds=2, seed=3)
PLAN = Plan("head", False, DEFAULT, 4, 0.1, 100, (0.25, 4.0), (0.1,))


class Bench:
    """Fits on the same samples."""

    def __init__(self, lm: ApeHFLM) -> None:
        self.lm = lm
        self.meter = Meter(lm, Objective(2, "teacher", "continue"), max_rows=None, cache=None)
        self.teachers = [self.meter.teacher(one) for one in SAMPLES]

    def fit(self, plan: Plan = PLAN, *, folder: Path | None = None, **options: Any) -> Fitted:
        return self.make(plan, folder=folder, **options).run()

    def make(self, plan: Plan, *, folder: Path | None, limit: int | None = None) -> Fit:
        return Fit(
            self.lm,
            plan,
            FOLDS,
            samples=SAMPLES,
            teachers=self.teachers,
            differentiator=Differentiator(self.lm),
            contexts=Contexts(self.lm, limit),
            file=StateFile(folder, "fit"),
        )

    def levels(self, plan: Plan = PLAN) -> list[Level]:
        return judge(plan, self.fit(plan), FOLDS, resample(len(SAMPLES), 99, 0))


def equal(first: Fitted, second: Fitted) -> bool:
    """Whether two fits are the same to the last bit."""
    return torch.equal(first.path, second.path) and all(map(np.array_equal, first[1:], second[1:]))


def last(fitted: Fitted, plan: Plan = PLAN, trial: int = -1) -> Factors:
    """T and S of a trial's last step."""
    return factors_from(fitted.path[-1, trial], plan.trials[trial].granularity)


@pytest.fixture
def bench(load: Callable[..., ApeHFLM]) -> Bench:
    return Bench(load())


def test_one_value_for_the_model_is_at_least_as_good_as_the_finest_grid(bench: Bench) -> None:
    axis = np.geomspace(0.4, 2.5, 13)
    grid = make_grid(axis.tolist(), axis.tolist(), num_tokens=2)
    finest = bench.meter.measure(SAMPLES, grid.points).kl.mean(0)
    plan = replace(PLAN, granularity="model", steps=20, bounds=(0.4, 2.5))
    # The divergence of a random model has several valleys: start in the grid's own, but not at its best point.
    near = Point(*(round(value, 1) for value in grid.points[int(finest.argmin())]))
    fitted = bench.fit(replace(plan, start=near))
    best = int(fitted.training[0].mean(-1).argmin())
    own = middle(factors_from(fitted.path[best, 0], "model"))
    assert bench.meter.measure(SAMPLES, [own]).kl.mean() <= finest.min() + 1e-9
    assert best > 0


def test_more_values_fit_the_samples_better(bench: Bench) -> None:
    fitted = bench.fit(replace(PLAN, steps=5, strengths=(0.0,)))
    model, layer, head = fitted.training.mean(-1).min(-1)
    assert head < layer < model


def test_a_level_shares_what_it_is_said_to_share(bench: Bench) -> None:
    model, layer, head = bench.fit(replace(PLAN, strengths=(0.0,))).path[-1]
    assert torch.allclose(model, model.mean((-2, -1), keepdim=True).expand_as(model), atol=1e-12)
    assert torch.allclose(layer, layer.mean(-1, keepdim=True).expand_as(layer), atol=1e-12)
    assert layer.std(-2).min() > 1e-3
    assert head.std(-1).min() > 1e-3
    assert factors_from(model, "model").shape == (1, 1)
    assert factors_from(layer, "layer").shape == (3, 1)
    assert factors_from(head, "head").shape == (3, 4)


def test_held_out_divergences_are_of_fits_that_never_saw_the_sample(bench: Bench) -> None:
    fitted = bench.fit()
    for fold in FOLDS:
        others = [number for number in range(len(SAMPLES)) if number not in fold]
        alone = Fit(
            bench.lm,
            PLAN,
            tuple((number,) for number in range(len(others))),
            samples=[SAMPLES[number] for number in others],
            teachers={place: bench.teachers[number] for place, number in enumerate(others)},
            differentiator=Differentiator(bench.lm),
            contexts=Contexts(bench.lm, None),
            file=StateFile(None, ""),
        ).run()
        path = [factors_from(step[-1], "head") for step in alone.path]
        expected = bench.meter.measure([SAMPLES[number] for number in fold], path).kl
        assert np.allclose(fitted.held_out[-1][:, list(fold)].T, expected, atol=1e-5)
    assert np.ptp(fitted.held_out[-1], axis=0).min() > 1e-4


def test_two_runs_end_with_the_same_bytes(bench: Bench) -> None:
    plan = replace(PLAN, strengths=(0.0, 1.0), prefix=True)
    first, second = (bench.fit(plan) for _ in range(2))
    assert equal(first, second)
    assert last(first, plan).digest == last(second, plan).digest
    assert last(first, plan).prefix_scale is not None


def test_a_killed_fit_goes_on_where_it_stopped(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLAN, strengths=(0.0, 1.0))
    whole = bench.fit(plan)
    killed = bench.make(plan, folder=tmp_path)
    measure, steps = killed._measure, []

    def dying(parameters: torch.Tensor, **given: Any) -> Any:
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(1)
        return measure(parameters, **given)

    monkeypatch.setattr(killed, "_measure", dying)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    resumed = bench.make(plan, folder=tmp_path)
    again, asked = resumed._measure, []
    monkeypatch.setattr(resumed, "_measure", lambda *given, **named: asked.append(1) or again(*given, **named))
    assert equal(resumed.run(), whole)
    assert len(asked) == PLAN.steps + 1 - 2
    # A finished one asks for nothing.
    monkeypatch.setattr(Fit, "_measure", lambda *_, **__: pytest.fail("measured again"))
    assert equal(bench.fit(plan, folder=tmp_path), whole)


def test_a_damaged_state_is_told_and_the_fit_starts_anew(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = bench.fit(folder=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (b"half a fi", whole[:-1], whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]):
        file.write_bytes(damaged)
        caplog.clear()
        assert equal(bench.fit(folder=tmp_path), expected)
        assert f"{file} is left aside and the fit starts anew" in caplog.text
        assert file.read_bytes() == whole


def test_an_infinite_penalty_is_one_value_for_the_model(bench: Bench) -> None:
    (level,) = bench.levels(replace(PLAN, strengths=(math.inf,)))
    assert level.trial == ("model", 0.0)
    assert isinstance(level.candidate, Point)


def test_a_stronger_penalty_keeps_heads_closer_together(bench: Bench) -> None:
    spreads = []
    for strength in (0.0, 30.0):
        plan = replace(PLAN, steps=8, strengths=(strength,))
        spreads.append(float(np.log(last(bench.fit(plan), plan).scale).std()))
    assert spreads[1] < 0.8 * spreads[0]


def test_penalty_and_step_are_those_that_held_out_divergences_choose(bench: Bench) -> None:
    plan = replace(PLAN, strengths=(0.0, 0.1, 5.0))
    fitted = bench.fit(plan)
    levels = judge(plan, fitted, FOLDS, resample(len(SAMPLES), 99, 0))
    assert [level.trial.granularity for level in levels] == ["model", "layer", "head"]
    head = levels[-1]
    # The strongest first.
    taken = take(fitted.held_out[[6, 5, 4]])
    assert head.held.taken == taken
    assert head.trial.strength == (5.0, 0.1, 0.0)[taken.trial]
    assert set(head.penalties) == {0.0, 0.1, 5.0}
    assert head.candidate == factors_from(fitted.path[taken.step, 6 - taken.trial], "head")
    assert head.held_out.tolist() == fitted.held_out[6 - taken.trial].mean(-1).tolist()


def test_a_fit_stops_when_held_out_divergence_no_longer_improves(bench: Bench) -> None:
    fitted = bench.fit(replace(PLAN, steps=30, patience=3, learning_rate=0.5))
    steps = fitted.held_out.shape[1]
    assert steps < 31
    assert steps - 1 - fitted.held_out.mean(-1).argmin(-1).max() == 3


def test_values_stay_within_their_bounds(bench: Bench) -> None:
    plan = replace(PLAN, steps=4, learning_rate=0.5, bounds=(0.8, 1.1), strengths=(0.0,))
    factors = last(bench.fit(plan), plan)
    values = np.array([factors.temperature, factors.scale])
    assert values.min() >= 0.8
    assert values.max() <= 1.1
    assert {values.min(), values.max()} & {0.8, 1.1}


def test_contexts_beyond_the_memory_granted_are_encoded_again(bench: Bench) -> None:
    assert equal(bench.fit(limit=1), bench.fit())
    few = Contexts(bench.lm, None)
    encoded = few.get(0, SAMPLES[0].prompt)
    # Three layers of two heads of eight dimensions in float64, keys and values.
    assert few.bytes == 3 * 2 * 8 * 8 * 2 * (3 + 12)
    assert few.get(0, SAMPLES[0].prompt) is encoded


def test_what_heads_have_in_common_moves_farther_than_what_is_their_own() -> None:
    slope = torch.randn(1, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layers, whole = slope.mean(-1, keepdim=True), slope.mean((-2, -1), keepdim=True)
    expected = {"model": whole.expand_as(slope), "layer": whole + layers.expand_as(slope)}
    expected["head"] = expected["layer"] + slope
    finest: list[Granularity] = ["model", "layer", "head"]
    for level, found in zip(finest, direction(slope.repeat(3, 1, 1, 1), finest), strict=True):
        assert torch.allclose(found, -expected[level][0])
    # A slope that is common to all is taken three times, one that sums to 0 in each layer once.
    common, own = torch.ones_like(slope), slope - layers
    assert torch.allclose(direction(common, ["head"]), -3 * common)
    assert torch.allclose(direction(own, ["head"]), -own)


def test_no_step_makes_the_objective_larger_and_none_is_longer_than_allowed(bench: Bench) -> None:
    plan = replace(PLAN, steps=10, learning_rate=0.3, strengths=(0.0,))
    fitted = bench.fit(plan)
    means = fitted.training.mean(-1)
    assert (np.diff(means) <= 0).all()
    assert (means[:, -1] < means[:, 0]).all()
    lengths = fitted.path.diff(dim=0).square().mean((2, 3, 4)).sqrt()
    assert lengths.max() < 0.3 + 1e-9
    # Some steps were taken back.
    assert (lengths == 0).any()


def test_the_penaltys_slope_is_that_of_its_formula() -> None:
    parameters = torch.randn(3, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    strengths = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    value = torch.stack(
        [w * sum(((one - one.mean()) ** 2).mean() for one in row) for w, row in zip(strengths, parameters, strict=True)]
    )
    assert torch.allclose(penalty(parameters, strengths), value)
    (expected,) = torch.autograd.grad(value.sum(), parameters)
    slope = torch.randn(3, 2, 3, 4, dtype=torch.float64)
    assert torch.allclose(penalised(slope, parameters.detach(), strengths), slope + expected, atol=1e-12)
