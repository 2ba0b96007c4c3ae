"""The bootstrap equals a loop over resamples, and tells stable from unstable."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.grid.choice import TIE, Table, choose, nearest_to_neutral
from lm_eval_ape.calibration.grid.grid import Grid
from lm_eval_ape.calibration.grid.stability import Stability, difference, resample, stability

GRID = Grid((0.6, 0.8, 1.0), (0.7, 1.0))


def table(samples: int, seed: int) -> Table:
    return Table(GRID, GRID.reported, np.random.default_rng(seed).gamma(2.0, size=(samples, len(GRID.reported))))


def test_resamples_draw_with_replacement() -> None:
    weights = resample(7, 2000, seed=3)
    assert weights.shape == (2000, 7)
    assert np.allclose(weights.sum(1), 1)
    assert np.allclose(weights * 7, np.round(weights * 7))
    # A sample is left out of a resample with probability (1 - 1/7)**7.
    assert (weights == 0).mean() == pytest.approx((6 / 7) ** 7, abs=0.02)


def test_the_vectorised_bootstrap_is_the_loop() -> None:
    given = table(9, seed=0)
    weights = resample(9, 200, seed=1)
    picks = []
    for row in weights:
        drawn = [index for index, weight in enumerate(row) for _ in range(round(weight * 9))]
        picks.append(choose(Table(GRID, given.points, given.kl[drawn]), GRID.points).point)
    found = stability(given, weights)
    assert [tuple(pair) for pair in zip(found.temperature.values, found.scale.values, strict=True)] == picks
    for point in set(picks):
        assert found.frequencies[point] == pytest.approx(picks.count(point) / 200)
    temperatures = [point.temperature for point in picks]
    assert found.temperature.mode == max(set(temperatures), key=temperatures.count)
    assert found.temperature.low == pytest.approx(np.quantile(temperatures, 0.025))
    assert found.temperature.high == pytest.approx(np.quantile(temperatures, 0.975))


def test_resampling_does_not_depend_on_the_order_of_the_grid() -> None:
    given = table(9, seed=0)
    order = list(range(len(given.points)))
    random.Random(0).shuffle(order)
    shuffled = Table(GRID, tuple(given.points[i] for i in order), given.kl[:, order])
    weights = resample(9, 100, seed=1)
    assert stability(given, weights).frequencies == stability(shuffled, weights).frequencies


def test_samples_that_agree_are_stable_and_samples_that_do_not_are_unstable() -> None:
    agreeing = table(8, seed=2)
    agreeing.kl[:, agreeing.points.index(Point(0.8, 1.0))] = 0.0
    found = stability(agreeing, resample(8, 500, seed=0))
    assert found.frequencies == {Point(0.8, 1.0): 1.0}
    assert found.temperature.stable
    assert found.scale.stable
    split = table(8, seed=2)
    split.kl[:4, split.points.index(Point(0.6, 1.0))] = 0.0
    split.kl[4:, split.points.index(Point(1.0, 1.0))] = 0.0
    found = stability(split, resample(8, 500, seed=0))
    assert found.temperature.width == pytest.approx(0.4)
    assert not found.temperature.stable


@pytest.mark.parametrize(("low", "stable"), [(0.7, True), (0.69, False), (0.65, False)])
def test_an_interval_as_wide_as_the_threshold_is_stable_and_a_wider_one_is_not(low: float, stable: bool) -> None:
    # In binary fractions 0.8 - 0.7 is a little more than 0.1.
    grid = Grid((low, 0.8), (1.0,))
    kl = np.array([[0.0, 1.0], [1.0, 0.0]])
    kl = np.concatenate([kl, np.ones((2, len(grid.reported) - 2))], axis=1)
    found = stability(Table(grid, grid.reported, kl), resample(2, 500, seed=0)).temperature
    assert (found.low, found.high) == (low, 0.8)
    assert found.stable == stable


def test_a_seed_gives_the_same_resamples_each_time_and_another_one_others() -> None:
    assert np.array_equal(resample(9, 50, seed=4), resample(9, 50, seed=4))
    assert not np.array_equal(resample(9, 50, seed=4), resample(9, 50, seed=5))


def test_a_paired_difference_has_the_mean_interval_and_probability_of_its_resamples() -> None:
    first, second = np.array([1.0, 2.0, 4.0]), np.array([1.5, 1.0, 1.0])
    weights = resample(3, 400, seed=5)
    found = difference(first, second, weights)
    means = [np.repeat([-0.5, 1.0, 3.0], np.round(row * 3).astype(int)).mean() for row in weights]
    assert found.mean == pytest.approx(3.5 / 3)
    assert (found.low, found.high) == pytest.approx((np.quantile(means, 0.025), np.quantile(means, 0.975)))
    assert found.positive == pytest.approx(np.mean([mean > 0 for mean in means]))


def chosen_by(grid: Grid, picks: list[int], order: list[Point]) -> Stability:
    """The stability where resample number i picks the point `order[picks[i]]`."""
    kl = np.ones((len(order), len(grid.reported)))
    for sample, point in enumerate(order):
        kl[sample, grid.reported.index(point)] = 0.0
    return stability(Table(grid, grid.reported, kl), np.eye(len(order))[picks])


def test_the_mode_is_the_most_frequent_choice_and_of_equally_frequent_ones_the_largest() -> None:
    grid = Grid((0.6, 0.8, 1.0), (1.0,))
    points = [Point(0.6, 1.0), Point(0.8, 1.0), Point(1.0, 1.0)]
    often = chosen_by(grid, [0, 0, 0, 1, 2], points)
    assert often.temperature.mode == 0.6
    assert next(iter(often.frequencies.items())) == (points[0], 0.6)
    equally = chosen_by(grid, [0, 0, 2, 2, 1], points)
    assert equally.temperature.mode == 1.0
    # Most frequent first, and of equally frequent ones the nearest to (1, 1).
    assert list(equally.frequencies.items()) == [(points[2], 0.4), (points[0], 0.4), (points[1], 0.2)]


def test_points_that_are_chosen_equally_often_stand_in_the_order_of_their_distance_to_neutral() -> None:
    axis = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
    grid = Grid(axis, axis)
    points = list(nearest_to_neutral(grid.points))
    found = chosen_by(grid, [*range(49), *range(30, 49)], points)
    assert list(found.frequencies) == [*points[30:], *points[:30]]


def test_of_means_within_a_tie_each_resample_takes_the_nearest_to_neutral() -> None:
    grid = Grid((0.6, 1.0), (1.0,))
    kl = np.ones((2, len(grid.reported)))
    kl[:, grid.reported.index(Point(0.6, 1.0))] = 0.1
    kl[:, grid.reported.index(Point(1.0, 1.0))] = 0.1 + TIE / 2
    assert stability(Table(grid, grid.reported, kl), resample(2, 20, seed=0)).frequencies == {Point(1.0, 1.0): 1.0}
