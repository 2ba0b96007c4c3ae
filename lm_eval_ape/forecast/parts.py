"""The parts of a run: what each reads, what that takes, and how it is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

from lm_eval.api.instance import Instance

from lm_eval_ape.encoding.pieces import passes, plan
from lm_eval_ape.engine.operations import ModelShape
from lm_eval_ape.forecast.random_model import RandomApeHFLM
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings


class Held(NamedTuple):
    """What memory holds at once.

    Attributes:
        keys: Tokens whose keys and values are held, in all layers.
        passed: Tokens of the largest forward pass.
        logits: Vectors over the vocabulary in the model's precision.
        distributions: Vectors over the vocabulary in float32.
    """

    keys: float
    passed: float
    logits: float
    distributions: float


@dataclass(frozen=True)
class Item:
    """What is read in one go.

    Attributes:
        prompts: The prompts; of requests, one a request.
        requests: The requests of the harness; none where prompts are read without it.
        new: Tokens that follow each prompt at most: generated ones, or those of a continuation.
    """

    prompts: tuple[Prompt, ...]
    requests: tuple[Instance, ...] = ()
    new: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(len(prompt.ids) for prompt in self.prompts)

    def shortened(self, share: float) -> Item:
        """The same with a share of each prompt's tokens."""
        return replace(self, prompts=tuple(_shortened(prompt, share) for prompt in self.prompts))


def _shortened(prompt: Prompt, share: float) -> Prompt:
    """A share of each chunk; of the whole prompt, where there are none."""
    if not prompt.chunks:
        return replace(prompt, query=prompt.query[: ceil(share * len(prompt.query))])
    return replace(prompt, chunks=tuple(chunk[: ceil(share * len(chunk))] for chunk in prompt.chunks))


@dataclass(frozen=True)
class Part:
    """A part of a run.

    Attributes:
        name: What is done.
        settings: How prompts are read.
        items: What is read.
        operations: Floating-point operations of an item, read under settings in a model of some shape.
        measure: Seconds of an item on a random model.
        held: What memory holds at once for an item.
        times: How often all of it is done.
        new: Tokens that are generated or scored after an item's prompts, for the table.
        reads: Whether it reads the prompts, and does not go on from where another part has.
    """

    name: str
    settings: Settings
    items: Sequence[Item]
    operations: Callable[[ModelShape, Settings, Item], float]
    measure: Callable[[RandomApeHFLM, Item], float]
    held: Callable[[Item], Held]
    times: int = 1
    new: Callable[[Item], int] = lambda item: 0
    reads: bool = True

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts of all items."""
        return [prompt for item in self.items for prompt in item.prompts]

    def total(self, shape: ModelShape) -> float:
        """Operations of the whole part."""
        return self.times * sum(self.operations(shape, self.settings, item) for item in self.items)

    def on(self, lm: RandomApeHFLM, item: Item) -> float:
        """Operations of an item on a random model."""
        return self.operations(lm.shape, lm.fitting(self.settings), item)


def context_tokens(prompt: Prompt) -> int:
    """Tokens of prefix and chunks."""
    return len(prompt.prefix) + sum(map(len, prompt.chunks))


def passed_tokens(prompts: Sequence[Prompt], settings: Settings) -> int:
    """Tokens of the largest pass that encodes prompts' prefixes and chunks."""
    pieces = [piece for prompt in prompts if prompt.chunks for piece in plan(prompt, settings).pieces]
    return max((sum(map(len, together)) for together in passes(pieces)), default=0)
