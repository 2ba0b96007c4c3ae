"""A dozen wrong changes of the merge, the divergence, the statistics and the selection are each noticed by a test.

`make mutations` tries all of them on all tests; these are the ones that would hurt most, on one test each, in seconds.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import test_merge
import torch
from scipy import stats
from scipy.special import rel_entr

from helpers.mutants import Mutant, mutants, running, source_of
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.attention.selection import aggregate, chunk_scores, winners
from lm_eval_ape.calibration.grid.choice import Table
from lm_eval_ape.calibration.grid.grid import Grid
from lm_eval_ape.calibration.grid.stability import difference, resample, stability
from lm_eval_ape.calibration.objective.divergence import forward_kl
from lm_eval_ape.comparison.statistics import estimate, interval, p_value


def merging() -> None:
    test_merge.test_merging_groups_is_attention_over_their_union([3, 1, 5, 2])
    test_merge.test_a_group_without_keys_changes_nothing()


def scaling() -> None:
    test_merge.test_the_scale_multiplies_the_scale_times_temperature_of_the_log_sum_exp()


def divergence() -> None:
    p, q = np.array([0.5, 0.2, 0.3]), np.array([[0.1, 0.3, 0.6], [0.5, 0.2, 0.3]])
    found = forward_kl(torch.tensor(p).log(), torch.tensor(q).log())
    assert found.numpy() == pytest.approx(rel_entr(p, q).sum(-1), abs=1e-12)


def statistics() -> None:
    scores = np.array([0.0, 0.25, 0.5, 1.0, 1.0])
    assert estimate(scores) == pytest.approx((scores.mean(), stats.sem(scores)))
    few, more = np.array([0.5, -0.25, 1.0]), np.array([0.0, 0.5, -0.5, 1.0])
    low, high = interval(few, more, resamples=99, seed=3)
    expected = stats.bootstrap(
        (few, more),
        lambda a, b, axis: (a.mean(axis=axis) + b.mean(axis=axis)) / 2,
        method="percentile",
        n_resamples=99,
        random_state=np.random.default_rng(3),
    ).confidence_interval
    assert (low, high) == pytest.approx(tuple(expected))
    # Every sign of every document; tasks weigh alike whatever their lengths.
    signs = np.array(list(itertools.product([1, -1], repeat=7)))
    means = np.abs(((signs[:, :3] * few).mean(1) + (signs[:, 3:] * more).mean(1)) / 2)
    exact = (means >= means[0] - 1e-12).mean()
    assert p_value(few, more, resamples=999, seed=0) == pytest.approx(exact)


def resampling() -> None:
    weights = resample(3, 50, seed=1)
    assert weights.sum(1) == pytest.approx(1)
    first, second = np.array([1.0, 2.0, 4.0]), np.array([1.5, 1.0, 1.0])
    found = difference(first, second, weights)
    means = weights @ np.array([-0.5, 1.0, 3.0])
    assert found.mean == pytest.approx(3.5 / 3)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    assert found.positive == (means > 0).mean()
    grid = Grid((0.8, 1.0), (1.0,))
    kl = np.ones((3, len(grid.reported)))
    kl[:, grid.reported.index(Point(0.8, 1.0))] = [0.1, 0.1, 0.1]
    assert stability(Table(grid, grid.reported, kl), weights).frequencies == {Point(0.8, 1.0): 1.0}


def selecting() -> None:
    tops = torch.tensor([[[[[2.0, 1.0], [0.0, -torch.inf]]]]])
    lse, share = torch.tensor([[[3.0]]]), torch.tensor([[[0.5]]])
    probabilities = [(np.exp(-1) + np.exp(-2)) / 2, np.exp(-3) / 2]
    assert chunk_scores(tops, lse, share, None).flatten().tolist() == pytest.approx(probabilities)
    scores = torch.arange(14.0).reshape(1, 1, 7, 2)
    assert aggregate(scores, "T").flatten().tolist() == [4 + 6 + 8 + 10 + 12, 5 + 7 + 9 + 11 + 13]
    assert winners(torch.tensor([0.1, 0.5, 0.5, 0.2]), 2).tolist() == [False, True, True, False]
    assert winners(torch.tensor([0.5, 0.5, 0.5]), 1).tolist() == [True, False, False]


MERGE, KL = "lm_eval_ape.attention.merge", "lm_eval_ape.calibration.objective.divergence"
STATISTICS, STABILITY = "lm_eval_ape.comparison.statistics", "lm_eval_ape.calibration.grid.stability"
SELECTION = "lm_eval_ape.attention.selection"
# What looks at a module without a fixture, in milliseconds.
CHECKS: dict[str, tuple[Callable[[], None], ...]] = {
    MERGE: (merging, scaling),
    KL: (divergence,),
    STATISTICS: (statistics,),
    STABILITY: (resampling,),
    SELECTION: (selecting,),
}
# Module, a line before and after the change, and what notices it.
WRONG: list[tuple[str, str, str, Callable[[], None]]] = [
    (MERGE, "clamp_min_(torch.finfo(lses.dtype).min)", "clamp_min_(-torch.inf)", merging),
    (MERGE, "softmax(0)", "softmax(1)", merging),
    (MERGE, "logsumexp(0)", "logsumexp(1)", merging),
    (MERGE, "groups[1:]", "groups[2:]", merging),
    (MERGE, "out = groups[0].out * weights[0]", "out = groups[0].out", merging),
    (MERGE, "scale * temperature", "scale / temperature", scaling),
    (MERGE, "_times(context.lse, scale * temperature)", "_times(context.lse, scale)", scaling),
    (MERGE, "+ log_scale", "- log_scale", scaling),
    (KL, "kl_div(student, teacher", "kl_div(teacher, student", divergence),
    (KL, ".sum(-1)", ".sum(-2)", divergence),
    (STATISTICS, "ddof=1", "ddof=2", statistics),
    (STATISTICS, "for task in tasks) / len(tasks)", "for task in tasks)", statistics),
    (STATISTICS, "task / task.shape[-1]", "task * task.shape[-1]", statistics),
    (STABILITY, "return counts / samples", "return counts * samples", resampling),
    (STABILITY, "first - second", "second - first", resampling),
    (STABILITY, "means > 0", "means < 0", resampling),
    (STABILITY, "np.argmax(", "np.argmin(", resampling),
    (SELECTION, "torch.exp(tops - lse)", "torch.exp(tops + lse)", selecting),
    (SELECTION, "* share.unsqueeze(-1)", "/ share.unsqueeze(-1)", selecting),
    (SELECTION, "descending=True", "descending=False", selecting),
    (SELECTION, "SUMMED = 5", "SUMMED = 6", selecting),
    (SELECTION, "order[..., :count]", "order[..., count:]", selecting),
]


@pytest.mark.parametrize("name", CHECKS)
def test_the_modules_themselves_pass(name: str) -> None:
    for check in CHECKS[name]:
        check()


@pytest.mark.parametrize(("name", "right", "wrong", "check"), WRONG, ids=[f"{one[0]}: {one[2]}" for one in WRONG])
def test_a_wrong_change_is_noticed(name: str, right: str, wrong: str, check: Callable[[], None]) -> None:
    module = importlib.import_module(name)
    source = source_of(module)
    assert right in source
    with (
        running(module, source.replace(right, wrong)),
        pytest.raises((AssertionError, ValueError, RuntimeError, IndexError)),
    ):
        check()
    check()


def of(source: str) -> list[Mutant]:
    return list(mutants(source))


def test_the_mutator_changes_signs_factors_indices_arguments_comparisons_and_axes() -> None:
    lines = ["'Words 1 + 1.'", "c: int = a * b[0]", "return g(a - c, b).sum(axis=-1) if a < 3 else -b"]
    source = "def f(a, b):\n" + "".join(f"    {line}\n" for line in lines)
    found = {mutant.source.splitlines()[-1].strip() for mutant in of(source)}
    for change in (
        "return g(a + c, b).sum(axis=-1) if a < 3 else -b",
        "return g(b, a - c).sum(axis=-1) if a < 3 else -b",
        "return g(a - c, b).sum(axis=-2) if a < 3 else -b",
        "return g(a - c, b).mean(axis=-1) if a < 3 else -b",
        "return g(a - c, b).sum(axis=-1) if a <= 3 else -b",
        "return g(a - c, b).sum(axis=-1) if a < 3 else b",
        "return g(a - c, b).sum(axis=-1) if a < 4 else -b",
    ):
        assert change in found
    factors = {mutant.source.splitlines()[2].strip() for mutant in of(source)}
    assert {"c: int = a", "c: int = b[0]", "c: int = a / b[0]", "c: int = a * b[1]"} < factors
    assert all("Words 1 + 1." in mutant.source and "c: int" in mutant.source for mutant in of(source))


def test_a_running_mutant_reaches_who_has_imported_from_it_and_is_gone_afterwards() -> None:
    module = ModuleType("lm_eval_ape.toy")
    # The place of the file is where the source would be read from; it is given here.
    module.__file__ = "toy.py"
    source = """
BASE = 2.5
class A:
    @property
    def two(self):
        return BASE
def f(x=1):
    return x + BASE
"""
    exec(compile(source, "toy.py", "exec"), module.__dict__)
    sys.modules[module.__name__] = module
    try:
        f, a = module.f, module.A()
        with running(module, source.replace("2.5", "3.5").replace("x=1", "x=2").replace("x +", "-x +")):
            assert (f(), a.two, module.BASE) == (1.5, 3.5, 3.5)
        assert (f(), a.two, module.BASE) == (3.5, 2.5, 2.5)
    finally:
        del sys.modules[module.__name__]
