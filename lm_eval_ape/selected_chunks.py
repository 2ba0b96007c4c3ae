"""Reading the chosen chunks of a context: attention chunk by chunk, the losers' log-sum-exps set to -inf.

Where layers choose together (`select_over=LHT`), every forward pass is made twice: once reading all chunks, for the
scores of all layers, then with the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lm_eval_ape.attend import attend
from lm_eval_ape.merge import Attended, merge
from lm_eval_ape.segments import Segment, SegmentedCache, SegmentedLayer
from lm_eval_ape.selection import aggregate, best_chunks, chunk_scores, top_logits


class Ask(NamedTuple):
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
    ask: Ask,
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
        chosen = layer.chosen[number] = best_chunks(aggregate(scores, selection.over), selection.top_chunks)
    kept = [
        Attended(part.out, part.lse.masked_fill(~chosen[..., index], -torch.inf))
        for index, part in zip(wanted, parts, strict=True)
    ]
    return merge(kept)


def _runs(lengths: tuple[int, ...], wanted: Any, join: bool) -> Iterator[_Run]:
    """The wanted chunks; neighbours of one length together, where they can be read in one batch."""
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    ordered = enumerate(wanted)
    for _, group in groupby(ordered, key=lambda pair: (lengths[pair[1]], pair[1] - pair[0]) if join else pair[1]):
        chunks = [chunk for _, chunk in group]
        yield _Run(starts[chunks[0]], lengths[chunks[0]], len(chunks))


def _read_run(
    ask: Ask, segment: Segment, layer: SegmentedLayer, run: _Run, scores: bool
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


def choose_over_layers(decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Choose chunks with the scores of all layers before a forward pass (a pre-hook of the decoder).

    Does nothing unless the pass reads segments with `select_over=LHT`, or where an earlier pass has chosen for all.
    """
    cache = next((value for value in (*args, *kwargs.values()) if isinstance(value, SegmentedCache)), None)
    selection = None if cache is None else cache.reading.selection
    if cache is None or selection is None or selection.over != "LHT":
        return
    layers = [layer for layer in cache.layers if isinstance(layer, SegmentedLayer)]
    if layers[0].chosen and not selection.reselect:
        return
    before = [(layer.keys, layer.values, layer.is_initialized) for layer in layers]
    for layer in layers:
        layer.surveyed = {}
    try:
        # Not a call of the module, which would come back here.
        decoder.forward(*args, **kwargs)
        scores = [layer.surveyed or {} for layer in layers]
    finally:
        for layer, (keys, values, initialized) in zip(layers, before, strict=True):
            layer.keys, layer.values, layer.is_initialized = keys, values, initialized
            layer.surveyed = None
    for number in {number for own in scores for number in own}:
        # A layer whose window hides the context has no say.
        heard = [own[number] for own in scores if number in own]
        stacked = torch.stack([score.to(heard[0].device) for score in heard], dim=1)
        chosen = best_chunks(aggregate(stacked, selection.over), selection.top_chunks)
        for layer, own in zip(layers, scores, strict=True):
            if number in own:
                layer.chosen[number] = chosen.to(own[number].device)
