"""A forecast in a table, for the person who asks for time and memory (on stderr)."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lm_eval_ape.display.escaping import terminal
from lm_eval_ape.forecast.forecast import Forecast

WIDTH = 140


def show(forecast: Forecast, console: Console | None = None) -> None:
    """Print a forecast.

    Args:
        forecast: The forecast.
        console: Where to; stderr if None.
    """
    if console is None:
        # A file or a pipe has no width of its own, and rich would take 80.
        console = Console(stderr=True, width=None if sys.stderr.isatty() else WIDTH)
    table = Table(title=f"lm-eval-ape {forecast.command} on {terminal(forecast.device)}, {forecast.dtype}")
    table.add_column("part")
    for name in ("prompts", "tokens", "new tokens", "TFLOP", "time"):
        table.add_column(name, justify="right")
    table.add_row("requests built and cut", "", "", "", "", duration(forecast.cutting_seconds))
    for row in forecast.rows:
        numbers = [f"{number:,}" if number else "" for number in (row.prompts, row.tokens, row.new_tokens)]
        # As text: brackets of a setting are no markup.
        table.add_row(Text(terminal(row.name)), *numbers, f"{row.operations / 1e12:,.3g}", duration(row.seconds))
    table.add_section()
    total = f"{forecast.operations / 1e12:,.3g}"
    table.add_row("all", f"{forecast.prompts:,}", f"{forecast.tokens:,}", "", total, duration(forecast.seconds))
    console.print(table)
    memory = forecast.memory
    process = "of it the process" if forecast.device.startswith("cpu") else "beside it, on the host, the process"
    lines = [
        f"Memory: {size(forecast.peak_bytes)} at most; weights {size(memory.weights)}, keys and values "
        f"{size(memory.kv)}, {process} without a model {size(forecast.process_bytes)}.",
        f"Measured on random weights in {', '.join(map(str, forecast.depths))} layers; that took "
        f"{duration(forecast.measuring_seconds)}. The row of all counts each prompt once a run.",
        "Not counted:",
        *(f"  {one}" for one in forecast.not_counted),
    ]
    for line in lines:
        console.print(terminal(line), markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds in words: 12.3 s, 4 min 5 s, 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"
