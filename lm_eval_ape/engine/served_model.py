"""What calibration and analysis ask of a loaded model: nothing that only the harness's class has."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.runtime.processes import Processes
from lm_eval_ape.settings.strategy import Settings


class ServedModel(Protocol):
    """A model that is loaded once and read under one setting after the other.

    Attributes:
        engine: The model under its present settings.
        tokenizer: Its tokenizer.
        processes: This process among those that share the work.
    """

    tokenizer: Any
    processes: Processes

    @property
    def engine(self) -> Engine:
        """The model under its present settings."""

    def under(self, settings: Settings) -> AbstractContextManager[None]:
        """Encode and read under other settings while the context lasts."""

    def without_kept_chunks(self) -> AbstractContextManager[None]:
        """Read nothing that was encoded before while the context lasts."""
