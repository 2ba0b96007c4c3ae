"""Reading the chosen chunks of a context.

Where all logits fit into little memory (a generated token, a short prompt), one product of queries and keys gives the
scores and then the weights of the winners. Else attention goes chunk by chunk, and the losers' log-sum-exps are set to
-inf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lm_eval_ape.attention.attend import attend, fold_rows, unfold_rows
from lm_eval_ape.attention.kernels import Call, block_logits
from lm_eval_ape.attention.merge import Attended, merge
from lm_eval_ape.attention.segments import Segment, SegmentedLayer
from lm_eval_ape.attention.selection import SUMMED, Choice, aggregate, chunk_scores, top_logits, winners

# Logits are kept all at once up to this many elements (16 MiB in float32).
AT_ONCE_ELEMENTS = 2**22


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
        number: The encoded prompt's number in the batch.
        scaled: Applies T and S to the context's term of the merge.

    Returns:
        Attention over the kept chunks, T and S not yet applied to its log-sum-exp.
    """
    reading, selection = layer.reading, layer.reading.selection
    assert selection is not None
    settled = selection.over == "LHT" or not selection.reselect
    choice = layer.chosen.get(number) if settled and layer.surveyed is None else None
    fits = ask.query.shape[:-1].numel() * len(segment) <= AT_ONCE_ELEMENTS
    if choice is None and fits and reading.backend in ("auto", "eager"):
        return _read_at_once(ask, segment, layer, number, scaled)
    wanted = list(range(len(segment.lengths))) if choice is None else choice.read
    parts: list[Attended] = []
    tops: list[Tensor] = []
    for run in _runs(segment.lengths, wanted, join=ask.mask is None):
        attended, top = _read_run(ask, segment, layer, run, scores=choice is None)
        parts += attended
        tops += top
    if choice is None:
        lse = torch.stack([part.lse for part in parts]).logsumexp(0)
        choice = _choose(ask, layer, number, tops=torch.stack(tops, dim=-2), lse=lse, scaled=scaled)
        if choice is None:
            return merge(parts)
    kept = [
        Attended(part.out, part.lse.masked_fill(~choice.kept[..., index], -torch.inf))
        for index, part in zip(wanted, parts, strict=True)
    ]
    return merge(kept)


def _read_at_once(
    ask: ContextQuery, segment: Segment, layer: SegmentedLayer, number: int, scaled: Callable[[Attended], Attended]
) -> Attended:
    """`read_selected` with all logits at once."""
    keys, values = segment.keys[layer.index], segment.values[layer.index]
    rows, heads, length, _ = ask.query.shape
    call = Call(fold_rows(ask.query, keys, rows), keys, values, ask.scaling, False, None, ask.softcap)
    logits = unfold_rows(block_logits(call, slice(None)), rows, heads, length)
    if ask.mask is not None:
        logits = logits.masked_fill(~ask.mask, -torch.inf)
    # A further column stands for the places where a chunk has no token.
    each = pad(logits, (0, 1), value=-torch.inf)[..., segment.chunk_tokens.to(logits.device)]
    tops = each.topk(min(SUMMED, each.shape[-1])).values
    lse = logits.logsumexp(-1)
    choice = _choose(ask, layer, number, tops=tops, lse=lse, scaled=scaled)
    if choice is not None:
        logits = logits.where(choice.kept[..., segment.chunk_of.to(logits.device)], -torch.inf)
        lse = logits.logsumexp(-1)
    weights = torch.exp(logits - lse.masked_fill(lse == -torch.inf, 0.0).unsqueeze(-1))
    layer.reading.used["eager"] += 1
    out = fold_rows(weights, keys, rows) @ values.to(weights.dtype)
    return Attended(unfold_rows(out, rows, heads, length), lse)


def _choose(
    ask: ContextQuery,
    layer: SegmentedLayer,
    number: int,
    *,
    tops: Tensor,
    lse: Tensor,
    scaled: Callable[[Attended], Attended],
) -> Choice | None:
    """Choose among the chunks and note it in the layer.

    Args:
        ask: The queries.
        layer: Whose turn it is.
        number: The encoded prompt's number in the batch.
        tops: Each chunk's largest logits, `(rows, heads, query, chunks, up to SUMMED)`.
        lse: Log-sum-exp of all context logits, `(rows, heads, query)`.
        scaled: Applies T and S to the context's term of the merge.

    Returns:
        The choice; None while layers are only surveyed, which notes the scores.
    """
    selection = layer.reading.selection
    assert selection is not None
    weight = scaled(Attended(lse.new_zeros(1), lse)).lse
    share = torch.exp(weight - torch.logaddexp(weight, ask.other_lse)).nan_to_num()
    scores = chunk_scores(tops, lse, share, ask.tokens)
    if layer.surveyed is not None:
        layer.surveyed[number] = scores
        return None
    layer.chosen[number] = Choice(winners(aggregate(scores, selection.over), selection.top_chunks))
    return layer.chosen[number]


def visible_tokens(layer: SegmentedLayer, number: int, segment: Segment, mask: Tensor | None) -> Tensor | None:
    """Which context tokens the queries of the last pass could read: those of the chosen chunks.

    Args:
        layer: The layer that has read.
        number: The encoded prompt's number in the batch.
        segment: The context.
        mask: Boolean `(1, 1, query, tokens)` of a sliding window, or None.

    Returns:
        Boolean, broadcastable to `(rows, heads, query, tokens)`; None for all, while layers are only surveyed.
    """
    if layer.surveyed is not None:
        return mask
    kept = layer.chosen[number].kept
    tokens = kept[..., segment.chunk_of.to(kept.device)]
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
