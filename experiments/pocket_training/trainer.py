"""A model on its way through the curriculum: one optimiser step after another, resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage import tensor_file
from lm_eval_ape.storage.files import writing_told
from pocket_training.batches import BatchMaker
from pocket_training.curriculum import Lesson
from pocket_training.model import new_model, stack_layers
from pocket_training.row import KINDS, Batch

_FORMAT: Final = "lm-eval-ape training 1"
_MODEL: Final = "model."
_OPTIMIZER: Final = "optimizer."
_WARM_UP: Final = 30
_WINDOW: Final = 10


@dataclasses.dataclass
class Progress:
    """Where a training stands.

    Attributes:
        lesson: index of the lesson.
        step: optimiser steps done in the lesson.
        total: optimiser steps done in all lessons.
        fresh: optimiser steps since layers were added.
        tokens: tokens read, padding included.
        seconds: seconds spent training.
        recent: by kind of target, the accuracy in each of the lesson's last batches that had it.
    """

    lesson: int = 0
    step: int = 0
    total: int = 0
    fresh: int = 0
    tokens: int = 0
    seconds: float = 0.0
    recent: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def accuracies(self) -> dict[str, float]:
        """By kind of target, the mean accuracy of the last batches."""
        return {kind: sum(last) / len(last) for kind, last in self.recent.items()}

    def is_over(self, lesson: Lesson) -> bool:
        """Whether the lesson's steps are used up, or all its questions mastered."""
        asked = {k: v for k, v in self.accuracies().items() if k not in ("join", "end")}
        mastered = bool(asked) and min(asked.values()) >= lesson.mastery
        return self.step >= lesson.steps or (self.step >= _WINDOW and mastered)


class Trainer:
    """A model on its way through a curriculum; its state can be saved and resumed exactly."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, curriculum: Sequence[Lesson], seed: int) -> None:
        torch.manual_seed(seed)
        self.curriculum = curriculum
        self.seed = seed
        self.progress = Progress()
        self.model = new_model(tokenizer, curriculum[0].layers)
        self._optimizer = _new_optimizer(self.model)
        self._batches = BatchMaker(tokenizer)

    @property
    def done(self) -> bool:
        """Whether every lesson is over."""
        return self.progress.lesson == len(self.curriculum)

    def step(self) -> dict[str, Any]:
        """One optimiser step.

        Returns:
            What the log says of it: lesson, step, loss (nats a target) and the recent accuracies.
        """
        lesson, now = self.curriculum[self.progress.lesson], self.progress
        start = time.perf_counter()
        if lesson.layers > self.model.config.num_hidden_layers:
            self.model = stack_layers(self.model, lesson.layers)
            self._optimizer = _new_optimizer(self.model)
            now.fresh = 0
        batch = self._batches.draw(lesson, random.Random(f"{self.seed} {lesson.name} {now.step}"))
        for group in self._optimizer.param_groups:
            group["lr"] = _rate(lesson, now)
        loss, right = self._learn(batch)
        for kind, value in right.items():
            now.recent[kind] = [*now.recent.get(kind, []), value][-_WINDOW:]
        now.step, now.total, now.fresh = now.step + 1, now.total + 1, now.fresh + 1
        now.tokens += batch.ids.numel()
        now.seconds += time.perf_counter() - start
        report = {
            "lesson": lesson.name,
            "step": now.step,
            "total_steps": now.total,
            "tokens": now.tokens,
            "seconds": round(now.seconds, 1),
            "loss": round(loss, 4),
            "accuracy": {kind: round(value, 3) for kind, value in now.accuracies().items()},
        }
        if now.is_over(lesson):
            now.lesson, now.step, now.recent = now.lesson + 1, 0, {}
        return report

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on; an interrupted write leaves the old.

        Raises:
            ApeError: it cannot be written.
        """
        optimizer = self._optimizer.state_dict()["state"]
        tensors = {
            # By parameter, as the two ends of tied embeddings are one tensor.
            **{f"{_MODEL}{name}": weight for name, weight in self.model.named_parameters()},
            **{f"{_OPTIMIZER}{n}.{name}": value for n, own in optimizer.items() for name, value in own.items()},
        }
        notes = {"progress": dataclasses.asdict(self.progress), "layers": self.model.config.num_hidden_layers}
        with writing_told(path):
            tensor_file.write(path, tensors, form=_FORMAT, key=self._key, notes=notes)

    def resume(self, path: Path) -> None:
        """Go on from a saved state.

        Raises:
            FileNotFoundError: there is none.
            ApeError: it is damaged, or of a training with another seed or curriculum.
        """
        try:
            tensors, notes = tensor_file.read(path, form=_FORMAT, key=self._key)
        except tensor_file.DamagedError as error:
            raise ApeError(
                f"{path} cannot be gone on from, as {error}; if it is of a training with another seed than {self.seed} "
                "or of other lessons, give that seed or another output folder, else remove it to start anew."
            ) from error
        self.progress = Progress(**notes["progress"])
        self.model = stack_layers(self.model, notes["layers"])
        weights = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(tensors[f"{_MODEL}{name}"])
        self._optimizer = _new_optimizer(self.model)
        memory: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(_OPTIMIZER):
                number, what = name.removeprefix(_OPTIMIZER).split(".", 1)
                memory.setdefault(int(number), {})[what] = tensor
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": memory})

    @property
    def _key(self) -> str:
        """What the training depends on: its seed and its lessons."""
        return hashlib.sha256(f"{self.seed} {list(self.curriculum)}".encode()).hexdigest()

    def _learn(self, batch: Batch) -> tuple[float, dict[str, float]]:
        """Update the weights; the loss, and the accuracy by kind of target."""
        self.model.train()
        hidden = self.model.model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        aimed = batch.kind >= 0
        logits, target, kinds = self.model.lm_head(hidden[aimed]), batch.target[aimed], batch.kind
        loss = functional.cross_entropy(logits, target)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        right = (logits.argmax(-1) == target).float()
        accuracies = {}
        for index, kind in enumerate(KINDS):
            of_kind = kinds[aimed] == index
            if of_kind.any():
                accuracies[kind] = right[of_kind].mean().item()
        return loss.item(), accuracies


def _new_optimizer(model: LlamaForCausalLM) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)


def _rate(lesson: Lesson, now: Progress) -> float:
    """The learning rate: a warm-up after layers were added, and the lesson's decay."""
    rate = lesson.rate * min(1.0, (now.fresh + 1) / _WARM_UP)
    return rate * (1 - 0.98 * now.step / lesson.steps) if lesson.decay else rate
