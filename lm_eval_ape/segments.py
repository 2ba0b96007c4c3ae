"""Frozen segments of keys and values, the cache that carries them, and the attention that reads them.

What a query reads is a list of frozen segments (the prefix, the chunks of the context) and its own live tail. The
tail lives in an ordinary transformers cache layer; the segments ride on the key tensor that the layer returns, and
the attention function registered here attends to the tail and to each segment and merges them. A model needs no code
of its own for this, and `model.generate` sees a cache that is as long as the tail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from lm_eval_ape.attend import attend
from lm_eval_ape.errors import ApeError
from lm_eval_ape.merge import Attended, merge, scale_context

ATTENTION_NAME = "lm_eval_ape"
Role = Literal["prefix", "context"]


@dataclass(frozen=True, eq=False)
class Segment:
    """Keys and values of tokens that were encoded once and are only read from then on.

    Attributes:
        role: `prefix` keys are read as ordinary attention reads them, `context` keys with T and S.
        keys: One tensor a layer, `(1, kv_heads, tokens, head_dim)`, rotary positions applied.
        values: One tensor a layer, `(1, kv_heads, tokens, value_dim)`.
        positions: `(tokens,)`, on the CPU; real-valued where positions are stretched.
    """

    role: Role
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    positions: Tensor

    def __len__(self) -> int:
        return self.positions.shape[0]

    @cached_property
    def first(self) -> float:
        """The smallest position."""
        return float(self.positions.min())

    @cached_property
    def last(self) -> float:
        """The largest position."""
        return float(self.positions.max())


@dataclass(frozen=True)
class Reader:
    """What some neighbouring rows of a batch read.

    Attributes:
        segments: The frozen segments, in any order; none for an ordinary sequential row.
        start: Position of the tail's first column (below the first token's by the row's left padding).
        rows: How many rows of the batch share these segments.
    """

    segments: tuple[Segment, ...]
    start: int
    rows: int = 1


@dataclass(frozen=True)
class Reading:
    """How a batch reads its segments.

    T and S are numbers, or tensors broadcastable to `(rows, layers, heads)`: one value a row of a grid, or a head.

    Attributes:
        readers: In the order of the batch's rows.
        temperature: T, which divides the logits of context keys.
        scale: S, which weighs the context in the merge (see `merge.scale_context`).
        scale_mode: `lse`, `value` or `additive`.
        backend: `auto` or the name of a rung in `attend.LADDER`.
        used: Counts the rungs that served.
    """

    readers: tuple[Reader, ...]
    temperature: float | Tensor = 1.0
    scale: float | Tensor = 1.0
    scale_mode: str = "lse"
    backend: str = "auto"
    used: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """Batch rows that the readers serve."""
        return sum(reader.rows for reader in self.readers)


class SegmentedLayer(DynamicLayer):
    """An ordinary cache layer for the tail, whose keys carry what else there is to read."""

    def __init__(self, reading: Reading, index: int) -> None:
        super().__init__()
        self.reading = reading
        self.index = index

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append to the tail and return it, the reading attached to its keys."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        keys.lm_eval_ape_layer = self  # type: ignore[attr-defined]
        return keys, values


class SegmentedCache(Cache):
    """The tail's cache for a batch that reads segments; its length is the tail's alone."""

    def __init__(self, reading: Reading, num_layers: int) -> None:
        super().__init__(layers=[SegmentedLayer(reading, index) for index in range(num_layers)])


def segmented_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend to the tail and to every segment that rides on its keys, and merge (transformers' attention signature).

    Args:
        module: The model's attention layer.
        query: `(rows, heads, query, head_dim)`.
        key: The tail's keys, `(rows, kv_heads, tail, head_dim)`, as a `SegmentedLayer` returned them.
        value: The tail's values.
        attention_mask: Boolean `(rows, 1, query, tail)` over the tail, or None where it is plainly causal.
        scaling: The model's softmax scaling; `head_dim ** -0.5` if it passes none.
        softcap: The model's cap on attention logits.
        sliding_window: The layer's window in positions: a query sees keys less than this far behind it.
        s_aux: Learned attention-sink logits, one a head.
        **kwargs: What else the model passes; dropout and the like are not for inference.

    Returns:
        Output `(rows, query, heads, head_dim)` and no attention weights.
    """
    layer = getattr(key, "lm_eval_ape_layer", None)
    if layer is None:
        raise ApeError(
            f"{type(module).__name__} changes the cached keys before it attends to them, so parallel encoding cannot "
            "read them; this model can only run with strategy=sequential."
        )
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    reading: Reading = layer.reading
    common = {"softcap": softcap, "backend": reading.backend, "used": reading.used}
    causal = attention_mask is None and query.shape[2] > 1
    tail = attend(query, key, value, scaling=scaling, causal=causal, mask=attention_mask, **common)
    if s_aux is not None:
        sink = s_aux.to(tail.lse.dtype).view(1, -1, 1).expand_as(tail.lse)
        tail = merge([tail, Attended(torch.zeros_like(tail.out), sink)])

    temperature = _for_layer(reading.temperature, layer.index)
    scale = _for_layer(reading.scale, layer.index)
    # `generate` repeats each row for its beams or samples; a reader's rows then come in as many more.
    repeats = query.shape[0] // reading.rows
    outputs, row = [], 0
    for reader in reading.readers:
        rows = slice(row * repeats, (row + reader.rows) * repeats)
        row += reader.rows
        own = Attended(tail.out[rows], tail.lse[rows])
        groups: dict[str, list[Attended]] = {"prefix": [own], "context": []}
        for segment in reader.segments:
            factor = temperature if segment.role == "context" else 1.0
            part = _attend_segment(
                query[rows],
                segment,
                layer.index,
                scaling=scaling,
                temperature=_rows(factor, rows, repeats),
                window=_Window(sliding_window, reader.start, key.shape[2]),
                common=common,
            )
            if part is not None:
                groups[segment.role].append(part)
        if groups["context"]:
            row_temperature, row_scale = _rows(temperature, rows, repeats), _rows(scale, rows, repeats)
            context = scale_context(merge(groups["context"]), row_temperature, row_scale, reading.scale_mode)
            groups["prefix"].append(context)
        outputs.append(merge(groups["prefix"]).out)
    out = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return out.to(query.dtype).transpose(1, 2).contiguous(), None


@dataclass(frozen=True)
class _Window:
    """A sliding window over positions, seen from the tail's last columns.

    Attributes:
        size: The layer's window, or None.
        start: Position of the tail's first column.
        tail: Columns of the tail so far; the queries are its last ones.
    """

    size: int | None
    start: int
    tail: int

    def mask(self, segment: Segment, queries: int, device: torch.device) -> Tensor | Literal["hidden"] | None:
        """Which keys the queries see: None for all, `hidden` for none, else boolean `(1, 1, queries, tokens)`."""
        if self.size is None:
            return None
        last = self.start + self.tail - 1
        first = last - queries + 1
        if last - segment.first < self.size:
            return None
        if first - segment.last >= self.size:
            return "hidden"
        positions = torch.arange(first, last + 1).unsqueeze(1)
        return (positions - segment.positions < self.size)[None, None].to(device)


def _attend_segment(
    query: Tensor,
    segment: Segment,
    layer: int,
    *,
    scaling: float,
    temperature: float | Tensor,
    window: _Window,
    common: dict[str, Any],
) -> Attended | None:
    """Attention over one segment with logits divided by the temperature; None where the window hides all of it."""
    mask = window.mask(segment, query.shape[2], query.device)
    if isinstance(mask, str):
        return None
    if isinstance(temperature, Tensor):
        query = query / temperature.unsqueeze(-1).to(query.dtype)
    else:
        # A number goes into the softmax scaling, where half-precision queries do not round it.
        scaling = scaling / temperature
    return attend(query, segment.keys[layer], segment.values[layer], scaling=scaling, mask=mask, **common)


def _for_layer(factor: float | Tensor, layer: int) -> float | Tensor:
    """T or S of one layer: a number, or `(rows or 1, heads or 1, 1)`."""
    if not isinstance(factor, Tensor):
        return factor
    rows, layers, heads = (1,) * (3 - factor.dim()) + tuple(factor.shape)
    return factor.reshape(rows, layers, heads)[:, min(layer, layers - 1), :, None]


def _rows(factor: float | Tensor, rows: slice, repeats: int) -> float | Tensor:
    """The part of T or S that belongs to these rows of the batch."""
    if not isinstance(factor, Tensor) or factor.shape[0] == 1:
        return factor
    return factor.repeat_interleave(repeats, dim=0)[rows]


AttentionInterface.register(ATTENTION_NAME, segmented_attention)
# The stock mask covers just the tail: the segments' masks are the attention's own business.
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


@contextmanager
def reading_segments(model: PreTrainedModel) -> Iterator[None]:
    """Let every attention layer of the model read segments while the context lasts, then put it back.

    Raises:
        ApeError: The model keeps its own attention function.
    """
    decoder = model.get_decoder()
    previous = decoder.config._attn_implementation
    decoder.set_attn_implementation(ATTENTION_NAME)
    try:
        if decoder.config._attn_implementation != ATTENTION_NAME:
            raise ApeError(
                f"{type(decoder).__name__} does not let its attention function be replaced (transformers' "
                "AttentionInterface), so it cannot read segments; only strategy=sequential can run this model."
            )
        yield
    finally:
        decoder.set_attn_implementation(previous)
