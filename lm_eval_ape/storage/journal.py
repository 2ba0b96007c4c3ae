"""Results kept as they are computed, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from lm_eval_ape.storage.files import writing_told

logger = logging.getLogger(__name__)

# Of the records' form; another version's records are computed again.
VERSION = 1


class Journal:
    """JSON lines that are only ever appended; each process writes a file of its own and reads everybody's.

    A line is a record with its version and its checksum.

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
        """All whole records of all processes.

        A last line that a killed process left half written is passed over; records that are damaged or of another
        version are too, with a warning that names their file.
        """
        if self.folder is None:
            return
        for path in sorted(self.folder.glob(f"{self.name}.*.jsonl")):
            unusable = 0
            for line in _lines(path):
                record = _read(line)
                if record is None:
                    unusable += 1
                else:
                    yield record
            if unusable:
                logger.warning(
                    "%s: %d records are damaged or of another version; they are left aside and computed again.",
                    path,
                    unusable,
                )

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; it is on the disk when this returns.

        Raises:
            ApeError: It cannot be written; the records before it stay whole.
        """
        if self.folder is None:
            return
        path = self.folder / f"{self.name}.{self.rank}.jsonl"
        line = _line(record) + b"\n"
        with writing_told(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Without a buffer, so that nothing is left to be written when the file is closed.
            with path.open("a+b", buffering=0) as file:
                end = _whole_length(file)
                file.truncate(end)
                try:
                    if file.write(line) < len(line):
                        file.write(line[os.fstat(file.fileno()).st_size - end :])
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise


def _lines(path: Path) -> list[bytes]:
    """The lines that have an end."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def _read(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None for one that cannot be used."""
    try:
        found = json.loads(line)
        # The line as it was written, not only one that says the same.
        usable = _line(found["record"]) == line
        return dict(found["record"]) if usable else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _line(record: Any) -> bytes:
    text = json.dumps(record).encode()
    return json.dumps({"version": VERSION, "checksum": xxhash.xxh3_64_hexdigest(text), "record": record}).encode()


def _whole_length(file: Any) -> int:
    """Bytes up to the end of the last line that has one: what a killed process left half written goes."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        if (found := file.read(end - start).rfind(b"\n")) >= 0:
            return int(start + found + 1)
        end = start
    return 0
