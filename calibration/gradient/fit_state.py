"""Where a fit stands, kept on disk after every step so that a killed one goes on where it stopped."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lm_eval_ape.storage import tensor_file
from lm_eval_ape.storage.files import writing_told

logger = logging.getLogger(__name__)

# Of the files' form; a fit that another version began starts again.
FORMAT = "lm-eval-ape fit 2"
_HERE = ("trying", "reached", "slope", "rates")


@dataclass
class FitState:
    """Where the fits are, what they try next, and what was measured so far.

    Attributes:
        trying: Parameters to measure next: log T, log S, ..., `(rows, 2 or 4, layers, heads)`, float64.
        reached: Each row's parameters with the least objective so far.
        slope: The objective's slope there.
        rates: How far each row goes along its direction, `(rows,)`.
        path: At each step so far, what the rows that learn from all samples had reached.
        kl: At each step so far, each row's divergence there on each sample, `(rows, samples)`.
    """

    trying: Tensor
    reached: Tensor
    slope: Tensor
    rates: Tensor
    path: list[Tensor] = field(default_factory=list)
    kl: list[Tensor] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Steps measured."""
        return len(self.kl)


class StateFile:
    """A file that holds one fit's state.

    Args:
        folder: Where it lies; None keeps nothing.
        key: Digest of all that the fit depends on.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.path = folder and folder / f"{key}.safetensors"
        self.key = key

    def load(self) -> FitState | None:
        """The state, if there is a whole one."""
        if self.path is None:
            return None
        try:
            tensors = tensor_file.read(self.path, form=FORMAT, key=self.key).tensors
        except FileNotFoundError:
            return None
        except tensor_file.DamagedError as error:
            logger.warning("%s is left aside and the fit starts anew: %s", self.path, error)
            return None
        here = {name: tensors[name] for name in _HERE}
        return FitState(**here, path=list(tensors["path"]), kl=list(tensors["kl"]))

    def save(self, state: FitState) -> None:
        """Replace the state; the older one stays whole until the new one is.

        Args:
            state: With at least one step measured.

        Raises:
            ApeError: It cannot be written.
        """
        if self.path is None:
            return
        tensors = {name: getattr(state, name) for name in _HERE}
        tensors |= {"path": torch.stack(state.path), "kl": torch.stack(state.kl)}
        with writing_told(self.path):
            tensor_file.write(self.path, tensors, form=FORMAT, key=self.key)
