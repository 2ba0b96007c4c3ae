"""How the benchmarks time, and how they tell it: rivals in turn, medians and spreads, a table and a JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import torch


class Spread(NamedTuple):
    """Median of repeated measurements with the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, form: str = "{:.3g}") -> str:
        """Median, and the range if there is one."""
        middle, least, greatest = (form.format(value) for value in self)
        return middle if least == greatest else f"{middle} ({least} to {greatest})"


class Clock:
    """Seconds of work on a device: of the wall's clock, or of the processor's.

    Processor seconds are of all threads together and leave out what other programs took; with `--threads 1` they are
    what a quiet machine's wall clock would show, but for caches and memory shared with others.
    """

    def __init__(self, device: str, kind: str) -> None:
        self.device = device
        self.kind = kind

    def now(self) -> float:
        """The time when the device has done all that it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return process_time() if self.kind == "cpu" else perf_counter()

    def time(self, work: Callable[[], Any]) -> float:
        """Seconds of one call."""
        start = self.now()
        work()
        return self.now() - start

    def in_turn(self, rivals: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
        """Seconds of each rival, one after the other in every round, so that a busy machine is busy for all.

        A first round that nobody times warms caches and kernels.
        """
        seconds: dict[str, list[float]] = {name: [] for name in rivals}
        for turn in range(repeats + 1):
            for name, work in rivals.items():
                spent = self.time(work)
                if turn:
                    seconds[name].append(spent)
        return seconds


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Of pairs that were measured in the same round."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


def machine(device: str) -> dict[str, Any]:
    """What a figure was measured on, and how busy it was; no host name."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "load_average": load,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    """The CPU's vector instructions say more than a virtual machine's name for it."""
    return f"{os.cpu_count()} CPU cores, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


class Table:
    """A Markdown table that grows row by row, each row printed as it comes."""

    def __init__(self, title: str, headers: Sequence[str]) -> None:
        self.title = title
        self.headers = list(headers)
        self.rows: list[list[str]] = []
        print(f"\n{title}\n\n| {' | '.join(headers)} |\n|{'---|' * len(headers)}", flush=True)

    def add(self, *cells: str) -> None:
        """Add and print a row."""
        self.rows.append(list(cells))
        print(f"| {' | '.join(cells)} |", flush=True)


def finish(args: argparse.Namespace, tables: Sequence[Table], figures: Any, notes: Sequence[str] = ()) -> None:
    """Print what was measured where, and write all of it as JSON if asked."""
    where = machine(args.device)
    print(f"\n{where}")
    for note in notes:
        print(note)
    if args.json:
        content = {
            "command": " ".join([Path(sys.executable).name, *sys.argv]),
            "arguments": {name: str(value) for name, value in vars(args).items() if name != "json"},
            "machine": where,
            "notes": list(notes),
            "tables": [{"title": table.title, "headers": table.headers, "rows": table.rows} for table in tables],
            "figures": figures,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
