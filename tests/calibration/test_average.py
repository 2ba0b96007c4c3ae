"""Averages over samples, beside NumPy's and SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import trim_mean

from lm_eval_ape.calibration.grid.average import Floats, average, averages
from lm_eval_ape.calibration.grid.stability import resample
from lm_eval_ape.calibration.objective.objective import AVERAGES, Average


def known(values: Floats, how: Average) -> Floats:
    """What NumPy and SciPy say; SciPy leaves whole samples out, so tens of them are asked for."""
    ways = {"mean": np.mean, "median": np.median, "trimmed_mean": lambda one, axis: trim_mean(one, 0.1, axis)}
    found: Floats = ways[how](values, axis=0)
    return found


@pytest.mark.parametrize("samples", [10, 20, 50])
@pytest.mark.parametrize("how", AVERAGES)
def test_an_average_is_numpys_or_scipys(how: Average, samples: int) -> None:
    values = np.random.default_rng(samples).lognormal(size=(samples, 4))
    assert average(values, how) == pytest.approx(known(values, how), rel=1e-9)


@pytest.mark.parametrize("how", AVERAGES)
def test_a_resamples_average_is_that_of_the_samples_it_drew(how: Average) -> None:
    values = np.random.default_rng(0).lognormal(size=(30, 3))
    weights = resample(30, 20, seed=1)
    for row, own in zip(averages(values, weights, how), weights, strict=True):
        drawn = np.repeat(values, np.rint(own * 30).astype(int), axis=0)
        assert row == pytest.approx(known(drawn, how), rel=1e-9)


def test_a_median_of_an_odd_number_is_its_middle_and_of_one_sample_itself() -> None:
    assert average(np.array([[5.0], [1.0], [2.0]]), "median") == pytest.approx([2.0])
    for how in AVERAGES:
        assert average(np.array([[3.0, 4.0]]), how) == pytest.approx([3.0, 4.0])
