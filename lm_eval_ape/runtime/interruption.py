"""Ctrl-C and SIGTERM end a command with a sentence; the second one ends it at once.

Processes that the command forks keep the handling from before: they die of their own signals, which do not reach the
command.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], Any] | int | None


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end; each holder of a folder on the way up adds it.

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


class _Context(NamedTuple):
    """An `interruptible` that lasts: the handlers from before it, and both ends of its watcher's socket."""

    before: tuple[Handler, ...]
    encoded: socket.socket
    writer: socket.socket


# The outermost first.
_contexts: list[_Context] = []
_masks = threading.local()


@contextmanager
def interruptible() -> Iterator[None]:
    """While the context lasts, the first signal raises `Interrupted`, the second ends the process at once.

    At once means also where Python is not asked, inside a long computation: a thread of its own sees the signals come.
    Outside of the main thread, which alone can receive signals, nothing changes, and in forked processes neither.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        raise Interrupted(number)

    encoded, writer = socket.socketpair()
    writer.setblocking(False)
    context = _Context(tuple(signal.getsignal(number) for number in _SIGNALS), encoded, writer)
    _contexts.append(context)
    for number in _SIGNALS:
        signal.signal(number, stop)
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(encoded,), name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        # A forked process that comes here has left the context already.
        if context in _contexts:
            signal.set_wakeup_fd(descriptor)
            for number, handler in zip(_SIGNALS, context.before, strict=True):
                signal.signal(number, handler)
            _contexts.remove(context)
            writer.close()
            watcher.join()
            encoded.close()


def _watch(encoded: socket.socket) -> None:
    """End the process at the second signal; the other end's closing ends the watch."""
    seen = 0
    while number := encoded.recv(1):
        seen += number[0] in _SIGNALS
        if seen > 1:
            os._exit(128 + number[0])


def _hold_signals() -> None:
    """Let signals wait while a process is forked: the new one still has the old one's handling for a moment."""
    if _contexts:
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _release_signals() -> None:
    if (mask := _masks.__dict__.pop("before", None)) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _leave() -> None:
    """In a forked process: the handling from before all contexts, and none of their sockets.

    An open copy of a socket would let the parent wait for its watcher for as long as this process lives.
    """
    if _contexts:
        signal.set_wakeup_fd(-1)
        for number, handler in zip(_SIGNALS, _contexts[0].before, strict=True):
            signal.signal(number, handler)
        for context in _contexts:
            context.encoded.close()
            context.writer.close()
        _contexts.clear()
    _release_signals()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_leave)
