"""From per-sample divergences to a choice, with all that should make one doubt it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Point
from lm_eval_ape.calibration.grid.average import Floats, average
from lm_eval_ape.calibration.grid.grid import Grid
from lm_eval_ape.calibration.objective.objective import Average

TIE = 1e-6
"""Averages closer than this, in nats, are equal: float32 cannot separate them."""


class Table(NamedTuple):
    """Divergences of every reported point on every sample.

    Attributes:
        grid: The grid asked for; its points can be chosen, the other reported ones cannot.
        points: All reported points, the grid's first.
        kl: `(samples, points)`, in nats.
        judged: What the choice makes small, `(samples, points)`; None for the divergences.
        average: How samples are averaged for the choice.
    """

    grid: Grid
    points: tuple[Point, ...]
    kl: Floats
    judged: Floats | None = None
    average: Average = "mean"

    def columns(self, points: Sequence[Point]) -> list[int]:
        """Where these points stand."""
        return [self.points.index(point) for point in points]

    def of(self, point: Point) -> Floats:
        """A point's divergences, `(samples,)`."""
        return self.kl[:, self.points.index(point)]

    @property
    def means(self) -> dict[Point, float]:
        """Each point's mean divergence over samples."""
        return dict(zip(self.points, self.kl.mean(0).tolist(), strict=True))

    @property
    def judged_by(self) -> Floats:
        """What the choice makes small, `(samples, points)`."""
        return self.kl if self.judged is None else self.judged


class Chosen(NamedTuple):
    """The best of some points: the one with the least average of what the choice makes small.

    Attributes:
        point: It; of equal ones the nearest to (1, 1).
        mean_kl: Its mean divergence over samples, in nats.
        ties: The others that are as good.
    """

    point: Point
    mean_kl: float
    ties: tuple[Point, ...]


class Spread(NamedTuple):
    """How far the mean divergence moves along a line of points.

    Attributes:
        least: The smallest mean.
        most: The largest.
    """

    least: float
    most: float

    @property
    def range(self) -> float:
        """Largest less smallest, in nats."""
        return self.most - self.least


def nearest_to_neutral(points: Sequence[Point]) -> list[Point]:
    """Points from the nearest to (1, 1) to the farthest; of equally near ones the larger T first."""

    def distance(point: Point) -> tuple[float, float, float]:
        squared = sum((own - neutral) ** 2 for own, neutral in zip(point, NEUTRAL, strict=True))
        return round(squared, 12), -point.temperature, -point.scale

    return sorted(points, key=distance)


def choose(table: Table, points: Sequence[Point]) -> Chosen:
    """Choose the best of some of a table's points."""
    ordered = nearest_to_neutral(points)
    averages = dict(zip(table.points, average(table.judged_by, table.average).tolist(), strict=True))
    least = min(averages[point] for point in ordered)
    best, *ties = [point for point in ordered if averages[point] - least <= TIE]
    return Chosen(best, table.means[best], tuple(ties))


def spread(table: Table, points: Sequence[Point]) -> Spread:
    """Smallest and largest mean divergence of some of a table's points."""
    means = [table.means[point] for point in points]
    return Spread(min(means), max(means))


def edges(grid: Grid, point: Point) -> list[str]:
    """The sides of the grid that a point lies on, such as `T=1.0`; a side with a single value is none."""
    axes = (("T", grid.temperatures, point.temperature), ("S", grid.scales, point.scale))
    return [f"{name}={value}" for name, values, value in axes if len(values) > 1 and value in (values[0], values[-1])]


class Choices(NamedTuple):
    """What to compare: tuning both, one, or none of T and S."""

    chosen: Chosen
    temperature_only: Chosen
    scale_only: Chosen

    @property
    def named(self) -> dict[str, Point]:
        """Every choice and the two untuned points, by name."""
        return {
            "chosen": self.chosen.point,
            "temperature_only": self.temperature_only.point,
            "scale_only": self.scale_only.point,
            "default": DEFAULT,
            "neutral": NEUTRAL,
        }


def choose_all(table: Table) -> Choices:
    """Choose over the grid, over T with APE's S, and over S with APE's T."""
    grid = table.grid
    return Choices(*(choose(table, points) for points in (grid.points, grid.temperature_line, grid.scale_line)))
