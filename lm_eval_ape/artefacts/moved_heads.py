"""How far the gradient moved each layer and head from where it started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


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


def moved(gradient: Mapping[str, Any]) -> list[Moved]:
    """Layers and heads, the one that moved most first.

    Args:
        gradient: The part `gradient` of `calibration.json`.
    """
    temperature, scale = (np.array(gradient["factors"][name]) for name in ("temperature", "scale"))
    start = np.log(gradient["start"])
    distance = np.hypot(np.log(temperature) - start[0], np.log(scale) - start[1])
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
