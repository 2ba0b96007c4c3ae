"""Merging by log-sum-exp: examples, and what holds for any partition of any keys."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers.property_profiles import examples
from lm_eval_ape.attention.merge import SCALE_MODES, Attended, merge, scale_context

EXACT = 1e-12
many = examples(60)


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


class Keys(NamedTuple):
    """Logits `(1, 2, 3, keys)` and values `(1, 2, keys, 4)` of one attention row, and a partition of the keys."""

    logits: Tensor
    values: Tensor
    groups: list[list[int]]

    def attended(self, keys: list[int]) -> Attended:
        logits = self.logits[..., keys]
        return Attended(logits.softmax(-1) @ self.values[:, :, keys], logits.logsumexp(-1))


@st.composite
def partitioned(draw: st.DrawFn) -> Keys:
    count = draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    spread = draw(st.sampled_from([0.1, 3.0, 300.0]))
    logits = torch.randn(1, 2, 3, count, generator=generator, dtype=torch.float64) * spread
    values = torch.randn(1, 2, count, 4, generator=generator, dtype=torch.float64)
    owner = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    groups = [[key for key in range(count) if owner[key] == group] for group in range(4)]
    return Keys(logits, values, draw(st.permutations([group for group in groups if group])))


def assert_close(one: Attended, other: Attended) -> None:
    assert torch.allclose(one.out, other.out, rtol=1e-12, atol=EXACT)
    assert torch.allclose(one.lse, other.lse, rtol=1e-12, atol=EXACT)


@given(partitioned())
@many
def test_any_partition_in_any_order_merges_to_the_whole(keys: Keys) -> None:
    whole = keys.attended(list(range(keys.logits.shape[-1])))
    assert_close(merge([keys.attended(group) for group in keys.groups]), whole)


@given(partitioned(), st.integers(0, 4))
@many
def test_merging_is_associative_and_groups_without_keys_drop_out(keys: Keys, cut: int) -> None:
    groups = [keys.attended(group) for group in keys.groups]
    empty = Attended(torch.zeros_like(groups[0].out), torch.full_like(groups[0].lse, -math.inf))
    flat = merge(groups)
    left, right = groups[:cut] or [empty], groups[cut:] or [empty]
    assert_close(merge([merge(left), merge(right)]), flat)
    assert_close(merge([empty, *groups, empty]), flat)


@given(partitioned(), st.floats(-1e3, 1e3))
@many
def test_a_constant_on_all_logits_moves_the_log_sum_exp_alone(keys: Keys, constant: float) -> None:
    before = merge([keys.attended(group) for group in keys.groups])
    moved = Keys(keys.logits + constant, keys.values, keys.groups)
    after = merge([moved.attended(group) for group in keys.groups])
    assert torch.allclose(after.out, before.out, atol=1e-9)
    assert torch.allclose(after.lse, before.lse + constant, rtol=1e-12)


@given(partitioned(), st.floats(0.3, 2.0), st.floats(0.3, 2.0), st.sampled_from(SCALE_MODES))
@many
def test_the_scaled_context_is_merged_as_the_formula_says(keys: Keys, t: float, s: float, mode: str) -> None:
    """Against `softmax([w, L_oth]) . [O_ctx, O_oth]` written out for each query, with w of the mode."""
    context, other = keys.attended(keys.groups[0]), keys.attended(keys.groups[-1])
    got = merge([other, scale_context(context, t, s, mode)])
    for head in range(2):
        for query in range(3):
            l_ctx, l_oth = float(context.lse[0, head, query]), float(other.lse[0, head, query])
            w = {"lse": s * t * l_ctx, "value": l_ctx, "additive": t * l_ctx + math.log(s)}[mode]
            share = 1 / (1 + math.exp(min(700.0, l_oth - w)))
            out = share * (s if mode == "value" else 1) * context.out[0, head, query]
            out = out + (1 - share) * other.out[0, head, query]
            assert torch.allclose(got.out[0, head, query], out, rtol=1e-9, atol=1e-9)
            assert math.isclose(
                float(got.lse[0, head, query]),
                max(w, l_oth) + math.log1p(math.exp(-abs(w - l_oth))),
                rel_tol=1e-12,
                abs_tol=1e-9,
            )


@pytest.mark.parametrize("mode", ["lse", "additive"])
def test_the_slope_of_a_factor_is_finite_where_a_query_sees_no_context(mode: str) -> None:
    context, other = attended(*group(4, 0)), attended(*group(6, 1))
    lse = context.lse.clone()
    lse[:, :, 2:] = -math.inf

    def total(factors: Tensor) -> Tensor:
        scaled = scale_context(Attended(context.out, lse), factors[0], factors[1], mode)
        return merge([other, scaled]).out.sum()

    factors = torch.tensor([0.8, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, (factors,))
    # The same numbers as without a slope.
    assert torch.equal(total(factors).detach(), total(factors.detach()))


def test_a_single_group_is_handed_on_as_it_is() -> None:
    only = attended(*group(4, 0))
    assert merge([only]) is only


@pytest.mark.parametrize("mode", ["lse", "additive"])
def test_a_query_that_sees_no_context_gives_it_nothing_however_small_the_factor(mode: str) -> None:
    some = attended(*group(4, 0))
    none = Attended(some.out.float(), torch.full_like(some.lse, -math.inf).float())
    # This number is 0 in float32, and 0 times infinity is no number.
    for temperature in (1e-60, torch.full((2, 3, 1), 1e-60)):
        assert scale_context(none, temperature, 1.0, mode).lse.eq(-math.inf).all()
