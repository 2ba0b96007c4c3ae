"""How far the gradient moved each layer and head from where it started."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lm_eval_ape.artefacts.gradient_fit import FactorTables
from lm_eval_ape.artefacts.points import Point


class Moved(NamedTuple):
    """A layer or head.

    Attributes:
        layer: Its layer, from 0; None if there is one T and S for all layers.
        head: Its head, from 0; None if the layer's heads share T and S.
        temperature: Its T.
        scale: Its S.
        distance: From the start, the length of (change of log T, change of log S).
    """

    layer: int | None
    head: int | None
    temperature: float
    scale: float
    distance: float

    @property
    def name(self) -> str:
        """In words."""
        if self.layer is None:
            return "all"
        return f"layer {self.layer}" if self.head is None else f"layer {self.layer}, head {self.head}"


def moved(factors: FactorTables, start: Point) -> list[Moved]:
    """Layers and heads, the one that moved most first.

    Args:
        factors: What the gradient found.
        start: Where the gradient started.
    """
    temperature, scale = np.array(factors.temperature), np.array(factors.scale)
    distance = np.hypot(np.log(temperature) - np.log(start[0]), np.log(scale) - np.log(start[1]))
    layers, heads = temperature.shape
    found = [
        Moved(
            layer if layers > 1 else None,
            head if heads > 1 else None,
            float(temperature[layer, head]),
            float(scale[layer, head]),
            float(distance[layer, head]),
        )
        for layer, head in np.ndindex(temperature.shape)
    ]
    return sorted(found, key=lambda one: -one.distance)
