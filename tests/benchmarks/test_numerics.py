"""Half precision stays within the bounds that docs/results/numerics.md gives."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch
from conftest import REPOSITORY
from test_exactness import prompt_of, tokens

from helpers import tiny
from lm_eval_ape.settings.strategy import resolve

PROMPTS = [prompt_of([tokens(9, seed), tokens(5, seed + 50), tokens(12, seed + 90)]) for seed in range(3)]
# Unit roundoff: half of the distance from 1 to the next number.
ROUNDOFF = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.fixture
def numerics(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("numerics")


@pytest.mark.parametrize("dtype", ROUNDOFF, ids=str)
def test_divergences_and_log_sum_exps_in_a_precision_are_near_those_in_float64(
    numerics: ModuleType, dtype: torch.dtype
) -> None:
    unit = ROUNDOFF[dtype]
    found = numerics.cost(tiny.make_model(), PROMPTS, dtype, resolve({}))
    # A divergence goes with the square of the logits' error, a log-sum-exp with the error itself.
    assert found.max_kl < 600 * unit**2 + 1e-6
    assert found.max_lse < 300 * unit


@pytest.mark.parametrize("keys", [100, 3000])
@pytest.mark.parametrize("dtype", ROUNDOFF, ids=str)
def test_the_merge_adds_next_to_nothing_because_log_sum_exps_stay_in_float32(
    numerics: ModuleType, dtype: torch.dtype, keys: int
) -> None:
    found = numerics.merge_cost(dtype, keys)
    assert found.kept < 1e-4
    if dtype != torch.float32:
        assert found.rounded > 10 * found.kept
        # A log-sum-exp of this size, rounded, moves the context's weight by about as much.
        assert ROUNDOFF[dtype] / 10 < found.rounded < 10 * ROUNDOFF[dtype]


@pytest.mark.parametrize("distance", [5, 2000])
@pytest.mark.parametrize("dtype", ROUNDOFF, ids=str)
def test_moved_keys_are_as_near_to_float64_as_keys_encoded_there(
    numerics: ModuleType, dtype: torch.dtype, distance: int
) -> None:
    found = numerics.move_cost(tiny.make_model(), tokens(12, 3), dtype, distance)
    assert found.first_layer < 4 * ROUNDOFF[dtype]
    # Models take angles in float32, so that far positions are wrong by their own rounding, moved or not.
    assert found.moved < 3 * found.there + 4 * ROUNDOFF[dtype] + distance * ROUNDOFF[torch.float32]
