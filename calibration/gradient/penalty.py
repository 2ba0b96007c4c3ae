r"""What holds layers and heads together: a penalty on their distance from the model-wide value.

With theta the logarithms of T (or S) of all layers and heads and m their mean, the penalty of strength w is

    w * mean((theta - m)^2)

per parameter. w = 0 leaves every head to itself; w = inf is one value for the whole model. The model-wide value is not
fixed beforehand: it is learned with the rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

STRENGTHS = (0.0, 0.1, 1.0, math.inf)
"""Strengths among which cross-validation chooses: nats by squared difference of logarithms."""


def penalised(slope: Tensor, parameters: Tensor, strengths: Tensor) -> Tensor:
    """Slopes of the divergence plus the penalty.

    Args:
        slope: Of the divergence, `(rows, parameters, layers, heads)`.
        parameters: log T, log S, ..., of the same shape.
        strengths: One a row; where it is infinite, all layers and heads get the mean slope.
    """
    size = parameters.shape[-2] * parameters.shape[-1]
    apart = parameters - parameters.mean((-2, -1), keepdim=True)
    weights = strengths.view(-1, 1, 1, 1)
    together = slope.mean((-2, -1), keepdim=True).expand_as(slope)
    added = slope + 2 * weights.nan_to_num(posinf=0.0) * apart / size
    return torch.where(weights.isinf(), together, added)
