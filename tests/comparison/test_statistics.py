"""Intervals and tests: against scipy on the raw scores, and on simulated runs whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lm_eval_ape.artefacts.board import Difference
from lm_eval_ape.comparison.statistics import Floats, estimate, interval, p_value, paired, within_noise

CHANCE = {"resamples": 999, "seed": 7}


def f1_scores(rng: np.random.Generator, *shape: int) -> Floats:
    """Scores as QA F1 gives them: many 0, many 1, some between."""
    return np.clip(rng.normal(0.5, 0.6, shape), 0, 1)


def ends(found: Difference) -> tuple[float, float | None, float | None, float]:
    """Mean, interval and p-value."""
    return found.mean, found.low, found.high, found.p_value


def test_a_paired_interval_is_scipys_on_the_raw_scores() -> None:
    rng = np.random.default_rng(0)
    ours, baseline = f1_scores(rng, 60), f1_scores(rng, 60)
    found = paired(ours - baseline, **CHANCE)
    expected = stats.bootstrap(
        (ours, baseline),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=999,
        random_state=np.random.default_rng(7),
    ).confidence_interval
    assert found.mean == pytest.approx(ours.mean() - baseline.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-12)


def test_a_p_value_is_scipys_on_the_raw_scores_and_near_the_paired_t_tests() -> None:
    rng = np.random.default_rng(1)
    ours, baseline = f1_scores(rng, 80) + 0.1, f1_scores(rng, 80)
    found = paired(ours - baseline, resamples=9999, seed=3).p_value
    exchanged = stats.permutation_test(
        (ours, baseline),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        random_state=np.random.default_rng(5),
    ).pvalue
    assert found == pytest.approx(exchanged, abs=0.02)
    assert found == pytest.approx(stats.ttest_rel(ours, baseline).pvalue, abs=0.02)


def test_few_documents_get_the_exact_p_value() -> None:
    # Of the 2^6 signs, only all + and all - are as extreme.
    assert paired(np.array([1.0, 2.0, 3.0, 1.0, 2.0, 1.0]), **CHANCE).p_value == pytest.approx(2 / 64)


def test_an_average_weighs_tasks_alike_and_resamples_each_on_its_own() -> None:
    rng = np.random.default_rng(2)
    small, large = f1_scores(rng, 20) - 0.2, f1_scores(rng, 200) - 0.9
    found = paired(small, large, **CHANCE)
    assert found.mean == pytest.approx((small.mean() + large.mean()) / 2)
    expected = stats.bootstrap(
        (small, large),
        lambda a, b, axis: (a.mean(axis=axis) + b.mean(axis=axis)) / 2,
        method="percentile",
        n_resamples=999,
        random_state=np.random.default_rng(7),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-12)
    errors = [task.std(ddof=1) / np.sqrt(len(task)) for task in (small, large)]
    assert estimate(small, large).stderr == pytest.approx(np.hypot(*errors) / 2)


def called(differences: tuple[Floats, ...]) -> Floats:
    """Which of the repeats, the rows of each task, are called different."""
    low, high = interval(*differences, resamples=999, seed=1)
    p_values = p_value(*differences, resamples=999, seed=1)
    return ~((p_values >= 0.05) | ((low <= 0) & (high >= 0)))


@pytest.mark.slow
@pytest.mark.parametrize("documents", [(100,), (40, 120)])
def test_a_null_difference_is_called_one_in_twenty_times(documents: tuple[int, ...]) -> None:
    rng = np.random.default_rng(11)
    repeats = tuple(f1_scores(rng, 1000, count) - f1_scores(rng, 1000, count) for count in documents)
    assert 0.03 <= called(repeats).mean() <= 0.07


def test_a_planted_difference_is_found_where_pairing_shows_it() -> None:
    """5 points in a hundred documents that differ much among themselves: unpaired, the noise would hide it."""
    rng = np.random.default_rng(12)
    baseline = f1_scores(rng, 1000, 100)
    ours = baseline + rng.normal(0.05, 0.1, baseline.shape)
    assert called((ours - baseline,)).mean() > 0.95
    assert (stats.ttest_ind(ours, baseline, axis=-1).pvalue < 0.05).mean() < 0.2


def test_the_simulated_verdict_is_that_of_the_board() -> None:
    rng = np.random.default_rng(13)
    repeats = f1_scores(rng, 30, 50) - f1_scores(rng, 30, 50) + 0.15
    verdicts = [not paired(row, resamples=999, seed=1).within_noise for row in repeats]
    assert 0 < sum(verdicts) < 30
    assert np.mean(verdicts == called((repeats,))) > 0.9


def test_equal_runs_are_within_noise_and_one_document_proves_nothing() -> None:
    equal = paired(np.zeros(5), **CHANCE)
    assert ends(equal) == (0, 0, 0, 1)
    assert equal.within_noise
    single = paired(np.array([1.0]), **CHANCE)
    assert ends(single) == (1, None, None, 1)
    assert single.within_noise
    assert estimate(np.array([0.5])) == (0.5, None)


def test_a_task_of_one_document_has_no_interval_but_counts_for_mean_and_p_value() -> None:
    one, two = np.array([1.0]), np.array([1.0, 2.0])
    assert estimate(one, two) == (1.25, None)
    # Of 2^3 signs, all + and all - are as extreme.
    assert ends(paired(one, two, **CHANCE)) == (1.25, None, None, pytest.approx(2 / 8))


def test_two_documents_have_an_exact_p_value_an_interval_and_a_standard_error() -> None:
    found = paired(np.array([1.0, 2.0]), **CHANCE)
    assert ends(found) == (1.5, 1.0, 2.0, pytest.approx(2 / 4))
    assert estimate(np.array([0.0, 1.0])) == (0.5, pytest.approx(0.5))


def test_chance_is_the_seeds_and_as_often_as_asked() -> None:
    differences = f1_scores(np.random.default_rng(4), 60) - f1_scores(np.random.default_rng(5), 60) + 0.06
    found = [paired(differences, resamples=99, seed=seed) for seed in (1, 1, 2, 3)]
    assert found[0] == found[1]
    assert len({one.p_value for one in found}) > 1
    assert len({one.low for one in found}) == 3
    # 99 flips and the differences themselves: a p-value in hundredths.
    for one in found:
        assert 0.02 < one.p_value < 0.9
        assert one.p_value * 100 == pytest.approx(round(one.p_value * 100), abs=1e-9)


def test_neither_the_order_of_documents_nor_that_of_tasks_matters_and_signs_mirror() -> None:
    rng = np.random.default_rng(6)
    few, more = rng.normal(0.3, 1, 4), rng.normal(0.2, 1, 5)
    straight = paired(few, more, **CHANCE)
    shuffled = paired(rng.permutation(more), rng.permutation(few), **CHANCE)
    # 2^9 signs are fewer than the resamples, so that the p-value is exact.
    assert shuffled.mean == pytest.approx(straight.mean)
    assert shuffled.p_value == pytest.approx(straight.p_value)
    mirrored = paired(-few, -more, **CHANCE)
    assert mirrored.mean == pytest.approx(-straight.mean)
    assert mirrored.p_value == pytest.approx(straight.p_value)
    assert (mirrored.low, mirrored.high) == pytest.approx((-straight.high, -straight.low))


@pytest.mark.parametrize(
    ("low", "high", "p_value", "within"),
    [
        (0.01, 0.2, 0.01, False),
        (-0.2, -0.01, 0.049, False),
        (0.01, 0.2, 0.05, True),
        (0.01, 0.2, 0.06, True),
        (-0.01, 0.2, 0.01, True),
        (0.0, 0.2, 0.01, True),
        (-0.2, 0.0, 0.01, True),
        (None, None, 0.01, True),
    ],
)
def test_a_difference_is_one_only_where_interval_and_test_both_say_so(
    low: float | None, high: float | None, p_value: float, within: bool
) -> None:
    assert within_noise(low, high, p_value) == within
