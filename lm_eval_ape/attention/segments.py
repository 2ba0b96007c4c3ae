"""Frozen segments of keys and values, and the cache that carries them beside a live tail.

What a query reads is a list of frozen segments (the prefix, the chunks of the context) and its own live tail. The
tail lives in an ordinary transformers cache layer; the segments ride on the key tensor that the layer returns, where
`segmented_attention` finds them. A model needs no code of its own for this, and `model.generate` sees a cache that is
as long as the tail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from lm_eval_ape.attention.row_statistics import Probe
from lm_eval_ape.attention.selection import Choice, Selection

Role = Literal["prefix", "context"]


@dataclass(frozen=True, eq=False)
class Segment:
    """Keys and values of tokens that were encoded once and are only read from then on.

    Attributes:
        role: `context` keys are read with T and S; `prefix` keys as ordinary attention reads them, or with a T and S of
            their own.
        keys: One tensor a layer, `(1, kv_heads, tokens, head_dim)`, rotary positions applied.
        values: One tensor a layer, `(1, kv_heads, tokens, value_dim)`.
        positions: `(tokens,)`, on the CPU; real-valued where positions are stretched.
        lengths: Tokens of each chunk, in order; of a prefix, all of them.
    """

    role: Role
    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    positions: Tensor
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return self.positions.shape[0]

    @cached_property
    def chunk_of(self) -> Tensor:
        """Of each token the number of its chunk, `(tokens,)`, where the first layer's keys are."""
        lengths = torch.tensor(self.lengths)
        return torch.arange(len(self.lengths)).repeat_interleave(lengths).to(self.keys[0].device)

    @cached_property
    def chunk_tokens(self) -> Tensor:
        """Of each chunk the numbers of its tokens, `(chunks, longest)`; `tokens` where it is shorter."""
        starts = torch.tensor([0, *self.lengths[:-1]]).cumsum(0).unsqueeze(1)
        places = torch.arange(max(self.lengths))
        inside = places < torch.tensor(self.lengths).unsqueeze(1)
        return (starts + places).where(inside, torch.tensor(len(self))).to(self.keys[0].device)

    @cached_property
    def first(self) -> float:
        """The smallest position."""
        return float(self.positions.min())

    @cached_property
    def last(self) -> float:
        """The largest position."""
        return float(self.positions.max())


@dataclass(frozen=True)
class EncodedPrompt:
    """What some neighbouring rows of a batch read.

    Attributes:
        segments: The frozen segments, in any order; none for an ordinary sequential row.
        start: Position of the tail's first column (below the first token's by the row's left padding).
        rows: How many rows of the batch share these segments.
        recomputed: Numbers of the context's tokens that were recomputed, ascending.
    """

    segments: tuple[Segment, ...]
    start: int
    rows: int = 1
    recomputed: tuple[int, ...] = ()

    @property
    def context(self) -> Segment | None:
        """The context's segment; None where there is none."""
        return next((segment for segment in self.segments if segment.role == "context"), None)

    @property
    def recomputed_in_chunks(self) -> list[int]:
        """How many tokens of each chunk were recomputed."""
        if self.context is None:
            return []
        ends = torch.tensor(self.context.lengths).cumsum(0)
        chunks = torch.bucketize(torch.tensor(self.recomputed, dtype=torch.long), ends, right=True)
        return list(torch.bincount(chunks, minlength=len(ends)).tolist())


def together(encoded_prompts: Sequence[EncodedPrompt]) -> tuple[EncodedPrompt, ...]:
    """Neighbouring ones of the same segments from the same position as one, which reads them once for all rows."""
    joined: list[EncodedPrompt] = []
    for encoded in encoded_prompts:
        last = joined[-1] if joined else None
        if last and last.segments and last.segments == encoded.segments and last.start == encoded.start:
            joined[-1] = replace(last, rows=last.rows + encoded.rows)
        else:
            joined.append(encoded)
    return tuple(joined)


@dataclass(frozen=True)
class BatchReading:
    """How a batch reads its segments.

    T and S are numbers, or tensors broadcastable to `(rows, layers, heads)`: one value a row of a grid, or a head.

    Attributes:
        encoded_prompts: In the order of the batch's rows.
        temperature: T, which divides the logits of context keys.
        scale: S, which weighs the context in the merge (see `merge.scale_context`).
        scale_mode: `lse`, `value` or `additive`.
        prefix_temperature: T of prefix keys; with `prefix_scale` 1 the prefix is read as ordinary attention does.
        prefix_scale: S of the prefix.
        backend: `auto` or the name of a rung in `kernels.LADDER`.
        selection: How a query chooses among the chunks; None to read all of them.
        probe: Sees the attention rows; None for none.
        alike: Whether all rows of an encoded prompt read the same tokens in the first pass. Its first layer then
            attends once for each T.
        used: Counts the rungs that served.
        sights: By segment and window, which keys the last pass's queries see, found once for all layers of a window.
    """

    encoded_prompts: tuple[EncodedPrompt, ...]
    temperature: float | Tensor = 1.0
    scale: float | Tensor = 1.0
    scale_mode: str = "lse"
    prefix_temperature: float | Tensor = 1.0
    prefix_scale: float | Tensor = 1.0
    backend: str = "auto"
    selection: Selection | None = None
    probe: Probe | None = None
    alike: bool = False
    used: Counter[str] = field(default_factory=Counter)
    sights: dict[tuple[int, int | None], Any] = field(default_factory=dict)

    @property
    def tempers_prefix(self) -> bool:
        """Whether the prefix has a T and S of its own."""
        pair = self.prefix_temperature, self.prefix_scale
        return any(isinstance(factor, Tensor) or factor != 1.0 for factor in pair)

    def selects(self, context: Segment) -> bool:
        """Whether only some of a context's chunks are read."""
        return self.selection is not None and self.selection.top_chunks < len(context.lengths)

    @property
    def rows(self) -> int:
        """Batch rows that the encoded prompts serve."""
        return sum(encoded.rows for encoded in self.encoded_prompts)


class SegmentedLayer(DynamicLayer):
    """An ordinary cache layer for the tail, whose keys carry what else there is to read.

    Attributes:
        reading: What is read, and how.
        index: The layer's number.
        chosen: By the encoded prompt's number, the last choice of chunks.
        surveyed: While scores of all layers are gathered, by the encoded prompt's number, this layer's
            `(rows, heads, query, chunks)`; None otherwise.
        wanted: Of how many of a pass's last tokens the attention is wanted, that of others being zero; None for all.
        before: How many tokens of the rows' ids come before the tail; the segments hold what they say.
    """

    def __init__(self, reading: BatchReading, index: int) -> None:
        super().__init__()
        self.before = 0
        self.reading = reading
        self.index = index
        self.chosen: dict[int, Choice] = {}
        self.surveyed: dict[int, Tensor] | None = None
        self.wanted: int | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append to the tail and return it, the reading attached to its keys."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        # To a view of them: a layer that its own keys point at would keep them, and all that it reads, until Python
        # looks for circles.
        carrier: Any = keys.view_as(keys)
        carrier.lm_eval_ape_layer = self
        return carrier, values

    def get_seq_length(self) -> int:
        """How many tokens of the rows' ids are in the cache, so that a pass reads the others."""
        return self.before + super().get_seq_length()

    def get_mask_sizes(self, *asked: Any) -> tuple[int, int]:
        """The tail's length in a pass, and the number of ids that its mask leaves out before it.

        Args:
            *asked: The pass's tokens: their number, or in older releases their places.
        """
        length, first = super().get_mask_sizes(*asked)
        return length - self.before, first + self.before


class OnePassLayer(SegmentedLayer):
    """A layer for one single pass: it keeps no tail, so the pass may run a layer twice (activation checkpointing)."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the pass's own keys and values, the reading attached to the keys."""
        keys: Any = key_states
        keys.lm_eval_ape_layer = self
        return keys, value_states


class Encoded(Exception):
    """All keys and values of a piece are known: what the forward pass had still to do concerns its outputs alone."""


class EncodedLayer(SegmentedLayer):
    """The last layer of an encoding: it ends the forward pass with the exception `Encoded` once it has its keys."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take the keys and values, and end the pass."""
        super().update(key_states, value_states, *args, **kwargs)
        raise Encoded


# Makes a layer of a reading and the layer's number.
MakeLayer = Callable[[BatchReading, int], SegmentedLayer]


class SegmentedCache(Cache):
    """The tail's cache for a batch that reads segments; its length is the tail's alone.

    Args:
        reading: What is read, and how.
        num_layers: The model's number of layers.
        layer: Makes every layer.
        last: Makes the last one, if it is something else.
        wanted: Of how many of a pass's last tokens the model's outputs are wanted; the last layer reads for no others.
            None for all.
        before: How many of the tokens that `generate` gets are in the cache already, as what the segments hold.
    """

    def __init__(
        self,
        reading: BatchReading,
        num_layers: int,
        layer: MakeLayer = SegmentedLayer,
        *,
        last: MakeLayer | None = None,
        wanted: int | None = None,
        before: int = 0,
    ) -> None:
        kinds = [*[layer] * (num_layers - 1), last or layer]
        layers = [kind(reading, index) for index, kind in enumerate(kinds)]
        layers[-1].wanted = wanted
        for own in layers:
            own.before = before
        super().__init__(layers=layers)
        self.reading = reading
