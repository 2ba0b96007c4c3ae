"""The race and the rules, on numbers that are made up: what they choose, what they save, how often they err."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.grid.stability import resample
from lm_eval_ape.calibration.search.race import FIRST_LOOK, Raced, looks, lower_bound, race
from lm_eval_ape.calibration.search.rule import Rival, Rule, frontier

SAMPLES = 168


def made_up(seed: int, encodings: int = 16, points: int = 4, ratio: float = 1.6) -> tuple[list[float], Floats]:
    """Costs, and KLs of samples whose difficulty, and how they take an encoding, have long tails."""
    rng = np.random.default_rng(seed)
    levels = rng.permutation(0.05 * ratio ** np.arange(encodings))[:, None]
    hard = rng.lognormal(sigma=1.0, size=(SAMPLES, 1, 1))
    taken = rng.lognormal(sigma=0.5, size=(SAMPLES, encodings, 1))
    noise = rng.lognormal(sigma=0.1, size=(SAMPLES, encodings, points))
    return rng.uniform(0.3, 1.0, encodings).tolist(), hard * taken * noise * levels


def run(costs: list[float], values: Floats, rule: Rule, *, racing: bool) -> tuple[Raced, int | None]:
    """The race, and what is chosen at its end."""

    def measure(live: Sequence[int], part: range) -> dict[int, Floats]:
        return {number: values[part.start : part.stop, number] for number in live}

    raced = race(costs, len(values), measure, rule, racing=racing)
    live = [number for number in range(len(costs)) if number not in raced.dropped]
    rivals = [Rival(costs[number], raced.values[number]) for number in live]
    picked = rule.pick(rivals, resample(len(values), 200, seed=1))
    return raced, None if picked is None else live[picked]


@pytest.mark.parametrize("rule", [Rule(), Rule(accept=0.3), Rule(budget=0.6)], ids=lambda rule: rule.name)
def test_a_race_chooses_as_without_it_and_measures_three_times_less(rule: Rule) -> None:
    same, measured, whole = 0, 0, 0
    for seed in range(100):
        costs, values = made_up(seed)
        raced, chosen = run(costs, values, rule, racing=True)
        same += chosen == run(costs, values, rule, racing=False)[1]
        measured += sum(map(len, raced.values))
        whole += values.shape[0] * values.shape[1]
    assert same >= 95
    assert whole / measured >= 3


@pytest.mark.parametrize("broken", [0, 30, 70, 127])
def test_what_was_left_out_for_a_cheaper_one_comes_back_when_that_one_fails(broken: int) -> None:
    # The cheapest two are next to nothing away, but for one hopeless sample each.
    values = np.full((128, 5, 1), 1e-5) * np.random.default_rng(0).lognormal(size=(128, 5, 1))
    values[broken, :2] = 9.0
    values[:, 4] = 1.0
    costs = [0.6, 0.65, 0.7, 0.8, 0.5]
    raced, chosen = run(costs, values, Rule(accept=0.05), racing=True)
    assert chosen == run(costs, values, Rule(accept=0.05), racing=False)[1] == 2
    assert np.array_equal(raced.values[2], values[:, 2])
    # Nothing dearer than what is chosen is measured to the end.
    assert len(raced.values[3]) < 128
    assert 3 in raced.dropped


def test_without_a_race_everything_is_measured() -> None:
    costs, values = made_up(0)
    raced, _ = run(costs, values, Rule(), racing=False)
    assert not raced.dropped
    assert all(np.array_equal(own, values[:, number]) for number, own in enumerate(raced.values))


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_a_bound_that_is_looked_at_all_the_time_is_seldom_wrong(error: float) -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(size=(200, 1000))
    ever = np.zeros(1000, dtype=bool)
    for count in range(FIRST_LOOK, 201, 4):
        ever |= lower_bound(differences[:count], error) > 0
    # A fixed interval at that error, looked at as often, would be wrong many times more often.
    assert ever.mean() <= error


def test_a_bound_approaches_the_mean() -> None:
    differences = np.random.default_rng(4).normal(1.0, 1.0, size=(20000, 1))
    assert 0.9 < lower_bound(differences, 0.001)[0] < differences.mean()


def test_samples_that_are_all_alike_are_not_certain_at_once() -> None:
    """Two greedy tokens that differ twice are no proof, though they have no scatter."""
    assert lower_bound(np.ones((2, 1)), 0.001)[0] < 0


def test_looks_begin_late_enough_and_end_with_the_last_sample() -> None:
    assert list(looks(3)) == [3]
    assert list(looks(8)) == [8]
    assert list(looks(21)) == [8, 12, 16, 20, 21]
    assert list(looks(168))[-1] == 168


def constant(*means: float) -> list[Floats]:
    """Two samples and one point for each encoding, whose differences have no scatter."""
    return [np.array([[mean - 0.1], [mean + 0.1]]) for mean in means]


WEIGHTS = resample(2, 100, seed=0)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # The nearest is the second; nothing else is within an error of it.
        (Rule(), 1),
        (Rule(accept=0.5), 0),
        (Rule(accept=0.35), 2),
        (Rule(accept=0.1), None),
        (Rule(budget=1.0), 1),
        (Rule(budget=0.6), 2),
        (Rule(budget=0.1), None),
    ],
    ids=str,
)
def test_rules_on_three_encodings(rule: Rule, expected: int | None) -> None:
    rivals = [Rival(cost, own) for cost, own in zip((0.2, 0.9, 0.5), constant(0.5, 0.2, 0.3), strict=True)]
    assert rule.pick(rivals, WEIGHTS) == expected
    assert set(rule.picks(rivals, WEIGHTS).tolist()) >= {-1 if expected is None else expected}


def test_a_cheaper_encoding_within_one_standard_error_of_the_best_is_taken() -> None:
    best = np.random.default_rng(0).gamma(2.0, size=(50, 1))
    error = best.std() / np.sqrt(50)
    for factor, expected in ((0.9, 1), (1.1, 0)):
        rivals = [Rival(0.9, best), Rival(0.3, best + factor * error)]
        assert Rule().pick(rivals, resample(50, 4000, seed=0)) == expected


def test_one_hopeless_sample_does_not_make_a_bad_encoding_as_good_as_the_best() -> None:
    """Its own scatter is no reason to take it: another one is cheaper and closer."""
    best, hopeless = np.full((20, 1), 1e-6), np.full((20, 1), 1e-6)
    hopeless[3] = 9.0
    rivals = [Rival(0.8, best * 2), Rival(0.9, hopeless), Rival(0.95, best)]
    assert Rule().pick(rivals, resample(20, 500, seed=0)) != 1


@pytest.mark.parametrize("rule", [Rule(), Rule(accept=1.0), Rule(budget=2.0)], ids=lambda rule: rule.name)
def test_what_costs_as_much_as_the_sequential_model_is_taken_only_if_nothing_cheaper_was_tried(rule: Rule) -> None:
    close, far = constant(0.2, 0.3)
    assert rule.pick([Rival(1.0, close), Rival(0.9, far)], WEIGHTS) == 1
    assert rule.pick([Rival(1.2, far), Rival(1.1, close)], WEIGHTS) == 1


def test_of_equally_cheap_ones_the_closest_and_of_equally_close_ones_the_cheapest() -> None:
    assert Rule(accept=1.0).pick([Rival(0.5, own) for own in constant(0.4, 0.2, 0.3)], WEIGHTS) == 1
    assert Rule(budget=1.0).pick([Rival(cost, constant(0.2)[0]) for cost in (0.5, 0.3, 0.4)], WEIGHTS) == 1


def test_medians_choose_by_medians() -> None:
    hopeless = np.array([[0.1], [0.1], [9.0]])
    middling = np.array([[0.5], [0.5], [0.5]])
    rivals = [Rival(0.5, hopeless), Rival(0.5, middling)]
    weights = resample(3, 50, seed=0)
    assert Rule(budget=1.0).pick(rivals, weights) == 1
    assert Rule(budget=1.0, average="median").pick(rivals, weights) == 0


def test_the_frontier_is_what_no_other_one_beats_in_both() -> None:
    costs, values = [0.2, 0.3, 0.3, 0.5, 0.6], [0.9, 0.4, 0.5, 0.6, 0.1]
    assert frontier(costs, values) == [True, True, False, False, True]
    # Equals are both on it.
    assert frontier([0.2, 0.2], [0.1, 0.1]) == [True, True]
