"""One line that says where a command is: redrawn on a terminal, and written now and then into a file."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from lm_eval_ape.display.escaping import terminal

# Seconds between two lines in a file, and two drawings on a terminal.
EVERY_FILE, EVERY_TERMINAL = 30.0, 0.1
# The least share of the work from which the rest is foretold.
_LEAST = 0.02


class Bar(NamedTuple):
    """How far the innermost piece of work is.

    Attributes:
        what: What is done; may be empty.
        done: So much of it.
        total: Of so much; None if that is not known.
        unit: Of what.
    """

    what: str
    done: float
    total: float | None
    unit: str


class StatusLine:
    """Shows parts of a command, the bar of the present one, and the time left.

    Args:
        stream: Where.
        redrawn: Whether a line can be drawn over; by default, whether `stream` is a terminal.
        clock: Seconds, rising.
    """

    def __init__(
        self, stream: TextIO, *, redrawn: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._redrawn = stream.isatty() if redrawn is None else redrawn
        self._clock = clock
        self._title = ""
        self._part: tuple[int, int, str] | None = None
        self._bar: Bar | None = None
        self._started = self._shown = clock()
        self._drawn = False

    def title(self, text: str) -> None:
        """What all parts from now on belong to."""
        self._title, self._part, self._bar = text, None, None
        self._started = self._clock()
        self._show(begins=True)

    def part(self, number: int, count: int, what: str) -> None:
        """Begin a part, the `number`th of `count`."""
        if self._part is None or number <= self._part[0]:
            self._started = self._clock()
        self._part, self._bar = (number, count, what), None
        self._show(begins=True)

    def bar(self, bar: Bar) -> None:
        """Say how far the innermost piece of work is."""
        another = self._bar is None or self._bar.total != bar.total or bar.done < self._bar.done
        if self._part is None and another:
            self._started = self._clock()
        self._bar = bar
        self._show(begins=False)

    def clear(self) -> None:
        """Leave an empty line to what comes next."""
        if self._drawn:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
        self._drawn = False

    def text(self) -> str:
        """The line."""
        words = [self._title]
        if self._part:
            number, count, what = self._part
            words += [f"part {number} of {count}", what]
        if self._bar and self._bar.total:
            what = "" if self._part else self._bar.what
            words += [what, f"{self._bar.done:g} of {self._bar.total:g} {self._bar.unit}".strip()]
        return " · ".join(filter(None, [*map(terminal, words), self._left()]))

    def _left(self) -> str:
        """The time left, from what has passed and the share that is done."""
        within = min(self._bar.done / self._bar.total, 1.0) if self._bar and self._bar.total else 0.0
        share = (self._part[0] - 1 + within) / self._part[1] if self._part else within
        if share < _LEAST or share >= 1:
            return ""
        seconds = round((self._clock() - self._started) * (1 - share) / share)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"

    def _show(self, *, begins: bool) -> None:
        now = self._clock()
        if not begins and now - self._shown < (EVERY_TERMINAL if self._redrawn else EVERY_FILE):
            return
        self._shown = now
        if not self._redrawn:
            self._stream.write(f"{self.text()}\n")
        else:
            width = shutil.get_terminal_size().columns
            self._stream.write(f"\r\x1b[2K{self.text()[: width - 1]}")
            self._drawn = True
        self._stream.flush()


class Nothing(io.TextIOBase):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:  # noqa: D102
        return len(text)


def bar_of(progress: Any) -> Bar:
    """What a tqdm says of itself."""
    return Bar((progress.desc or "").rstrip(": "), progress.n, progress.total, f"{progress.unit}s")
