"""The attention that reads segments, registered with transformers for any model that lets its attention be chosen.

Attends to the live tail and to each segment that rides on its keys, and merges them by their log-sum-exps, the context
with its temperature and scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from lm_eval_ape.attention.attend import attend
from lm_eval_ape.attention.merge import Attended, merge, merged_output, scale_context, with_sinks
from lm_eval_ape.attention.over_layers import choose_over_layers
from lm_eval_ape.attention.packed_pieces import PackedLayer
from lm_eval_ape.attention.recomputed_tokens import RecomputedLayer
from lm_eval_ape.attention.row_statistics import Asked, Part
from lm_eval_ape.attention.segments import BatchReading, Role, Segment, SegmentedLayer
from lm_eval_ape.attention.selected_chunks import ContextQuery, read_selected, visible_tokens
from lm_eval_ape.attention.window import Sight, Window
from lm_eval_ape.errors import ApeError

ATTENTION_NAME = "lm_eval_ape"
# Of pieces and queries up to so many tokens, prefix and tail are read at once on a CPU: two calls and their merge take
# longer than the half of the logits that a mask hides. A new token reads twice as many at once on every device.
JOINED_TOKENS = 384


def segmented_attention(  # noqa: PLR0917 (transformers passes these by position)
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
    layer: SegmentedLayer | None = getattr(key, "lm_eval_ape_layer", None)
    if layer is None:
        raise ApeError(
            f"{type(module).__name__} changes the cached keys before it attends to them, so parallel encoding cannot "
            "read them; this model can only run with strategy=sequential."
        )
    length = query.shape[2]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    first = 0 if layer.wanted is None else max(0, length - layer.wanted)
    if first:
        # Only the last tokens' outputs are wanted; those of the others are left at zero.
        attention_mask = _causal(query, key) if attention_mask is None else attention_mask
        query, attention_mask = query[:, :, first:], attention_mask[:, :, first:]
    asked = Asked(query, scaling, softcap)
    if isinstance(layer, RecomputedLayer):
        return layer.read(asked, sliding_window, s_aux).to(query.dtype).transpose(1, 2).contiguous(), None
    if isinstance(layer, PackedLayer):
        out = _packed(layer, asked, key, value, window=sliding_window, sinks=s_aux)
    else:
        out = _rows(layer, asked, key, value, mask=attention_mask, window=sliding_window, sinks=s_aux)
    out = pad(out, (0, 0, first, 0)) if first else out
    return out.to(query.dtype).transpose(1, 2).contiguous(), None


def _packed(
    layer: PackedLayer, asked: Asked, key: Tensor, value: Tensor, *, window: int | None, sinks: Tensor | None
) -> Tensor:
    """Attend within each piece of a packed row and to what it reads beside itself: `(1, heads, tokens, head_dim)`."""
    outputs = []
    for pieces in layer.together:
        query, keys, values = (pieces.rows(tensor) for tensor in (asked.query, key, value))
        own = SegmentedLayer(pieces.reading, layer.index)
        mask = pieces.mask(window, query.device)
        out = _rows(own, asked._replace(query=query), keys, values, mask=mask, window=window, sinks=sinks)
        outputs.append(pieces.packed(out))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _rows(
    layer: SegmentedLayer,
    asked: Asked,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None,
    window: int | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attend to the rows' tails and to the segments that each of them reads, and merge.

    Args:
        layer: The layer's cache.
        asked: The queries.
        key: The tail's keys.
        value: The tail's values.
        mask: Over the tail; None where it is plainly causal.
        window: The layer's sliding window.
        sinks: Learned attention-sink logits, one a head.

    Returns:
        `(rows, heads, query, head_dim)`.
    """
    joined = _prefix_to_join(layer, asked.query, key, mask, window)
    if joined is None:
        own, tail = _tail(layer.reading, asked, key, value, mask=mask, sinks=sinks)
    else:
        keys, values, visible = _joined(joined, layer.index, key, value, asked.query.shape[2])
        own, tail = _tail(layer.reading, asked, keys, values, mask=visible, sinks=sinks)
    outputs = []
    for rows, segments, part in _encoded_prompts(layer, asked, key, mask, window):
        others = [segment for segment in segments if segment is not joined]
        tails = (Attended(side.out[part], side.lse[part]) for side in (tail, own))
        outputs.append(rows.merged(others, *tails))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _prefix_to_join(
    layer: SegmentedLayer, query: Tensor, key: Tensor, mask: Tensor | None, window: int | None
) -> Segment | None:
    """A short prefix that is read in one call with the tail, where that takes less time than two calls."""
    rows, _, length, _ = query.shape
    reading, tail = layer.reading, key.shape[2]
    if mask is not None or reading.probe is not None or reading.tempers_prefix or len(reading.encoded_prompts) != 1:
        return None
    first_pass = length == tail <= JOINED_TOKENS and query.device.type == "cpu"
    if not first_pass and (length > 1 or rows > 1):
        return None
    (encoded,) = reading.encoded_prompts
    prefix = next((segment for segment in encoded.segments if segment.role == "prefix"), None)
    if prefix is None or len(prefix) + tail > 2 * JOINED_TOKENS or Window(window, encoded.start, tail).cuts(prefix):
        return None
    return prefix


def _joined(
    prefix: Segment, layer: int, key: Tensor, value: Tensor, queries: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys and values of the prefix in front of each row's own, and the causal mask over both."""
    keys, values = (
        torch.cat([shared[layer].expand(own.shape[0], -1, -1, -1), own], dim=2)
        for shared, own in ((prefix.keys, key), (prefix.values, value))
    )
    if queries == 1:
        return keys, values, None
    visible = torch.ones(queries, keys.shape[2], dtype=torch.bool, device=key.device).tril(len(prefix))
    return keys, values, visible[None, None]


def _causal(query: Tensor, key: Tensor) -> Tensor:
    """The mask of plainly causal attention, `(1, 1, query, tail)`."""
    visible = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
    return visible.tril(key.shape[2] - query.shape[2])[None, None]


def _tail(
    reading: BatchReading, asked: Asked, key: Tensor, value: Tensor, *, mask: Tensor | None, sinks: Tensor | None
) -> tuple[Attended, Attended]:
    """Attend to the live tail.

    Args:
        reading: How the batch reads.
        asked: The queries.
        key: The tail's keys.
        value: The tail's values.
        mask: Over the tail; None where it is plainly causal.
        sinks: Learned attention-sink logits, one a head.

    Returns:
        The tail alone, and the tail with the learned sinks, which are no keys.
    """
    query = asked.query
    alone = attend(
        query,
        key,
        value,
        scaling=asked.scaling,
        causal=mask is None and query.shape[2] > 1,
        mask=mask,
        softcap=asked.softcap,
        backend=reading.backend,
        used=reading.used,
    )
    return alone, alone if sinks is None else with_sinks(alone, sinks)


def _encoded_prompts(
    layer: SegmentedLayer, asked: Asked, key: Tensor, mask: Tensor | None, window: int | None
) -> Iterator[tuple[_Rows, Sequence[Segment], slice]]:
    """The rows of each encoded prompt, the segments that they read, and which rows of the batch they are."""
    reading = layer.reading
    # `generate` repeats each row for its beams or samples; an encoded prompt's rows then come in as many more.
    repeats = asked.query.shape[0] // reading.rows
    first = 0
    for number, encoded in enumerate(reading.encoded_prompts):
        part = slice(first, first + encoded.rows * repeats)
        first = part.stop
        rows = _Rows(
            layer,
            number,
            asked._replace(query=asked.query[part]),
            key[part],
            None if mask is None else mask[part],
            Window(window, encoded.start, key.shape[2]),
            _factors(reading, layer.index, part, repeats, asked.query.device),
            alike=reading.alike and layer.index == 0 and key.shape[2] == asked.query.shape[2],
        )
        yield rows, encoded.segments, part


@dataclass(frozen=True)
class _Rows:
    """The rows of one encoded prompt in one layer.

    Attributes:
        layer: The layer's cache.
        number: The encoded prompt's number in the batch.
        asked: The queries, and how the layer attends.
        keys: The tail's keys.
        mask: Boolean `(rows, 1, query, tail)` over the tail, or None where it is plainly causal.
        window: The layer's sliding window.
        factors: T and S by role, each a number or `(rows or 1, heads or 1, 1)`.
        alike: Whether the queries of all rows are equal.
    """

    layer: SegmentedLayer
    number: int
    asked: Asked
    keys: Tensor
    mask: Tensor | None
    window: Window
    factors: Mapping[Role, tuple[float | Tensor, float | Tensor]]
    alike: bool

    def merged(self, segments: Sequence[Segment], tail: Attended, alone: Attended) -> Tensor:
        """Attend to segments and merge them with the tail.

        Args:
            segments: The segments, in order.
            tail: What the tail gave, with learned sinks.
            alone: What it gave without them.

        Returns:
            `(rows, heads, query, head_dim)`.
        """
        groups, parts = [tail], []
        for segment in segments:
            if part := self.read(segment, groups):
                groups.append(part.weighed)
                parts.append(part)
        if (probe := self.layer.reading.probe) is None:
            return merged_output(groups)
        together = merge(groups)
        parts.append(Part("query", self.keys, 1.0, self.mask, alone, alone))
        probe.record((self.layer.index, self.number), self.asked, parts, together.lse)
        return together.out

    def read(self, segment: Segment, others: Sequence[Attended]) -> Part | None:
        """Attend to a segment; None where its window hides it.

        Args:
            segment: The segment.
            others: What else the rows read; of a context, everything else.
        """
        query, scaling, softcap = self.asked
        length = query.shape[2]
        if self.window.hides(segment, length):
            return None
        reading, index = self.layer.reading, self.layer.index
        keys, values = segment.keys[index], segment.values[index]
        temperature, scale = self.factors[segment.role]
        scaled = partial(scale_context, temperature=temperature, scale=scale, mode=reading.scale_mode)
        rows = None
        if self.alike:
            query, temperature, rows = _distinct(query, temperature)
        if isinstance(temperature, Tensor):
            # Divided in T's own precision: half precision would round T itself.
            query = (query / temperature.unsqueeze(-1)).to(query.dtype)
        else:
            # A number goes into the softmax scaling, where half-precision queries do not round it.
            scaling = scaling / temperature
        if segment.role == "context" and reading.selects(segment):
            other_lse = torch.stack([other.lse for other in others]).logsumexp(0)
            mask = self.window.mask(segment, length, query.device)
            ask = ContextQuery(query, scaling, mask, softcap, _tokens(self.mask), other_lse)
            attended = read_selected(ask, segment, self.layer, self.number, scaled)
        else:
            seen, mask = self._sight(segment, length, query.device)
            attended = attend(
                query,
                keys[:, :, seen],
                values[:, :, seen],
                scaling=scaling,
                mask=mask,
                softcap=softcap,
                backend=reading.backend,
                used=reading.used,
            )
            if rows is not None:
                attended = Attended(attended.out[rows], attended.lse[rows])
        tempered = segment.role == "context" or reading.tempers_prefix
        visible = self._visible(segment) if reading.probe is not None else None
        return Part(segment.role, keys, temperature, visible, attended, scaled(attended) if tempered else attended)

    def _sight(self, segment: Segment, queries: int, device: torch.device) -> Sight:
        """What the window lets the queries see, found in the first layer that has it."""
        sights, name, asked = self.layer.reading.sights, (id(segment), self.window.size), (self.window, queries, device)
        if name not in sights or sights[name][0] != asked:
            sights[name] = asked, self.window.sight(segment, queries, device)
        found: Sight = sights[name][1]
        return found

    def _visible(self, segment: Segment) -> Tensor | None:
        """Which of a segment's keys the queries have read, for a probe; None for all."""
        mask = self.window.mask(segment, self.asked.query.shape[2], self.asked.query.device)
        if segment.role == "context" and self.layer.reading.selects(segment):
            return visible_tokens(self.layer, self.number, segment, mask)
        return mask


def _distinct(query: Tensor, temperature: float | Tensor) -> tuple[Tensor, float | Tensor, Tensor]:
    """Of rows with equal queries, those that differ in T, and which of them each row is."""
    rows = query.shape[0]
    if not isinstance(temperature, Tensor):
        return query[:1], temperature, torch.zeros(rows, dtype=torch.long, device=query.device)
    each = temperature.expand(rows, -1, -1)
    distinct, indices = torch.unique(each, dim=0, return_inverse=True)
    return query[:1], distinct, indices


def _tokens(mask: Tensor | None) -> Tensor | None:
    """Which queries are tokens, `(rows, query)`: padding does not see itself. None where all are."""
    return None if mask is None else mask[:, 0, :, -mask.shape[2] :].diagonal(dim1=-2, dim2=-1)


def _factors(
    reading: BatchReading, layer: int, rows: slice, repeats: int, device: torch.device
) -> dict[Role, tuple[float | Tensor, float | Tensor]]:
    """T and S of some rows in one layer, for each role."""
    pairs: dict[Role, tuple[float | Tensor, float | Tensor]] = {
        "prefix": (reading.prefix_temperature, reading.prefix_scale),
        "context": (reading.temperature, reading.scale),
    }
    return {
        role: (_factor(t, layer, rows, repeats, device), _factor(s, layer, rows, repeats, device))
        for role, (t, s) in pairs.items()
    }


def _factor(factor: float | Tensor, layer: int, rows: slice, repeats: int, device: torch.device) -> float | Tensor:
    """T or S of some rows in one layer: a number, or `(rows or 1, heads or 1, 1)`."""
    if not isinstance(factor, Tensor):
        return factor
    full = factor.to(device).reshape((1,) * (3 - factor.dim()) + tuple(factor.shape))
    own = full[:, min(layer, full.shape[1] - 1), :, None]
    return own if own.shape[0] == 1 else own.repeat_interleave(repeats, dim=0)[rows]


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
    # A cache that the checkpoint asks `generate` for would be a second one beside the segments' own.
    generation, cache = model.generation_config, model.generation_config.cache_implementation
    survey = decoder.register_forward_pre_hook(choose_over_layers, with_kwargs=True)
    try:
        generation.cache_implementation = None
        decoder.set_attn_implementation(ATTENTION_NAME)
        if decoder.config._attn_implementation != ATTENTION_NAME:
            raise ApeError(
                f"{type(decoder).__name__} does not let its attention function be replaced (transformers' "
                "AttentionInterface), so it cannot read segments; only strategy=sequential can run this model."
            )
        yield
    finally:
        survey.remove()
        generation.cache_implementation = cache
        decoder.set_attn_implementation(previous)
