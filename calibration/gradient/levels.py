r"""Model, layers and heads: in which direction a step goes.

The logarithm of a head's T (or S) is thought of as a sum, as partial pooling has it (Gelman and Hill, Data Analysis
Using Regression and Multilevel/Hierarchical Models, 2007):

    theta_lh = start + m + a_l + b_lh

with m of the whole model, a_l of a layer and b_lh of a head. With g the slope by theta, a step goes along

    mean(g) + mean_l(g) + g_lh

so what all heads have in common is learned three times, and what a layer's have in common twice, as fast as what is a
head's own. A step is proportional to the slope, unlike one of Adam, which moves a head whose slope is noise as far as
any other. Such a descent that ends early leaves at the start what the samples hardly determine, as a Gaussian prior
around it would (Ali, Kolter and Tibshirani, AISTATS 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lm_eval_ape.artefacts.points import Granularity
from lm_eval_ape.calibration.gradient.plan import LEVELS


def pooled(values: Tensor, level: Granularity) -> Tensor:
    """Means over what shares a T and S on a level, broadcast to the shape of `values`, `(..., layers, heads)`."""
    axes: dict[Granularity, tuple[int, ...]] = {"model": (-2, -1), "layer": (-1,)}
    return values if level == "head" else values.mean(axes[level], keepdim=True).expand_as(values)


def direction(slope: Tensor, finest: Sequence[Granularity]) -> Tensor:
    """Where to go, given the slopes.

    Args:
        slope: By log T, log S, ..., `(rows, 2 or 4, layers, heads)`.
        finest: Each row's finest level that moves.

    Returns:
        Of the same shape, downhill.
    """
    depth = torch.tensor([LEVELS.index(level) for level in finest]).view(-1, 1, 1, 1)
    return -torch.stack([(number <= depth) * pooled(slope, level) for number, level in enumerate(LEVELS)]).sum(0)
