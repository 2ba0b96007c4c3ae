"""The choice, its ties and edges, on tables worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Point
from lm_eval_ape.calibration.grid.choice import Table, choose_all, edges, nearest_to_neutral, spread
from lm_eval_ape.calibration.grid.grid import Grid, make_grid
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings.strategy import STRATEGIES

GRID = Grid((0.8, 0.9, 1.0), (0.7, 0.9))


def table(kl: dict[Point, float], grid: Grid = GRID, otherwise: float = 1.0) -> Table:
    """Two samples whose mean is given."""
    means = np.array([kl.get(point, otherwise) for point in grid.reported])
    return Table(grid, grid.reported, np.stack([means - 0.25, means + 0.25]))


def test_presets_are_the_papers() -> None:
    assert len(make_grid(num_tokens=1).points) == 25
    assert make_grid(num_tokens=1).scales == (0.6, 0.7, 0.8, 0.9, 1.0)
    assert len(make_grid(num_tokens=8).points) == 49
    assert make_grid(num_tokens=8).temperatures == (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)


def test_the_default_point_is_the_ape_strategys() -> None:
    ape = STRATEGIES["ape"]
    assert (ape["attn_temperature"], ape["attn_scale"]) == DEFAULT


def test_untuned_points_and_lines_are_reported_beside_any_grid() -> None:
    grid = make_grid([0.5], [0.3, 0.4], num_tokens=1)
    assert grid.points == (Point(0.5, 0.3), Point(0.5, 0.4))
    assert set(grid.reported) - set(grid.points) == {
        DEFAULT, NEUTRAL, Point(0.5, 0.9), Point(0.9, 0.3), Point(0.9, 0.4),
    }  # fmt: skip


def test_the_least_mean_is_chosen() -> None:
    chosen = choose_all(table({Point(0.8, 0.9): 0.3, Point(1.0, 0.7): 0.4})).chosen
    assert chosen.point == Point(0.8, 0.9)
    assert chosen.mean_kl == pytest.approx(0.3)
    assert chosen.ties == ()


def test_points_beside_the_grid_are_never_chosen() -> None:
    assert choose_all(table({NEUTRAL: 0.0, Point(0.8, 0.7): 0.5})).chosen.point == Point(0.8, 0.7)


def test_of_equal_points_the_nearest_to_1_1_is_taken_and_the_others_reported() -> None:
    chosen = choose_all(table({Point(0.8, 0.9): 0.2, Point(1.0, 0.7): 0.2 + 1e-8, Point(1.0, 0.9): 0.2})).chosen
    assert chosen.point == Point(1.0, 0.9)
    assert chosen.ties == (Point(0.8, 0.9), Point(1.0, 0.7))


def test_equally_near_points_are_ordered_by_their_temperature() -> None:
    assert nearest_to_neutral([Point(0.8, 1.0), Point(1.0, 0.8), Point(1.2, 1.0)]) == [
        Point(1.2, 1.0), Point(1.0, 0.8), Point(0.8, 1.0),
    ]  # fmt: skip


def test_tuning_one_parameter_keeps_the_other_at_apes_default() -> None:
    choices = choose_all(table({Point(1.0, 0.7): 0.1, Point(0.8, 0.9): 0.3, Point(0.9, 0.7): 0.2}))
    assert choices.temperature_only.point == Point(0.8, 0.9)
    assert choices.scale_only.point == Point(0.9, 0.7)
    assert choices.named["default"] == DEFAULT


def test_ranges_are_taken_over_the_lines() -> None:
    given = table({Point(0.8, 0.9): 0.3, Point(0.9, 0.9): 0.9, Point(1.0, 0.9): 0.5, Point(0.9, 0.7): 0.85})
    assert spread(given, GRID.temperature_line).range == pytest.approx(0.6)
    assert spread(given, GRID.scale_line).range == pytest.approx(0.05)


def test_edges_are_told_unless_the_grid_has_a_single_value_there() -> None:
    assert edges(GRID, Point(0.9, 0.7)) == ["S=0.7"]
    assert edges(GRID, Point(1.0, 0.9)) == ["T=1.0", "S=0.9"]
    assert edges(Grid((0.9,), (0.7, 0.8, 0.9)), Point(0.9, 0.8)) == []


@pytest.mark.parametrize(
    ("temperatures", "message"),
    [
        ([], "The grid is empty: temperatures"),
        ([0.9, 0.0], r"temperatures must hold positive numbers, but got 0\.0"),
        ([-1], "positive numbers, but got -1"),
        ([float("nan")], "positive numbers, but got nan"),
        (["a"], "positive numbers, but got 'a'"),
    ],
)
def test_impossible_grids_are_refused(temperatures: list[float], message: str) -> None:
    with pytest.raises(ApeError, match=message):
        make_grid(temperatures, num_tokens=1)
