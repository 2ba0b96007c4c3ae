"""Merging by log-sum-exp."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lm_eval_ape.merge import Attended, merge, scale_context


def group(keys: int, seed: int, width: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 5, keys, generator=generator, dtype=torch.float64) * 3
    return logits, torch.randn(2, 3, keys, width, generator=generator, dtype=torch.float64)


def attended(logits: Tensor, values: Tensor) -> Attended:
    return Attended(logits.softmax(-1) @ values, logits.logsumexp(-1))


@pytest.mark.parametrize("sizes", [[4], [1, 6], [3, 1, 5, 2]])
def test_merging_groups_is_attention_over_their_union(sizes: list[int]) -> None:
    groups = [group(size, seed) for seed, size in enumerate(sizes)]
    got = merge([attended(*g) for g in groups])
    union = torch.cat([logits for logits, _ in groups], -1)
    values = torch.cat([values for _, values in groups], -2)
    assert (got.out - union.softmax(-1) @ values).abs().max() < 1e-13
    assert (got.lse - union.logsumexp(-1)).abs().max() < 1e-13


def test_a_group_without_keys_changes_nothing() -> None:
    some = attended(*group(4, 0))
    none = Attended(torch.zeros_like(some.out), torch.full_like(some.lse, -math.inf))
    got = merge([some, none])
    assert torch.equal(got.out, some.out)
    assert torch.equal(got.lse, some.lse)
    nothing = merge([none, none])
    assert not nothing.out.any()
    assert nothing.lse.eq(-math.inf).all()


@pytest.mark.parametrize("mode", ["lse", "value", "additive"])
def test_no_temperature_and_no_scale_leave_the_context_alone(mode: str) -> None:
    context = attended(*group(4, 0))
    got = scale_context(context, 1.0, 1.0, mode)
    assert torch.equal(got.out, context.out)
    assert torch.equal(got.lse, context.lse)


@pytest.mark.parametrize("mode", ["lse", "value", "additive"])
def test_tensors_of_equal_factors_act_like_the_number(mode: str) -> None:
    context = attended(*group(4, 0))
    number = scale_context(context, 0.7, 0.6, mode)
    each = scale_context(
        context, torch.full((2, 3, 1), 0.7, dtype=torch.float64), torch.full((2, 1, 1), 0.6, dtype=torch.float64), mode
    )
    assert (number.out - each.out).abs().max() < 1e-15
    assert (number.lse - each.lse).abs().max() < 1e-13


def test_the_scale_multiplies_the_scale_times_temperature_of_the_log_sum_exp() -> None:
    context = attended(*group(4, 0))
    assert (scale_context(context, 0.5, 0.8, "lse").lse - 0.4 * context.lse).abs().max() < 1e-15
    assert (scale_context(context, 0.5, 0.8, "additive").lse - (0.5 * context.lse + math.log(0.8))).abs().max() < 1e-15
    assert (scale_context(context, 0.5, 0.8, "value").out - 0.8 * context.out).abs().max() < 1e-15


def test_half_precision_outputs_are_merged_in_float32() -> None:
    a, b = attended(*group(4, 0)), attended(*group(6, 1))
    exact = merge([a, b]).out
    got = merge([Attended(x.out.bfloat16(), x.lse.float()) for x in (a, b)])
    assert got.out.dtype == torch.float32
    assert (got.out - exact).abs().max() < 0.02
