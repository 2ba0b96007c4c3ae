"""A model under settings: it encodes prompts once, and rows with T and S of their own read what was encoded.

Everything that reads a prompt in pieces goes through here: an `Engine` encodes prefix and chunks, a `Tail` reads tokens
after them. The sequential model is read in the same way, by a tail of whole prompts.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.factors import Factors, reading_factors
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import BatchReading, EncodedPrompt, MakeLayer, SegmentedCache, SegmentedLayer
from lm_eval_ape.attention.token_passes import passes
from lm_eval_ape.encoding.devices import input_device
from lm_eval_ape.encoding.encode import OnLogits, Prefixes, encode_all, encode_with_logits
from lm_eval_ape.encoding.kv_store.store import KVStore
from lm_eval_ape.engine.recomputation import OnRecomputed, recompute
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings


@dataclass(frozen=True)
class Engine:
    """A loaded model under settings.

    Attributes:
        model: A causal language model that `support.check` accepts.
        settings: How prompts are encoded and read.
        store: Where encoded pieces are looked up and kept; None for nowhere.
        used: Counts the attention rungs that served.
        autocast_dtype: Precision of `torch.autocast`; None for the weights' own.
    """

    model: PreTrainedModel
    settings: Settings
    store: KVStore | None = None
    used: Counter[str] = field(default_factory=Counter)
    autocast_dtype: torch.dtype | None = None

    def under(self, settings: Settings) -> Engine:
        """The same model under other settings."""
        return replace(self, settings=settings)

    @property
    def device(self) -> torch.device:
        """Where token ids must go."""
        return input_device(self.model)

    @property
    def layers(self) -> int:
        """The model's number of layers."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    def autocast(self) -> torch.autocast:
        """The precision in which the model computes; no change without `autocast_dtype`."""
        return torch.autocast(self.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Encode a prompt's prefix and chunks, and recompute some tokens if the settings say so."""
        return self.encode_all([prompt])[0]

    def encode_with_logits(
        self, prompt: Prompt, on_logits: OnLogits, on_recomputed: OnRecomputed | None = None
    ) -> EncodedPrompt:
        """The same, handing out logits (see `encode.encode_with_logits` and `recomputation.recompute`)."""
        with self.autocast():
            encoded = encode_with_logits(self.model, prompt, self.settings, on_logits, used=self.used)
        return self.recompute(prompt, encoded, on_recomputed)

    def encode_all(self, prompts: Sequence[Prompt], prefixes: Prefixes | None = None) -> list[EncodedPrompt]:
        """Encode several prompts' prefixes and chunks together, and recompute some tokens if the settings say so."""
        encoded_prompts = self.encode_chunks(prompts, prefixes)
        return [self.recompute(prompt, own) for prompt, own in zip(prompts, encoded_prompts, strict=True)]

    def encode_chunks(self, prompts: Sequence[Prompt], prefixes: Prefixes | None = None) -> list[EncodedPrompt]:
        """Encode several prompts' prefixes and chunks together, nothing recomputed (see `encode.encode_all`)."""
        with self.autocast():
            return encode_all(self.model, prompts, self.settings, used=self.used, store=self.store, prefixes=prefixes)

    def recompute(
        self, prompt: Prompt, encoded: EncodedPrompt, on_recomputed: OnRecomputed | None = None
    ) -> EncodedPrompt:
        """Recompute some tokens of an encoded prompt as the settings say (see `recomputation.recompute`)."""
        with self.autocast():
            return recompute(self.model, prompt, encoded, self.settings, used=self.used, on_recomputed=on_recomputed)

    def without_store(self) -> Engine:
        """The same, reading nothing that was encoded before."""
        return replace(self, store=None)

    def reading(
        self, encoded_prompts: Sequence[EncodedPrompt], factors: Sequence[Factors] | None = None, **changes: Any
    ) -> BatchReading:
        """How rows read segments under the settings.

        Args:
            encoded_prompts: What they read, in the rows' order.
            factors: T and S of each row; None for those of the settings.
            **changes: Fields of `BatchReading` that differ.
        """
        settings = self.settings
        if factors is None and settings.factors is not None:
            factors = [settings.factors]
        if factors is None:
            pair: dict[str, Any] = {"temperature": settings.attn_temperature, "scale": settings.attn_scale}
        else:
            pair = reading_factors(factors, self.device, self.model.dtype)._asdict()
        given = {
            **pair,
            "scale_mode": settings.scale_mode,
            "backend": settings.attn_backend,
            "selection": settings.selection,
            "used": self.used,
            **changes,
        }
        return BatchReading(tuple(encoded_prompts), **given)

    def cache(
        self,
        encoded_prompts: Sequence[EncodedPrompt],
        factors: Sequence[Factors] | None = None,
        *,
        wanted: int | None = None,
        before: int = 0,
        layer: MakeLayer = SegmentedLayer,
        **changes: Any,
    ) -> SegmentedCache:
        """A cache of rows that read segments, for passes inside of `reading_segments`.

        Args:
            encoded_prompts: What the rows read, in their order.
            factors: T and S of each row; None for those of the settings.
            wanted: For how many of a pass's last tokens logits are wanted at most; None for all.
            before: How many of the tokens that `generate` gets are in the cache already, as what the segments hold.
            layer: Makes each layer.
            **changes: Fields of `BatchReading` that differ.
        """
        reading = self.reading(encoded_prompts, factors, **changes)
        # Where tokens choose chunks together, every token has a say in every layer.
        wanted = None if reading.selection else wanted
        return SegmentedCache(reading, self.layers, layer, wanted=wanted, before=before)

    @contextmanager
    def tail(
        self,
        encoded: EncodedPrompt,
        factors: Sequence[Factors] | None = None,
        *,
        rows: int | None = None,
        **options: Any,
    ) -> Iterator[Tail]:
        """Rows that read an encoded prompt, ready to read tokens after it while the context lasts.

        Args:
            encoded: The encoded prompt.
            factors: T and S of each row; None for those of the settings.
            rows: How many rows there are; by default one for each of `factors`, else one.
            **options: Further ones of `cache`.
        """
        rows = rows or (1 if factors is None else len(factors))
        cache = self.cache([replace(encoded, rows=rows)], factors, **options)
        with reading_segments(self.model):
            yield Tail(self, cache, encoded.start, rows)

    def sequential_tail(self, rows: int = 1) -> Tail:
        """Rows that have read nothing yet, by the model's own attention."""
        return Tail(self, DynamicCache(), 0, rows)


@dataclass
class Tail:
    """Rows that read tokens one after another.

    Attributes:
        engine: The model under its settings.
        cache: What the rows have read.
        start: Position of the next token.
        rows: How many rows there are.
    """

    engine: Engine
    cache: Cache
    start: int
    rows: int

    def read(self, ids: Tensor | Sequence[int], *, keep: int, query: int | None = None) -> Tensor:
        """Read tokens and return the logits of the last ones, with a gradient where PyTorch computes one.

        Args:
            ids: `(rows, tokens)`, or the tokens of all rows alike.
            keep: For how many of the last tokens logits are wanted, at least 1.
            query: How many of the tokens, from the first, are the query, where a known continuation follows it: tokens
                that choose chunks together then choose as if it were generated. None where nothing follows.

        Returns:
            `(rows, keep, vocabulary)`.
        """
        given = ids if isinstance(ids, Tensor) else torch.tensor([ids], device=self.engine.device)
        given = given.expand(self.rows, -1)
        length = given.shape[1]
        selection = None if query is None else self.engine.settings.selection
        kept = [
            self._pass(given[:, part], part.stop - max(part.start, length - keep))
            for part in passes(length, query or length, selection)
        ]
        return kept[0] if len(kept) == 1 else torch.cat(kept, dim=1)

    def _pass(self, ids: Tensor, keep: int) -> Tensor:
        model = self.engine.model
        positions = torch.arange(self.start, self.start + ids.shape[1], device=ids.device).expand_as(ids)
        # Logits of a whole long prompt would need more memory than its keys and values.
        limited = "logits_to_keep" in inspect.signature(model.forward).parameters
        options = {"logits_to_keep": max(keep, 1)} if limited else {}
        with self.engine.autocast():
            given = {**cache_argument(model, self.cache), **options}
            output = model(input_ids=ids, position_ids=positions, use_cache=True, **given)
        self.start += ids.shape[1]
        # With layers on several devices the logits come from the last one.
        return output.logits[:, output.logits.shape[1] - max(keep, 0) :].to(ids.device)
