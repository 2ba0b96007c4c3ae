"""What the engine asks of a loaded model: nothing that only the harness's class has."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from transformers import PreTrainedModel


class ServedModel(Protocol):
    """A model as the harness holds it.

    Attributes:
        model: The model itself.
        tokenizer: Its tokenizer.
    """

    model: PreTrainedModel
    tokenizer: Any

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision to compute in."""

    def encoding_anew(self) -> AbstractContextManager[None]:
        """Read nothing that was encoded before while the context lasts."""
