"""The teacher: the sequential model's greedy tokens and the distributions that they were taken from."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import DynamicCache

from lm_eval_ape.calibration.decoding import check_finite, last_logits
from lm_eval_ape.calibration.divergence import log_probabilities
from lm_eval_ape.encode import input_device
from lm_eval_ape.files import draft_of
from lm_eval_ape.model import ApeHFLM

logger = logging.getLogger(__name__)


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


def ask(lm: ApeHFLM, ids: tuple[int, ...], num_tokens: int, ends: tuple[int, ...], sample: str) -> Teacher:
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
    device = input_device(lm.model)
    inputs = torch.tensor([ids], device=device)
    cache, start = DynamicCache(), 0
    tokens: list[int] = []
    log_probs: list[Tensor] = []
    while len(tokens) < num_tokens and not (tokens and tokens[-1] in ends):
        logits = last_logits(lm, inputs, start, cache, keep=1)
        check_finite(logits, ["the sequential teacher"], len(tokens) + 1, sample)
        log_probs.append(log_probabilities(logits[0, 0]))
        tokens.append(int(logits[0, 0].argmax()))
        start += inputs.shape[1]
        inputs = torch.tensor([tokens[-1:]], device=device)
    return Teacher(torch.tensor(tokens, device=device), torch.stack(log_probs))


class TeacherStore:
    """Teachers kept on disk, one file a prompt, so that another grid, history or smaller K asks nothing again.

    Args:
        folder: Where they are kept; None keeps nothing.
        model: What tells the model from others (see `identity.model_key`).
    """

    def __init__(self, folder: Path | None, model: str) -> None:
        self.folder = folder
        self.model = model

    def get(self, lm: ApeHFLM, ids: tuple[int, ...], num_tokens: int, ends: tuple[int, ...], sample: str) -> Teacher:
        """The teacher of a prompt, from disk if it is there (see `ask`)."""
        if self.folder is None:
            return ask(lm, ids, num_tokens, ends, sample)
        path = self.folder / f"{self._key(ids)}.safetensors"
        kept = self._load(path, str(input_device(lm.model)))
        if kept is not None and (teacher := kept.cut(num_tokens, ends)) is not None:
            return teacher
        teacher = ask(lm, ids, num_tokens, ends, sample)
        self._save(path, teacher)
        return teacher

    def tokens(self, ids: tuple[int, ...]) -> list[int] | None:
        """The greedy tokens of a prompt's teacher; None if it is not kept."""
        path = self.folder / f"{self._key(ids)}.safetensors" if self.folder else None
        if path is None or not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            # The distributions, which are large, stay on the disk.
            return [int(token) for token in file.get_tensor("tokens")]

    def _key(self, ids: tuple[int, ...]) -> str:
        return hashlib.sha256(f"{self.model} {' '.join(map(str, ids))}".encode()).hexdigest()

    @staticmethod
    def _load(path: Path, device: str) -> Teacher | None:
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt", device=device) as file:
                return Teacher(file.get_tensor("tokens"), file.get_tensor("log_probs"))
        except (SafetensorError, OSError) as error:
            logger.warning("%s cannot be read and is made again: %s", path, error)
            return None

    @staticmethod
    def _save(path: Path, teacher: Teacher) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = draft_of(path)
        save_file({"tokens": teacher.tokens.cpu(), "log_probs": teacher.log_probs.cpu().contiguous()}, draft)
        os.replace(draft, path)
