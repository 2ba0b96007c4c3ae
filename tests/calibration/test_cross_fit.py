"""Which step and penalty are taken from noisy curves, and that noise alone is never taken for a gain."""

from __future__ import annotations

import numpy as np
import pytest

from lm_eval_ape.calibration.gradient.cross_fit import Held, Taken, choose_level, take, unseen
from lm_eval_ape.calibration.gradient.folds import part
from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.grid.stability import resample


def noise(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape)


def test_the_least_mean_is_taken_where_samples_agree() -> None:
    # Every sample gains the same at each step up to the third: the least has no error.
    falling = np.array([3.0, 2.0, 1.0, 0.5, 0.7])[:, None] + noise(1, 6)
    assert take(np.stack([falling + 1, falling])) == Taken(1, 3)


def test_the_first_step_within_one_standard_error_is_taken() -> None:
    # The last step is 0.1 lower in the mean, by differences of -1.1 and 0.9: standard error 0.447.
    start = np.zeros(6)
    curves = np.stack([start + 1, start, start + np.array([-1.1, 0.9] * 3)])[None]
    assert curves.mean(-1).argmin() == 2
    assert take(curves) == Taken(0, 1)
    # Of differences of -0.11 and -0.09 it is 0.0045.
    assert take(np.stack([start + 1, start, start + np.array([-0.11, -0.09] * 3)])[None]) == Taken(0, 2)


def test_of_equal_trials_the_first_is_taken() -> None:
    curves = noise(1, 4, 5).repeat(2, axis=0)
    assert take(curves).trial == 0


def test_penalty_and_step_of_a_sample_owe_nothing_to_its_own_divergence() -> None:
    folds = part(8, folds=4, seed=0)
    curves = noise(2, 5, 8)
    found = unseen(curves, folds)
    for fold in folds:
        others = [number for number in range(8) if number not in fold]
        trial, step = take(curves[:, :, others])
        assert found[list(fold)].tolist() == curves[trial, step, list(fold)].tolist()
        # Whatever the fold's own divergences are, the same penalty and step are taken.
        changed = curves.copy()
        changed[:, :, list(fold)] = 100 * noise(2, 5, len(fold), seed=1)
        assert unseen(changed, folds)[list(fold)].tolist() == changed[trial, step, list(fold)].tolist()


def test_noise_is_refused_though_the_least_of_its_means_is_below_the_start() -> None:
    folds = part(12, folds=4, seed=0)
    weights = resample(12, 999, 0)
    taken = naive = 0
    for seed in range(200):
        curves = 1 + 0.1 * noise(2, 13, 12, seed=seed)
        curves[:, 0] = 1 + 0.1 * noise(12, seed=1000 + seed)
        naive += bool(curves.mean(-1).min() < curves[0, 0].mean())
        taken += Held.of(curves, folds, weights).better
    assert naive > 190
    # One side of a 95% interval, which twelve samples make a little too narrow: 5%, not 2.5%.
    assert taken <= 20


def test_a_common_gain_is_taken() -> None:
    gains = np.linspace(0, 0.5, 9)[:, None] * (1 + 0.2 * noise(12))
    curves = (2 + noise(12, seed=1) - gains)[None]
    held = Held.of(curves, part(12, folds=4, seed=0), resample(12, 999, 0))
    assert held.better
    assert held.less.low > 0.3
    assert held.kl.mean() == pytest.approx(held.start.mean() - held.less.mean)


def test_the_level_with_the_least_held_out_divergence_is_chosen_of_those_that_are_better() -> None:
    folds, weights = part(12, folds=4, seed=0), resample(12, 999, 0)
    start = 2 + noise(12)

    def level(gain: float, spread: float = 0.01) -> Held:
        return Held.of(np.stack([start, start - gain + spread * noise(12, seed=2)])[None], folds, weights)

    small, large, none, unsure = level(0.1), level(0.3), level(-0.1), level(0.5, 5.0)
    assert [one.better for one in (small, large, none, unsure)] == [True, True, False, False]
    assert choose_level([small, large, none]) == 1
    assert choose_level([large, small, unsure]) == 0
    assert choose_level([none, unsure]) is None
    assert choose_level([small, small]) == 0
