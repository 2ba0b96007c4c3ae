"""The teacher: the sequential model's greedy tokens and the distributions that they were taken from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lm_eval_ape.calibration.objective.divergence import log_probabilities
from lm_eval_ape.engine.decoding import check_finite
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.runtime.clock import now
from lm_eval_ape.storage import tensor_file
from lm_eval_ape.storage.files import writing_told

logger = logging.getLogger(__name__)

# Of the files' form; another version's files are made again.
FORMAT = "lm-eval-ape teacher 2"


class Teacher(NamedTuple):
    """What the sequential model says after a prompt.

    Attributes:
        tokens: Its greedy tokens, `(steps,)`, the last one perhaps an end of sequence.
        log_probs: The distributions they were taken from, `(steps, vocabulary)`, float32 or float64.
        query: The distributions after the query's tokens but the last, `(query - 1, vocabulary)`; no rows where they
            were not asked for.
    """

    tokens: Tensor
    log_probs: Tensor
    query: Tensor

    def cut(self, num_tokens: int, ends: tuple[int, ...], query: int = 1) -> Teacher | None:
        """The part that is asked for (see `ask`): the first tokens, up to the first end of sequence.

        Returns:
            It; None if there is less.
        """
        steps = [int(token) for token in self.tokens[:num_tokens]]
        length = next((step for step, token in enumerate(steps, start=1) if token in ends), len(steps))
        ended = bool(steps) and steps[length - 1] in ends
        if not (ended or length == num_tokens) or len(self.query) < query - 1:
            return None
        before = self.query[len(self.query) - (query - 1) :]
        return self._replace(tokens=self.tokens[:length], log_probs=self.log_probs[:length], query=before)


@torch.no_grad()
def ask(
    lm: ServedModel,
    ids: tuple[int, ...],
    num_tokens: int,
    ends: tuple[int, ...],
    sample: str,
    *,
    query: int = 1,
    on_read: Callable[[float], None] = lambda seconds: None,
) -> Teacher:
    """Let the sequential model continue a prompt greedily, to `num_tokens` tokens or its end of sequence.

    Args:
        lm: The model, read with its own attention.
        ids: The whole prompt in one row.
        num_tokens: K.
        ends: Tokens that end a sequence; none to go on past them.
        sample: Where the prompt comes from, for errors.
        query: After how many of the prompt's last tokens the distributions are wanted.
        on_read: Called with the seconds that reading the prompt took.

    Raises:
        ApeError: The logits are not finite.
    """
    engine = lm.engine
    tail, inputs = engine.sequential_tail(), list(ids)
    tokens: list[int] = []
    log_probs: list[Tensor] = []
    start = now(engine.device)
    while len(tokens) < num_tokens and not (tokens and tokens[-1] in ends):
        logits = tail.read(inputs, keep=1 if tokens else query)
        check_finite(logits, ["the sequential teacher"], len(tokens) + 1, sample)
        if not tokens:
            on_read(now(engine.device) - start)
            before = log_probabilities(logits[0, :-1])
        log_probs.append(log_probabilities(logits[0, -1]))
        tokens.append(int(logits[0, -1].argmax()))
        inputs = tokens[-1:]
    return Teacher(torch.tensor(tokens, device=engine.device), torch.stack(log_probs), before)


class TeacherStore:
    """Teachers kept on disk, one file a prompt, so that another grid, history or smaller K asks nothing again.

    The last one is also kept in memory: a search reads each prompt under one encoding after the other.

    Args:
        folder: Where they are kept; None keeps nothing there.
        model: What distinguishes the model from others (see `model_facts.model_key`).
    """

    def __init__(self, folder: Path | None, model: str) -> None:
        self.folder = folder
        self.model = model
        self._last: tuple[tuple[int, ...], Teacher] | None = None

    def get(
        self,
        lm: ServedModel,
        ids: tuple[int, ...],
        num_tokens: int,
        ends: tuple[int, ...],
        sample: str,
        *,
        query: int = 1,
        on_read: Callable[[float], None] = lambda seconds: None,
    ) -> Teacher:
        """The teacher of a prompt, asked unless it is kept (see `ask`).

        Raises:
            ApeError: The logits are not finite, or the file cannot be written.
        """
        asked = num_tokens, ends, query
        key = hashlib.sha256(f"{self.model} {' '.join(map(str, ids))}".encode()).hexdigest()
        path = self.folder and self.folder / f"{key}.safetensors"
        kept: Teacher | None = None
        if self._last and self._last[0] == ids:
            kept = self._last[1]
        elif path:
            kept = self._load(path, key, lm.engine.device)
        if kept and (found := kept.cut(num_tokens, ends, query)):
            self._last = ids, kept
            return found
        if kept:
            # What a shorter one has in other respects is not lost.
            num_tokens, query = max(num_tokens, len(kept.tokens)), max(query, len(kept.query) + 1)
        teacher = ask(lm, ids, num_tokens, ends, sample, query=query, on_read=on_read)
        self._last = ids, teacher
        if path:
            with writing_told(path):
                tensor_file.write(path, teacher._asdict(), form=FORMAT, key=key)
        return teacher.cut(*asked) or teacher

    @staticmethod
    def _load(path: Path, key: str, device: torch.device) -> Teacher | None:
        try:
            tensors = tensor_file.read(path, form=FORMAT, key=key).tensors
            return Teacher(**{name: tensor.to(device) for name, tensor in tensors.items()})
        except FileNotFoundError:
            return None
        except tensor_file.DamagedError as error:
            logger.warning("%s is left aside and the teacher is asked again: %s", path, error)
            return None
