r"""What holds layers and heads together: a penalty on their distance from the model-wide value.

With theta the logarithms of T (or S) of all layers and heads and m their mean, the penalty of strength w is

    w * mean((theta - m)^2)

per parameter: the variance of heads within their layers plus that of layers. w = 0 leaves every head to itself. The
model-wide value is not fixed beforehand: it is learned with the rest.
"""

from __future__ import annotations

from torch import Tensor

STRENGTHS = (0.0, 1.0)
"""Strengths among which cross-validation chooses: nats by squared difference of logarithms."""


def penalty(parameters: Tensor, strengths: Tensor) -> Tensor:
    """The penalty of each row, summed over log T, log S, ..., `(rows,)`.

    Args:
        parameters: `(rows, parameters, layers, heads)`.
        strengths: One a row.
    """
    apart = parameters - parameters.mean((-2, -1), keepdim=True)
    return strengths * apart.square().mean((-2, -1)).sum(-1)


def penalised(slope: Tensor, parameters: Tensor, strengths: Tensor) -> Tensor:
    """Slopes of the divergence plus the penalty.

    Args:
        slope: Of the divergence, `(rows, parameters, layers, heads)`.
        parameters: log T, log S, ..., of the same shape.
        strengths: One a row.
    """
    size = parameters.shape[-2] * parameters.shape[-1]
    apart = parameters - parameters.mean((-2, -1), keepdim=True)
    return slope + 2 * strengths.view(-1, 1, 1, 1) * apart / size
