"""Progress messages of our commands."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lm_eval_ape.display.escaping import terminal


class _Visible(logging.Formatter):
    """Names of tasks and runs come from files, so they are shown as text."""

    def format(self, record: logging.LogRecord) -> str:
        return terminal(super().format(record))


@contextmanager
def messages() -> Iterator[None]:
    """Messages of comparisons, analyses and forecasts on stderr while the context lasts."""
    loggers = [logging.getLogger(f"lm_eval_ape.{name}") for name in ("comparison", "analysis", "forecast")]
    handler = logging.StreamHandler()
    handler.setFormatter(_Visible())
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
