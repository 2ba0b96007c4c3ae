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
FORMAT = "lm-eval-ape fit 1"
_OPTIMISER = "optimiser."


@dataclass
class FitState:
    """Parameters, the optimiser's memory and the curves so far.

    Attributes:
        parameters: log T, log S, ..., `(rows, 2 or 4, layers, heads)`, float64.
        optimiser: Adam's memory of the parameters, by name; empty before its first step.
        training: Of each step so far, mean divergence on each row's training samples, `(rows,)`.
        stopping: Of each step so far, mean divergence on the samples that stop each row, `(rows,)`.
        best: Each row's parameters at its least `stopping`.
    """

    parameters: Tensor
    optimiser: dict[str, Tensor]
    best: Tensor
    training: list[Tensor] = field(default_factory=list)
    stopping: list[Tensor] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Steps measured."""
        return len(self.stopping)

    def measured(self, training: Tensor, stopping: Tensor) -> None:
        """Note the divergences of the present parameters."""
        least = torch.stack(self.stopping).min(0).values if self.stopping else torch.full_like(stopping, torch.inf)
        better = (stopping < least).view(-1, 1, 1, 1)
        self.best = torch.where(better, self.parameters, self.best)
        self.training.append(training)
        self.stopping.append(stopping)

    def idle(self) -> int:
        """For how many steps no row has improved."""
        return self.steps - 1 - int(torch.stack(self.stopping).argmin(0).max())


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
        return FitState(
            tensors["parameters"],
            {name.removeprefix(_OPTIMISER): tensors[name] for name in tensors if name.startswith(_OPTIMISER)},
            tensors["best"],
            list(tensors["training"]),
            list(tensors["stopping"]),
        )

    def save(self, state: FitState) -> None:
        """Replace the state; the older one stays whole until the new one is.

        Args:
            state: With at least one step measured.

        Raises:
            ApeError: It cannot be written.
        """
        if self.path is None:
            return
        tensors = {
            "parameters": state.parameters,
            "best": state.best,
            "training": torch.stack(state.training),
            "stopping": torch.stack(state.stopping),
            **{f"{_OPTIMISER}{name}": tensor for name, tensor in state.optimiser.items()},
        }
        with writing_told(self.path):
            tensor_file.write(self.path, tensors, form=FORMAT, key=self.key)
