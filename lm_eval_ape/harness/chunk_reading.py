"""The harness's Hugging Face model, whose prompts' chunks are read as they were encoded.

The parent knows prompts by their texts: it is given what they were cut to where it tokenises them, and the chunks that
they read where it calls the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from tqdm import tqdm

from lm_eval_ape.attention.segments import EncodedPrompt
from lm_eval_ape.encoding.pieces import blocks
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.generating import generating, put_together, whole_prompts
from lm_eval_ape.engine.non_finite import next_tokens_finite
from lm_eval_ape.harness.asked import Asked, Pair, by_context
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.runtime.out_of_memory import Room
from lm_eval_ape.settings.strategy import Settings


class ChunkReadingHFLM(HFLM):
    """`hf` with an engine between its requests and its model.

    Attributes:
        engine: The model under its present settings; set once the model is loaded.
    """

    engine: Engine

    def __init__(self, **arguments: Any) -> None:
        self._asked = Asked()
        self._room = Room(rows="requests", relieve=self._let_chunks_go)
        super().__init__(**arguments)

    @property
    def settings(self) -> Settings:
        """How prompts are encoded and read."""
        return self.engine.settings

    @contextmanager
    def _with(self, engine: Engine) -> Iterator[None]:
        before, self.engine = self.engine, engine
        self._asked.prefixes = {}
        try:
            yield
        finally:
            self.engine = before
            self._asked.prefixes = {}

    def scored_tokens(self, prompt: str, continuation: str) -> int:
        """How many tokens of a continuation are scored after a prompt, as the parent splits the two."""
        if prompt:
            return len(self._encode_pair(prompt, continuation)[1])
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        # The first token is the context of the others where it is the prefix token.
        return len(tokens) - (tokens[:1] == [self.prefix_token_id])

    def under(self, settings: Settings) -> AbstractContextManager[None]:
        """Encode and read under other settings while the context lasts."""
        return self._with(self.engine.under(settings))

    def without_kept_chunks(self) -> AbstractContextManager[None]:
        """Read nothing that was encoded before, and leave the store alone, while the context lasts."""
        return self._with(self.engine.without_store())

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Give the parent prompts to generate from as they were cut; `_model_generate` reads their chunks apart."""
        if not all(string in self._asked.prompts for string in strings):
            return super().tok_batch_encode(strings, padding_side, left_truncate_len, truncation)
        self._asked.batch = list(strings)
        return whole_prompts([self._asked.prompts[string] for string in strings], self.tokenizer.pad_token_id)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Tensor:
        texts, batch = self._asked.take_batch()
        parent = super()._model_generate
        if not any(prompt.chunks for prompt in batch):
            with next_tokens_finite(self.model, texts):
                return parent(context, max_length, stop, **options)
        mask = options.pop("attention_mask")

        def generate(rows: slice) -> Tensor:
            reading = generating(self.engine, batch[rows], self._encode(batch[rows]), mask[rows])
            with next_tokens_finite(self.model, texts[rows]), reading as arguments:
                return parent(context[rows], max_length, stop, **arguments, **options)

        return put_together(self._room.pieces(generate, len(batch)), self.tokenizer.pad_token_id)

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        parent = super()._loglikelihood_tokens
        asked = self._asked.queries(requests)
        if asked is None or not any(prompt.chunks for prompt, _ in asked):
            pairs = requests if asked is None else [pair for _, pair in asked]
            return list(parent(pairs, disable_tqdm=disable_tqdm, override_bs=override_bs))
        groups = by_context([prompt for prompt, _ in asked], self.settings)
        # Short contexts are encoded together.
        firsts = [asked[group[0]][0] for group in groups]
        answers: dict[int, tuple[float, bool]] = {}
        quiet = disable_tqdm or self.rank != 0
        with tqdm(total=len(requests), desc="Running loglikelihood requests", disable=quiet) as progress:
            for block in blocks([len(prompt.ids) for prompt in firsts]):
                for group, encoded in zip(groups[block], self._encode(firsts[block]), strict=True):
                    pairs = [asked[index][1] for index in group]
                    self._asked.query = len(asked[group[0]][0].query)
                    answers.update(zip(group, self._scored(pairs, encoded, parent), strict=True))
                    progress.update(len(group))
        return [answers[index] for index in range(len(requests))]

    def _scored(
        self, pairs: Sequence[Pair], encoded: EncodedPrompt, parent: Callable[..., list[tuple[float, bool]]]
    ) -> list[tuple[float, bool]]:
        """Score continuations of one context by the parent's method, as many at a time as memory allows."""
        rows = min(len(pairs), self.max_batch_size or len(pairs))

        def score(part: slice) -> list[tuple[float, bool]]:
            return parent(pairs[part], disable_tqdm=True, override_bs=min(rows, self._room.most or rows))

        self._asked.encoded = encoded
        try:
            return [answer for part in self._room.pieces(score, len(pairs)) for answer in part]
        finally:
            self._asked.encoded = None

    def _encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        """Encode prefixes and chunks; a prefix that the prompts before had too is there still."""
        encoded_prompts = self.engine.encode_all(prompts, self._asked.prefixes)
        if self.settings.recompute:
            for prompt, encoded in zip(prompts, encoded_prompts, strict=True):
                self.note_recomputed(prompt, encoded.recomputed_in_chunks)
        return encoded_prompts

    def note_recomputed(self, prompt: Prompt, tokens: Sequence[int]) -> None:
        """Take note of how many tokens of each chunk of a prompt were recomputed; for subclasses."""

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        encoded = self._asked.encoded
        if encoded is None or not encoded.segments:
            return super()._model_call(inps, attn_mask, labels)
        with torch.no_grad(), self.engine.tail(encoded, rows=inps.shape[0]) as tail:
            return tail.read(inps, keep=inps.shape[1], query=self._asked.query)

    def _let_chunks_go(self) -> str | None:
        """Make room by forgetting chunks, which can be encoded again."""
        kept = self.engine.store is not None and self.engine.store.clear_memory()
        return "the chunks kept in memory are let go" if kept else None
