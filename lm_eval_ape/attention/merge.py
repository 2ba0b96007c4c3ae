"""Merging attention over groups of keys by their log-sum-exps.

Attention over the union of disjoint groups of keys is the average of the groups' outputs, weighted by the softmax
of their log-sum-exps. Adaptive Parallel Encoding (Yang et al., ICLR 2025) changes one term of that softmax, the
context's: this module is the only place that knows how.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

ScaleMode = Literal["lse", "value", "additive"]
SCALE_MODES: tuple[ScaleMode, ...] = get_args(ScaleMode)


class Attended(NamedTuple):
    """Attention over a group of keys.

    Attributes:
        out: The group's own softmax average of its values, `(batch, heads, query, head_dim)`.
        lse: The log-sum-exp of the group's logits, `(batch, heads, query)`, in float32 or float64; `-inf` where a
            query may attend to no key of the group.
    """

    out: Tensor
    lse: Tensor


def merge(groups: Sequence[Attended]) -> Attended:
    """Merge attention over disjoint groups of keys into attention over their union.

    Exact for any number of groups; the sums are taken in the log-sum-exps' precision (float32 at least).

    Args:
        groups: At least one group; all of one shape.

    Returns:
        The union's output and log-sum-exp, both in the log-sum-exps' dtype. A query that no group serves gets zeros.
    """
    if len(groups) == 1:
        return groups[0]
    return Attended(merged_output(groups), torch.stack([group.lse for group in groups]).logsumexp(0))


def merged_output(groups: Sequence[Attended]) -> Tensor:
    """The output of `merge` alone, in few small operations: a new token waits for each of them in every layer."""
    if len(groups) == 1:
        return groups[0].out
    lses = torch.stack([group.lse for group in groups])
    # A query without any key has -inf everywhere, of which softmax would make NaN; what it averages then is all zeros.
    weights = lses.clamp_min_(torch.finfo(lses.dtype).min).softmax(0).unsqueeze(-1)
    out = groups[0].out * weights[0]
    for group, weight in zip(groups[1:], weights[1:], strict=True):
        out = torch.addcmul(out, group.out.to(out.dtype), weight)
    return out


def with_sinks(attended: Attended, sinks: Tensor) -> Attended:
    """Merge learned attention sinks into a group: logits, one a head, of keys whose values are zero."""
    sink = sinks.to(attended.lse.dtype).view(1, -1, 1).expand_as(attended.lse)
    return merge([attended, Attended(torch.zeros_like(attended.out), sink)])


def scale_context(context: Attended, temperature: float | Tensor, scale: float | Tensor, mode: str) -> Attended:
    """Apply the scale S to the context's term of the merge; the temperature T is already in its logits.

    Args:
        context: Attention over all context keys with logits divided by T.
        temperature: T, a number or broadcastable to `(batch, heads, 1)`.
        scale: S, likewise.
        mode: `lse` weighs the context by `S * T * L_ctx` (APE, Yang et al. 2025, section 4, as its code does it);
            `value` multiplies the context's output by S (Eq. 1 of the label-free calibration paper, read literally);
            `additive` weighs it by `T * L_ctx + ln S` (what APE's few-shot evaluation did).

    Returns:
        The context's term, ready for `merge`.
    """
    if mode == "value":
        factor = scale.unsqueeze(-1) if isinstance(scale, Tensor) else scale
        return Attended(context.out * factor, context.lse)
    if mode == "lse":
        return Attended(context.out, _times(context.lse, scale * temperature))
    log_scale = scale.log() if isinstance(scale, Tensor) else math.log(scale)
    return Attended(context.out, _times(context.lse, temperature) + log_scale)


def _times(lse: Tensor, factor: float | Tensor) -> Tensor:
    """Multiply, keeping `-inf` (no key at all) as it is whatever the factor."""
    if not isinstance(factor, Tensor) and factor >= torch.finfo(lse.dtype).tiny:
        return lse if factor == 1 else lse * factor
    if not (isinstance(factor, Tensor) and factor.requires_grad):
        return torch.where(lse == -math.inf, lse, lse * factor)
    # Infinity must not reach the product either: a factor's gradient would be 0 * inf.
    empty = lse == -math.inf
    return (lse.masked_fill(empty, 0.0) * factor).masked_fill(empty, -math.inf)
