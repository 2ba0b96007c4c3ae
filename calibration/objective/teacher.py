"""The teacher: the sequential model's greedy tokens and the distributions that they were taken from."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lm_eval_ape.calibration.objective.divergence import log_probabilities
from lm_eval_ape.engine.decoding import check_finite
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.storage import tensor_file
from lm_eval_ape.storage.files import writing_told

logger = logging.getLogger(__name__)

# Of the files' form; another version's files are made again.
FORMAT = "lm-eval-ape teacher 1"


class Teacher(NamedTuple):
    """What the sequential model says after a prompt.

    Attributes:
        tokens: Its greedy tokens, `(steps,)`, the last one perhaps an end of sequence.
        log_probs: The distributions they were taken from, `(steps, vocabulary)`, float32 or float64.
    """

    tokens: Tensor
    log_probs: Tensor

    def cut(self, num_tokens: int, ends: tuple[int, ...]) -> Teacher | None:
        """The first `num_tokens` steps, or those up to the first end of sequence; None if there are not so many."""
        steps = [int(token) for token in self.tokens[:num_tokens]]
        length = next((step for step, token in enumerate(steps, start=1) if token in ends), len(steps))
        ended = bool(steps) and steps[length - 1] in ends
        return Teacher(self.tokens[:length], self.log_probs[:length]) if ended or length == num_tokens else None


@torch.no_grad()
def ask(lm: ServedModel, ids: tuple[int, ...], num_tokens: int, ends: tuple[int, ...], sample: str) -> Teacher:
    """Let the sequential model continue a prompt greedily, to `num_tokens` tokens or its end of sequence.

    Args:
        lm: The model, read with its own attention.
        ids: The whole prompt in one row.
        num_tokens: K.
        ends: Tokens that end a sequence; none to go on past them.
        sample: Where the prompt comes from, for errors.

    Raises:
        ApeError: The logits are not finite.
    """
    engine = lm.engine
    tail, inputs = engine.sequential_tail(), list(ids)
    tokens: list[int] = []
    log_probs: list[Tensor] = []
    while len(tokens) < num_tokens and not (tokens and tokens[-1] in ends):
        logits = tail.read(inputs, keep=1)
        check_finite(logits, ["the sequential teacher"], len(tokens) + 1, sample)
        log_probs.append(log_probabilities(logits[0, 0]))
        tokens.append(int(logits[0, 0].argmax()))
        inputs = tokens[-1:]
    return Teacher(torch.tensor(tokens, device=engine.device), torch.stack(log_probs))


class TeacherStore:
    """Teachers kept on disk, one file a prompt, so that another grid, history or smaller K asks nothing again.

    Args:
        folder: Where they are kept; None keeps nothing.
        model: What distinguishes the model from others (see `model_facts.model_key`).
    """

    def __init__(self, folder: Path | None, model: str) -> None:
        self.folder = folder
        self.model = model

    def get(
        self, lm: ServedModel, ids: tuple[int, ...], num_tokens: int, ends: tuple[int, ...], sample: str
    ) -> Teacher:
        """The teacher of a prompt, from disk if a whole file is there (see `ask`).

        Raises:
            ApeError: The logits are not finite, or the file cannot be written.
        """
        if self.folder is None:
            return ask(lm, ids, num_tokens, ends, sample)
        key = hashlib.sha256(f"{self.model} {' '.join(map(str, ids))}".encode()).hexdigest()
        path = self.folder / f"{key}.safetensors"
        kept = self._load(path, key, lm.engine.device)
        if kept is not None and (teacher := kept.cut(num_tokens, ends)) is not None:
            return teacher
        teacher = ask(lm, ids, num_tokens, ends, sample)
        with writing_told(path):
            tensor_file.write(path, teacher._asdict(), form=FORMAT, key=key)
        return teacher

    @staticmethod
    def _load(path: Path, key: str, device: torch.device) -> Teacher | None:
        try:
            tensors = tensor_file.read(path, form=FORMAT, key=key).tensors
            return Teacher(tensors["tokens"].to(device), tensors["log_probs"].to(device))
        except FileNotFoundError:
            return None
        except tensor_file.DamagedError as error:
            logger.warning("%s is left aside and the teacher is asked again: %s", path, error)
            return None
