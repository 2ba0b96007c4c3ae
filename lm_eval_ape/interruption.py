"""Ctrl-C and SIGTERM end a command with a sentence; the second one ends it at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end; whoever holds a folder on the way up adds it.

    Attributes:
        number: The signal's number.
        folders: Those that were being written, the innermost first.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.folders: list[Path] = []

    @property
    def status(self) -> int:
        """The exit status that shells know: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number

    @property
    def name(self) -> str:
        """The signal in words."""
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name


@contextmanager
def interruptible() -> Iterator[None]:
    """While the context lasts, the first signal raises `Interrupted`, the second ends the process at once.

    At once means also where Python is not asked, inside a long computation: a thread of its own sees the signals come.
    Outside of the main thread, which alone can receive signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        raise Interrupted(number)

    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = [signal.signal(number, stop) for number in _SIGNALS]
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
        writer.close()
        watcher.join()
        reader.close()


def _watch(reader: socket.socket) -> None:
    """End the process at the second signal; the other end's closing ends the watch."""
    seen = 0
    while number := reader.recv(1):
        seen += number[0] in _SIGNALS
        if seen > 1:
            os._exit(128 + number[0])
