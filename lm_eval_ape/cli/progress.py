"""What a command says while it works: one line of progress, and each warning once, at the end.

Bars of the harness and of the libraries are tqdm's. While a command of ours runs, they draw nothing themselves and feed
the line; with `--verbose` everything appears as they write it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import Any

from lm_eval_ape.display.escaping import terminal
from lm_eval_ape.display.status_line import Nothing, StatusLine, bar_of
from lm_eval_ape.runtime.processes import is_first

QUIET, VERBOSE = "quiet", "verbose"
_OURS = ("lm_eval_ape.comparison", "lm_eval_ape.analysis", "lm_eval_ape.forecast")
# Who else warns.
_OTHERS = ("lm_eval", "lm_eval_ape", "transformers", "accelerate", "datasets", "huggingface_hub")
# A hint that the harness gives as a warning with every task that has options, ours among them.
_HINT = "Custom kwargs can be passed to `--metadata`"
# Bars of moments, which say nothing of how far the command is.
_PASSING = ("Loading weights", "Loading checkpoint", "Splitting prompts", "Converting", "Map", "Generating", "Filter")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--quiet` and `--verbose`, which change nothing that is computed."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        f"--{QUIET}", dest="display", action="store_const", const=QUIET, help="no progress; warnings at the end"
    )
    group.add_argument(
        f"--{VERBOSE}",
        dest="display",
        action="store_const",
        const=VERBOSE,
        help="every message, warning and bar of ours, the harness and the libraries, as it comes",
    )


class Display:
    """What a command in progress shows.

    Args:
        line: The line; None where there is none.
    """

    def __init__(self, line: StatusLine | None) -> None:
        self._line = line

    def title(self, text: str) -> None:
        """What is done from now on."""
        if self._line:
            self._line.title(text)
        else:
            logging.getLogger(_OURS[0]).info("%s", text)


@contextmanager
def shown(display: str | None) -> Iterator[Display]:
    """Show progress, messages and warnings while the context lasts.

    What is printed to stdout meanwhile is no result: it goes to stderr with `verbose`, and nowhere without.

    Args:
        display: `quiet`, `verbose`, or None for one line.
    """
    with ExitStack() as stack:
        if display == VERBOSE:
            stack.enter_context(redirect_stdout(sys.stderr))
            stack.enter_context(_messages())
            yield Display(None)
            return
        line = StatusLine(sys.stderr) if display is None and is_first() else None
        stack.enter_context(_warnings_at_the_end(line))
        stack.enter_context(_bars_feed(line))
        # What libraries print there is no result.
        stack.enter_context(redirect_stdout(Nothing()))
        yield Display(line)


class _Visible(logging.Formatter):
    """Names of tasks and runs come from files, so they are shown as text."""

    def format(self, record: logging.LogRecord) -> str:
        return terminal(super().format(record))


@contextmanager
def _messages() -> Iterator[None]:
    """Messages of comparisons, analyses and forecasts on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Visible())
    with _handled(handler, _OURS, logging.INFO):
        yield


class _Listener(logging.Handler):
    """Gathers warnings, and lets messages that begin a part move the line."""

    def __init__(self, line: StatusLine | None) -> None:
        super().__init__()
        self.line = line
        self.gathered: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage().strip()
        if record.levelno >= logging.WARNING and _HINT not in said:
            self.gathered[said] += 1
        elif self.line and (part := getattr(record, "part", None)):
            self.line.part(*part)


@contextmanager
def _warnings_at_the_end(line: StatusLine | None) -> Iterator[None]:
    listener = _Listener(line)

    def warn(message: Warning | str, *_: Any, **__: Any) -> None:
        listener.gathered[str(message).strip()] += 1

    with ExitStack() as stack:
        stack.enter_context(_handled(listener, _OURS, logging.INFO))
        stack.enter_context(_handled(listener, _OTHERS))
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = warn
        try:
            yield
        finally:
            if line:
                line.clear()
            if is_first():
                for text, times in listener.gathered.items():
                    often = f" ({times} times)" if times > 1 else ""
                    print(f"Warning: {terminal(' '.join(text.split()))}{often}", file=sys.stderr)


@contextmanager
def _handled(handler: logging.Handler, names: tuple[str, ...], level: int | None = None) -> Iterator[None]:
    """Let a handler, in place of their own, have what these loggers say; from this level on, if one is given."""
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    for logger in loggers:
        logger.handlers[:] = [handler]
        if level is not None:
            logger.setLevel(level)
            # The loggers above would have it again.
            logger.propagate = False
    try:
        yield
    finally:
        for logger, (old, propagate, handlers) in zip(loggers, before, strict=True):
            logger.handlers[:] = handlers
            logger.setLevel(old)
            logger.propagate = propagate


@contextmanager
def _bars_feed(line: StatusLine | None) -> Iterator[None]:
    """While the context lasts, tqdm's bars write nothing, and those of work move the line."""
    import tqdm.std

    kind = tqdm.std.tqdm
    begin, refresh = kind.__init__, kind.display

    def silent(self: Any, *given: Any, **options: Any) -> None:
        begin(self, *given, **{**options, "file": Nothing()})

    def fed(self: Any, msg: str | None = None, pos: int | None = None) -> None:
        bar = bar_of(self)
        if line and bar.what and not bar.what.startswith(_PASSING):
            line.bar(bar)

    kind.__init__ = silent  # type: ignore[method-assign]
    kind.display = fed  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.__init__, kind.display = begin, refresh  # type: ignore[method-assign]
