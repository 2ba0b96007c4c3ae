"""How long the parts of a run take on this device, measured on random models of the checkpoint's shape."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import ceil
from statistics import median
from time import perf_counter

from lm_eval_ape.engine.operations import ModelShape
from lm_eval_ape.forecast.parts import Item, Part
from lm_eval_ape.forecast.random_model import RandomApeHFLM
from lm_eval_ape.harness.ape_hf import ApeHFLM

logger = logging.getLogger(__name__)

MEASURING_SECONDS = 60.0
"""About how long all measurements together may take; longer prompts are shortened for them."""
WHOLE_PARAMETERS = 2e8
"""A model with at most so many parameters is measured whole."""
DEPTHS = (1, 3)
"""Layers of the two models that stand for a larger one."""
ROUNDS = 3
"""Of each measurement, beside a first one that warms up caches and kernels."""
FIRST_TOKENS = 256
"""A prompt's length to begin with, from which it is known what the whole of it would take."""
# The shorter one of two items, where no item is short enough.
_SHORTER = 0.4


class Stopwatch:
    """Times parts of a run.

    An item's seconds in the whole model follow from those in a model of one layer and in one of three, along the
    operations of each; those of other items from two of different lengths, along their operations. What is the same for
    every layer or every item, as the time of Python itself, is so counted once for each.

    Args:
        lm: The model, whose weights need not be there.
        parts: How many parts there are, which share the time.

    Attributes:
        seconds: How long building the models and measuring took so far.
    """

    def __init__(self, lm: ApeHFLM, parts: int) -> None:
        start = perf_counter()
        self.shape = ModelShape.of(lm.model)
        whole = lm.engine.layers
        small = lm.model.num_parameters() <= WHOLE_PARAMETERS or whole <= max(DEPTHS)
        self.models = [RandomApeHFLM.like(lm, layers) for layers in ([whole] if small else DEPTHS)]
        self.budget = MEASURING_SECONDS / max(1, parts)
        self.seconds = perf_counter() - start

    @property
    def depths(self) -> list[int]:
        """Layers of the models that are measured."""
        return [lm.engine.layers for lm in self.models]

    def time(self, part: Part) -> float:
        """Seconds of a whole part."""
        start = perf_counter()

        def size(item: Item) -> float:
            return part.operations(self.shape, part.settings, item)

        sizes = [size(item) for item in part.items]
        order = sorted(range(len(sizes)), key=sizes.__getitem__)
        last = len(order) - 1
        high = self._affordable(part, part.items[order[ceil(0.9 * last)]])
        low = part.items[order[int(0.1 * last)]]
        if size(low) > 0.8 * size(high):
            low = high.shortened(_SHORTER)
        found = along(
            [size(low), size(high)],
            [self._whole(part, low), self._whole(part, high)],
            sizes,
        )
        self.seconds += perf_counter() - start
        return part.times * found

    def _affordable(self, part: Part, item: Item) -> Item:
        """The item, or as much of it as can be measured in time."""
        lm = self.models[-1]
        short = item.shortened(min(1.0, FIRST_TOKENS / max(1, item.tokens)))
        part.measure(lm, short)
        start = perf_counter()
        part.measure(lm, short)
        rate = part.on(lm, short) / (perf_counter() - start)
        share = 1.0
        while share > 0.01 and self._cost(part, item.shortened(share)) > 0.6 * self.budget * rate:
            share *= 0.8
        shortened = item.shortened(share)
        return item if share == 1.0 else short if shortened.tokens < short.tokens else shortened

    def _cost(self, part: Part, item: Item) -> float:
        """Operations of measuring an item."""
        return (ROUNDS + 1) * sum(part.on(lm, item) for lm in self.models)

    def _whole(self, part: Part, item: Item) -> float:
        """Seconds of an item in the whole model."""
        rounds = [[part.measure(lm, item) for lm in self.models] for _ in range(ROUNDS + 1)][1:]
        times = [median(times) for times in zip(*rounds, strict=True)]
        if len(times) == 1:
            return times[0]
        sizes = [part.on(lm, item) for lm in self.models]
        return along(sizes, times, [part.operations(self.shape, part.settings, item)])


def along(sizes: Sequence[float], times: Sequence[float], asked: Sequence[float]) -> float:
    """Seconds of all that is asked, on the line through two measurements; none below 0 and none that falls.

    Args:
        sizes: Operations of a smaller and a larger measurement.
        times: Their seconds.
        asked: Operations of what is asked.
    """
    (small, large), (short, long) = sizes, times
    slope = (long - short) / (large - small) if large > small else 0.0
    if large > 0 and not 0 < slope < long / large:
        slope = long / large if slope > 0 or large <= small else 0.0
    start = long - slope * large
    return sum(start + slope * size for size in asked)
