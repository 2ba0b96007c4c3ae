"""The (T, S) points that a calibration tries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Point
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings.option_values import LEAST_TEMPERATURE

# The paper's values of T and of S for calibrations of one token and of more.
SINGLE_TOKEN = (0.6, 0.7, 0.8, 0.9, 1.0)
MULTI_TOKEN = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
# In a search every encoding has a grid of its own: APE's default and 1, of each.
SEARCH = (0.9, 1.0)


@dataclass(frozen=True)
class Grid:
    """Every temperature with every scale.

    Attributes:
        temperatures: Values of T, ascending, none twice.
        scales: Values of S, likewise.
    """

    temperatures: tuple[float, ...]
    scales: tuple[float, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        """The points that can be chosen."""
        return tuple(Point(*pair) for pair in product(self.temperatures, self.scales))

    @property
    def temperature_line(self) -> tuple[Point, ...]:
        """The grid's temperatures at APE's scale: what tuning T alone would try."""
        return tuple(Point(temperature, DEFAULT.scale) for temperature in self.temperatures)

    @property
    def scale_line(self) -> tuple[Point, ...]:
        """The grid's scales at APE's temperature: what tuning S alone would try."""
        return tuple(Point(DEFAULT.temperature, scale) for scale in self.scales)

    @property
    def reported(self) -> tuple[Point, ...]:
        """The grid's points, then those that are measured beside it: (0.9, 0.9), (1, 1) and the two lines."""
        beside = (DEFAULT, NEUTRAL, *self.temperature_line, *self.scale_line)
        return tuple(dict.fromkeys((*self.points, *beside)))


def make_grid(
    temperatures: Sequence[float] | None = None,
    scales: Sequence[float] | None = None,
    *,
    num_tokens: int,
    searches: bool = False,
) -> Grid:
    """Build a grid.

    Args:
        temperatures: Values of T; None for those of the paper for as many tokens (5 for one, 7 for more), or for 0.9
            and 1 in a search.
        scales: Values of S, likewise.
        num_tokens: K.
        searches: Whether many encodings are searched through.

    Raises:
        ApeError: A list is empty or holds something else than positive numbers, or a temperature below
            `LEAST_TEMPERATURE`.
    """
    preset = SEARCH if searches else SINGLE_TOKEN if num_tokens == 1 else MULTI_TOKEN
    grid = Grid(
        _values("temperatures", preset if temperatures is None else temperatures),
        _values("scales", preset if scales is None else scales),
    )
    if grid.temperatures[0] < LEAST_TEMPERATURE:
        raise ApeError(f"temperatures must be at least {LEAST_TEMPERATURE:g}, but got {grid.temperatures[0]!r}.")
    return grid


def _values(name: str, values: Iterable[float]) -> tuple[float, ...]:
    given = list(values)
    if not given:
        raise ApeError(
            f"The grid is empty: {name} must hold at least one positive number, for example {name}=0.8,0.9,1.0."
        )
    for value in given:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise ApeError(f"{name} must hold positive numbers, but got {value!r}.")
    return tuple(sorted({float(value) for value in given}))
