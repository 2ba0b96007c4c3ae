"""What `ape-hf`'s methods leave for one another, since the parent class that calls them knows texts and ids alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lm_eval_ape.attention.segments import EncodedPrompt
from lm_eval_ape.encoding.encode import Prefixes
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings

Pair = tuple[Any, list[int], list[int]]
"""A prompt and a continuation as the parent hands them on: their texts, and the ids of each."""


@dataclass
class Asked:
    """The requests that are being answered.

    Attributes:
        prompts: Their prompts, by their texts.
        prefixes: Encoded prefixes that neighbouring requests share.
        batch: The texts that the parent is about to generate from.
        encoded: What the rows of the model's next call read; None for nothing.
        query: How many of their first tokens are the query.
    """

    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    prefixes: Prefixes = field(default_factory=dict)
    batch: list[str] = field(default_factory=list)
    encoded: EncodedPrompt | None = None
    query: int = 0

    def take_batch(self) -> tuple[list[str], list[Prompt]]:
        """The texts that are generated from next, and their prompts; they are asked for once."""
        texts, self.batch = self.batch, []
        return texts, [self.prompts[text] for text in texts]

    def queries(self, pairs: Sequence[Pair]) -> list[tuple[Prompt, Pair]] | None:
        """Each pair's prompt, and the pair with the query in the whole prompt's place.

        Returns:
            None where texts are asked for that were not cut: windows of a rolling text that has no context.
        """
        prompts = [self.prompts.get(strings[0]) if strings else None for strings, _, _ in pairs]
        known = [prompt for prompt in prompts if prompt is not None]
        if len(known) < len(pairs):
            return None
        # An empty prompt has no tokens of its own: the parent has put its prefix token there.
        return [
            (prompt, (strings, list(prompt.query) or before, after))
            for prompt, (strings, before, after) in zip(known, pairs, strict=True)
        ]


ContextKey = tuple[Any, ...]


def context_key(prompt: Prompt, settings: Settings) -> ContextKey:
    """Equal for prompts that read one context, so that their continuations can be scored in one batch."""
    selection = settings.selection
    # Where a query's tokens choose chunks together, a batch has one query, whose length is that of a pass; and where
    # they choose what is recomputed, its context is theirs alone.
    alone = prompt.query if (selection and selection.whole_pass) or settings.asks_to_recompute else ()
    return prompt.prefix, prompt.chunks, alone


def by_context(prompts: Sequence[Prompt], settings: Settings) -> list[list[int]]:
    """Numbers of prompts that read one context, by context."""
    groups: dict[ContextKey, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        groups[context_key(prompt, settings)].append(index)
    return list(groups.values())
