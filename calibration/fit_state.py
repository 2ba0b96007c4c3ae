"""Where a fit stands, kept on disk after every step so that a killed one goes on where it stopped."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lm_eval_ape.files import draft_of

logger = logging.getLogger(__name__)


@dataclass
class FitState:
    """Parameters, the optimiser's memory and the curves so far.

    Attributes:
        parameters: log T, log S, ..., `(rows, 2 or 4, layers, heads)`, float64.
        optimiser: State of Adam.
        training: Of each step so far, mean divergence on each row's training samples, `(rows,)`.
        stopping: Of each step so far, mean divergence on the samples that stop each row, `(rows,)`.
        best: Each row's parameters at its least `stopping`.
    """

    parameters: Tensor
    optimiser: dict[str, Any]
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
        self.path = folder and folder / f"{key}.pt"

    def load(self) -> FitState | None:
        """The state, if there is a whole one."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            return FitState(**torch.load(self.path, weights_only=True))
        except Exception as error:
            logger.warning("%s cannot be read; the fit starts anew: %s", self.path, error)
            return None

    def save(self, state: FitState) -> None:
        """Replace the state; the older one stays whole until the new one is."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = draft_of(self.path)
        torch.save(vars(state), draft)
        os.replace(draft, self.path)
