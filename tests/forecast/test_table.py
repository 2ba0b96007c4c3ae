"""What a forecast's table shows."""

from __future__ import annotations

import io

from rich.console import Console

from lm_eval_ape.forecast.forecast import Forecast, Row
from lm_eval_ape.forecast.memory import Memory
from lm_eval_ape.forecast.table import show


def test_parts_are_told_apart_by_their_settings_and_names_are_no_markup() -> None:
    names = ["sink: prompts read", "sink[positions=serial]: prompts read", "[bold]ape[/bold]: prompts read"]
    rows = [Row(name, 2, 100, 0, 1e12, 1.0) for name in names]
    forecast = Forecast("compare", "cpu", "float32", 2, 100, rows, 0.1, Memory(1, 1, 1), 1, [1, 3], 1.0, [])
    shown = io.StringIO()
    show(forecast, Console(file=shown, width=140))
    assert all(name in shown.getvalue() for name in names)
