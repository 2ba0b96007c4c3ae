"""Reading the chosen chunks of a context: attention chunk by chunk, the losers' log-sum-exps set to -inf."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lm_eval_ape.attend import attend
from lm_eval_ape.merge import Attended, merge
from lm_eval_ape.segments import Segment, SegmentedLayer
from lm_eval_ape.selection import aggregate, chunk_scores, top_logits, winners


class ContextQuery(NamedTuple):
    """What some rows ask of the context.

    Attributes:
        query: `(rows, heads, query, head_dim)`, divided by T where that is a tensor.
        scaling: Factor of the logits, T in it where that is a number.
        mask: Boolean `(1, 1, query, tokens)` of a sliding window, or None.
        softcap: The model's cap on logits.
        tokens: Boolean `(rows, query)`, False for padding; None for no padding.
        other_lse: Log-sum-exp of the same queries over prefix and tail, `(rows, heads, query)`.
    """

    query: Tensor
    scaling: float
    mask: Tensor | None
    softcap: float | None
    tokens: Tensor | None
    other_lse: Tensor


class _Run(NamedTuple):
    """Neighbouring chunks of one length: the first token, each one's tokens, and how many chunks."""

    start: int
    length: int
    chunks: int


def read_selected(
    ask: ContextQuery,
    segment: Segment,
    layer: SegmentedLayer,
    number: int,
    scaled: Callable[[Attended], Attended],
) -> Attended:
    """Attend to the chunks that win.

    Args:
        ask: The queries.
        segment: The context, with more chunks than are kept.
        layer: Whose turn it is; the choice is noted there.
        number: The reader's number.
        scaled: Applies T and S to the context's term of the merge.

    Returns:
        Attention over the kept chunks, T and S not yet applied to its log-sum-exp.
    """
    selection = layer.reading.selection
    assert selection is not None
    settled = selection.over == "LHT" or not selection.reselect
    chosen = layer.chosen.get(number) if settled and layer.surveyed is None else None
    wanted = range(len(segment.lengths)) if chosen is None else chosen.flatten(0, -2).any(0).nonzero()[:, 0].tolist()
    parts: list[Attended] = []
    tops: list[Tensor] = []
    for run in _runs(segment.lengths, wanted, join=ask.mask is None):
        attended, top = _read_run(ask, segment, layer, run, scores=chosen is None)
        parts += attended
        tops += top
    if chosen is None:
        whole = Attended(parts[0].out, torch.stack([part.lse for part in parts]).logsumexp(0))
        weight = scaled(whole).lse
        share = torch.exp(weight - torch.logaddexp(weight, ask.other_lse)).nan_to_num()
        scores = chunk_scores(tops, whole.lse, share, ask.tokens)
        if layer.surveyed is not None:
            layer.surveyed[number] = scores
            return merge(parts)
        chosen = layer.chosen[number] = winners(aggregate(scores, selection.over), selection.top_chunks)
    kept = [
        Attended(part.out, part.lse.masked_fill(~chosen[..., index], -torch.inf))
        for index, part in zip(wanted, parts, strict=True)
    ]
    return merge(kept)


def visible_tokens(layer: SegmentedLayer, number: int, segment: Segment, mask: Tensor | None) -> Tensor | None:
    """Which context tokens the queries of the last pass could read: those of the chosen chunks.

    Args:
        layer: The layer that has read.
        number: The reader's number.
        segment: The context.
        mask: Boolean `(1, 1, query, tokens)` of a sliding window, or None.

    Returns:
        Boolean, broadcastable to `(rows, heads, query, tokens)`; None for all, while layers are only surveyed.
    """
    if layer.surveyed is not None:
        return mask
    chosen = layer.chosen[number]
    tokens = chosen.repeat_interleave(torch.tensor(segment.lengths, device=chosen.device), dim=-1)
    return tokens if mask is None else tokens & mask


def _runs(lengths: tuple[int, ...], wanted: Any, join: bool) -> Iterator[_Run]:
    """The wanted chunks; neighbours of one length together, where they can be read in one batch."""
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    ordered = enumerate(wanted)
    for _, group in groupby(ordered, key=lambda pair: (lengths[pair[1]], pair[1] - pair[0]) if join else pair[1]):
        chunks = [chunk for _, chunk in group]
        yield _Run(starts[chunks[0]], lengths[chunks[0]], len(chunks))


def _read_run(
    ask: ContextQuery, segment: Segment, layer: SegmentedLayer, run: _Run, scores: bool
) -> tuple[list[Attended], list[Tensor]]:
    """Attention over each chunk of a run, and each one's largest logits if they are to be scored."""
    reading = layer.reading
    keys, values = (_chunks(side[layer.index], run) for side in (segment.keys, segment.values))
    mask = None if ask.mask is None else ask.mask[..., run.start : run.start + run.length]
    rows = ask.query.shape[0]
    query = ask.query.expand(run.chunks, *ask.query.shape).flatten(0, 1)
    attended = attend(
        query,
        keys,
        values,
        scaling=ask.scaling,
        mask=mask,
        softcap=ask.softcap,
        backend=reading.backend,
        used=reading.used,
    )
    parts = [Attended(out, lse) for out, lse in zip(attended.out.split(rows), attended.lse.split(rows), strict=True)]
    if not scores:
        return parts, []
    tops = top_logits(query, keys, scaling=ask.scaling, mask=mask, softcap=ask.softcap)
    return parts, list(tops.split(rows))


def _chunks(row: Tensor, run: _Run) -> Tensor:
    """Chunks of one length out of a row: `(1, kv_heads, tokens, x)` to `(chunks, kv_heads, length, x)`."""
    part = row[0, :, run.start : run.start + run.chunks * run.length]
    return part.unflatten(1, (run.chunks, run.length)).transpose(0, 1)
