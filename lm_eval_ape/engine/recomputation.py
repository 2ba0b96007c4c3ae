"""Some of a context's tokens are read once more with everything before them in view; the others stay as encoded.

1. A selector gives every token after the first chunk a score; the best ones are recomputed. Tokens of the first chunk
   have seen all there is before them.
2. Those go through all layers once more, at their places in the text (see `attention.recomputed_tokens`).
3. What comes out is one context like any other: whatever reads it, with whichever T and S, needs to know nothing of
   this.

With all tokens recomputed it is the sequential model's context, whatever the selector; with none it stays what it was.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.key_scores import KeyScores
from lm_eval_ape.attention.recomputed_tokens import RecomputedLayer
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import (
    BatchReading,
    Encoded,
    EncodedPrompt,
    OnePassLayer,
    SegmentedCache,
    SegmentedLayer,
)
from lm_eval_ape.encoding.devices import ends_early, input_device
from lm_eval_ape.encoding.pieces import ENCODE_TOKENS
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.runtime.out_of_memory import Room
from lm_eval_ape.settings.layers import read_layers
from lm_eval_ape.settings.strategy import Settings

# Receives numbers of context tokens and the logits of the token after each, `(tokens, vocabulary)`.
OnRecomputed = Callable[[list[int], Tensor], None]
# At which layer new values are compared with frozen ones: the first that other tokens have any influence on.
_COMPARED = 1


def recomputed_count(share: float, tokens: int) -> int:
    """How many of a context's tokens are recomputed.

    Args:
        share: `Settings.recompute`: up to 1 a share of the tokens, above their number.
        tokens: How many tokens the context has.
    """
    if share > 1:
        return min(int(share), tokens)
    return max(1, round(share * tokens)) if share > 0 else 0


@torch.no_grad()
def recompute(
    model: PreTrainedModel,
    prompt: Prompt,
    encoded: EncodedPrompt,
    settings: Settings,
    *,
    used: Counter[str],
    on_recomputed: OnRecomputed | None = None,
) -> EncodedPrompt:
    """Recompute some tokens of a prompt's context.

    Args:
        model: A causal language model that `support.check` accepts.
        prompt: The prompt; its query is read where it chooses the tokens.
        encoded: Its prefix and chunks as they were encoded, which stay as they are.
        settings: `recompute`, `recompute_by`, `recompute_layers`, `recompute_seed` and `attn_backend` are read.
        used: Counts the attention rungs that served.
        on_recomputed: Called with recomputed tokens and their logits.

    Returns:
        The encoded prompt with another context, and which of its tokens were recomputed; the same one where there is
        nothing to recompute.
    """
    context = encoded.context
    if not settings.recompute or context is None or len(context.lengths) == 1:
        return encoded
    row = _Row(model, prompt, encoded, settings.attn_backend, used)
    count = recomputed_count(settings.recompute, len(context))
    chosen = _best(_SELECTORS[settings.recompute_by](row, settings), count, context.lengths)
    row.take(chosen, on_recomputed)
    mixed = replace(
        context,
        keys=tuple(keys[:, :, row.first :] for keys in row.keys),
        values=tuple(values[:, :, row.first :] for values in row.values),
    )
    segments = tuple(mixed if segment is context else segment for segment in encoded.segments)
    return replace(encoded, segments=segments, recomputed=tuple(chosen))


class _Row:
    """Prefix and context in one row of keys and values, each token at its position.

    Attributes:
        keys: One tensor a layer, `(1, kv_heads, tokens, head_dim)`, which passes change.
        values: Likewise.
        first: How many of the tokens are prefix.
        lengths: Tokens of each chunk.
    """

    def __init__(
        self, model: PreTrainedModel, prompt: Prompt, encoded: EncodedPrompt, backend: str, used: Counter[str]
    ) -> None:
        context = encoded.context
        assert context is not None
        self.model = model
        self.prompt = prompt
        self.encoded = encoded
        self.lengths = context.lengths
        self.first = len(prompt.prefix)
        self.ids = torch.tensor(prompt.ids[: self.first + len(context)])
        # The prefix first, whatever their order in the encoded prompt.
        segments = sorted(encoded.segments, key=lambda segment: segment.role == "context")
        layers = range(len(context.keys))
        self.keys = [torch.cat([segment.keys[layer] for segment in segments], dim=2) for layer in layers]
        self.values = [torch.cat([segment.values[layer] for segment in segments], dim=2) for layer in layers]
        self._reading = BatchReading((EncodedPrompt((), 0),), backend=backend, used=used)
        self._room = Room(ENCODE_TOKENS, rows="recomputed tokens")

    @property
    def candidates(self) -> list[int]:
        """Numbers of the context's tokens that have not seen all there is before them."""
        return list(range(self.lengths[0], sum(self.lengths)))

    def take(self, tokens: list[int], on_recomputed: OnRecomputed | None) -> None:
        """Let tokens of the context, by their ascending numbers, take their places in the row, in all layers."""
        logits = on_recomputed is not None
        early = not logits and ends_early(self.model)

        def run(part: slice) -> None:
            places = torch.tensor(tokens[part]) + self.first

            def layer(reading: BatchReading, index: int) -> SegmentedLayer:
                last = early and index == len(self.keys) - 1
                return self._layer(reading, index, places, last=last)

            output = self._pass(places, layer, logits=logits)
            if on_recomputed is not None:
                on_recomputed(tokens[part], output)

        # Tokens depend on those before them alone, so that one block may go after the other.
        self._room.pieces(run, len(tokens))

    def deviations(self) -> Tensor:
        """Mean squared difference of each candidate's new values in layer 1 from frozen ones, `(candidates,)`.

        Layers 0 and 1 are new for all candidates afterwards.
        """
        if len(self.keys) <= _COMPARED or self.encoded.context is None:
            return torch.zeros(len(self.candidates))
        early = ends_early(self.model)

        def run(part: slice) -> None:
            places = torch.tensor(self.candidates[part]) + self.first

            def layer(reading: BatchReading, index: int) -> SegmentedLayer:
                if index > _COMPARED:
                    # Reached only where a pass must come to its end, and read by nobody.
                    return OnePassLayer(reading, index)
                return self._layer(reading, index, places, last=early and index == _COMPARED)

            self._pass(places, layer, logits=False)

        self._room.pieces(run, len(self.candidates))
        new, frozen = self.values[_COMPARED][:, :, self.first :], self.encoded.context.values[_COMPARED]
        precision = torch.promote_types(new.dtype, torch.float32)
        deviation = (new.to(precision) - frozen.to(precision)).square().mean(dim=(0, 1, 3))
        return deviation[self.lengths[0] :].cpu()

    def asked_by_query(self, layers: tuple[int, ...]) -> Tensor:
        """How much the query attends to each candidate, `(candidates,)`, over the context as it was encoded."""
        scores = KeyScores(layers)
        reading = replace(self._reading, encoded_prompts=(self.encoded,), probe=scores)
        start = self.encoded.start
        places = torch.arange(start, start + len(self.prompt.query))
        self._run(torch.tensor(self.prompt.query), places, SegmentedCache(reading, len(self.keys)), logits=False)
        return scores.mean(sum(self.lengths))[self.lengths[0] :]

    def _layer(self, reading: BatchReading, index: int, places: Tensor, *, last: bool) -> RecomputedLayer:
        keys, values = self.keys[index], self.values[index]
        return RecomputedLayer(reading, index, keys=keys, values=values, places=places, last=last)

    def _pass(self, places: Tensor, layer: Callable[[BatchReading, int], SegmentedLayer], *, logits: bool) -> Tensor:
        cache = SegmentedCache(self._reading, len(self.keys), layer)
        return self._run(self.ids[places], places, cache, logits=logits)

    def _run(self, ids: Tensor, places: Tensor, cache: SegmentedCache, *, logits: bool) -> Tensor:
        """One pass of tokens at their positions; their logits where they are wanted."""
        device = input_device(self.model)
        network = self.model if logits else self.model.get_decoder()
        output = None
        with reading_segments(self.model), suppress(Encoded):
            output = network(
                input_ids=ids[None].to(device),
                position_ids=places[None].to(device),
                **cache_argument(network, cache),
                use_cache=True,
            )
        return output.logits[0] if logits and output is not None else torch.empty(0)


def _by_query(row: _Row, settings: Settings) -> Tensor:
    layers = read_layers(settings.recompute_layers)(len(row.keys))
    return row.asked_by_query(layers)


def _by_deviation(row: _Row, settings: Settings) -> Tensor:
    return row.deviations()


def _by_place(row: _Row, settings: Settings) -> Tensor:
    return -torch.cat([torch.arange(length) for length in row.lengths[1:]])


def _by_chance(row: _Row, settings: Settings) -> Tensor:
    # Of a context always the same tokens, whichever other contexts there are.
    digest = hashlib.sha256(f"{settings.recompute_seed} ".encode() + array("q", row.ids.tolist()).tobytes()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(len(row.candidates), generator=generator, dtype=torch.float64)


# What gives each candidate a score, by `Settings.recompute_by`.
_SELECTORS: dict[str, Callable[[_Row, Settings], Tensor]] = {
    "query": _by_query,
    "deviation": _by_deviation,
    "first": _by_place,
    "random": _by_chance,
}


def _best(scores: Tensor, count: int, lengths: tuple[int, ...]) -> list[int]:
    """Numbers of the context's tokens with the best scores, ascending; of equal ones the earlier.

    Args:
        scores: Of the tokens after the first chunk.
        count: How many at most.
        lengths: Tokens of each chunk.
    """
    order: list[int] = scores.argsort(descending=True, stable=True)[:count].add(lengths[0]).tolist()
    return sorted(order)
