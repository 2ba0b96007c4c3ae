"""Results kept as they are computed, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """JSON lines that are only ever appended; each process writes a file of its own and reads everybody's.

    Args:
        folder: Where the files lie; None keeps nothing.
        name: What is kept; files are `name.0.jsonl`, `name.1.jsonl`, one a process.
        rank: This process's number.
    """

    def __init__(self, folder: Path | None, name: str, rank: int) -> None:
        self.folder = folder
        self.name = name
        self.rank = rank

    def records(self) -> Iterator[dict[str, Any]]:
        """All whole records of all processes; a line that a killed process left half written is passed over."""
        if self.folder is None:
            return
        for path in sorted(self.folder.glob(f"{self.name}.*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if isinstance(record, dict):
                    yield record

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; it is on its way to the disk when this returns."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{self.name}.{self.rank}.jsonl").open("a+b") as file:
            if file.tell() and self._torn(file):
                file.write(b"\n")
            file.write(json.dumps(record).encode() + b"\n")

    @staticmethod
    def _torn(file: Any) -> bool:
        """Whether the last line has no end."""
        file.seek(-1, 2)
        return bool(file.read(1) != b"\n")
