"""Finds one of the processes that a launcher started, and kills it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path


def kill_rank(rank: int, named: str, when: Callable[[], bool]) -> bool:
    """Kill the process of this rank whose command line names a folder, once something is true.

    Args:
        rank: As the launcher numbers processes.
        named: What stands in the command line.
        when: Whether it is time.

    Returns:
        Whether one was killed.
    """
    if not when():
        return False
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and named.encode() in _read(place / "cmdline"):
            variables = _read(place / "environ").split(b"\0")
            if f"RANK={rank}".encode() in variables:
                os.kill(int(place.name), signal.SIGKILL)
                return True
    return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
