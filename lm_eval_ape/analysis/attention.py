"""A model's attention while it reads one prompt's query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lm_eval_ape.attention.row_statistics import ROLES, RowProbe
from lm_eval_ape.attention.segments import EncodedPrompt, Segment
from lm_eval_ape.engine.decoding import check_finite
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings

# Where the ranges of offsets end that key norms are averaged over: the first tokens one by one, then in octaves.
OFFSETS = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Recomputed(NamedTuple):
    """Where a prompt's recomputed tokens stand, and what they change.

    Attributes:
        by_chunk: Share of each chunk's tokens.
        by_offset: Share of the tokens at each range of offsets from their chunk's start, `len(OFFSETS) + 1`, of the
            chunks after the first; None where no token is.
        entropy_without: Mean entropy, in nats, of the same rows over the chunks as they were encoded.
    """

    by_chunk: list[float]
    by_offset: list[float | None]
    entropy_without: float


class Attention(NamedTuple):
    """Statistics of one prompt under one setting, by layer and query head, means over the query's tokens.

    Attributes:
        entropy: Of the attention rows, in nats, `(layers, heads)`.
        logit: Mean absolute attention logit, T not applied, likewise.
        mass: Share of the rows on prefix, context and query, by role likewise.
        key_norms: Mean L2 norm of keys over key heads by their offset from the start of the prefix, or from that of
            their chunk, `(layers, len(OFFSETS) + 1)`, by role; None where no key is.
        chunks: How many chunks there were.
        tokens: How many query tokens.
        recomputed: What was recomputed; None where nothing is.
    """

    entropy: list[list[float]]
    logit: list[list[float]]
    mass: dict[str, list[list[float]]]
    key_norms: dict[str, list[list[float | None]]]
    chunks: int
    tokens: int
    recomputed: Recomputed | None = None


@torch.no_grad()
def look(lm: ServedModel, prompt: Prompt, settings: Settings, sample: str = "a prompt") -> Attention:
    """Read a prompt's query once and measure its attention.

    Args:
        lm: The model.
        prompt: The prompt, with at least one chunk.
        settings: How it is encoded and read.
        sample: Where the prompt comes from, for errors.

    Raises:
        NotFiniteError: The logits are not finite.
    """
    engine = lm.engine.under(settings)
    (chunks,) = engine.encode_chunks([prompt])
    encoded = engine.recompute(prompt, chunks)
    probe = _probed(engine, encoded, prompt, sample)
    recomputed = None
    if settings.recompute:
        without = _probed(engine, chunks, prompt, sample)
        recomputed = _recomputed(encoded, float(without.stacked(0, "entropy").mean()))

    def mean(name: str) -> list[list[float]]:
        return [[float(x) for x in heads] for heads in probe.stacked(0, name)[:, 0].mean(-1).tolist()]

    return Attention(
        mean("entropy"),
        mean("logit"),
        {role: mean(role) for role in ROLES},
        {segment.role: _key_norms(segment) for segment in encoded.segments},
        len(prompt.chunks),
        len(prompt.query),
        recomputed,
    )


def _probed(engine: Engine, encoded: EncodedPrompt, prompt: Prompt, sample: str) -> RowProbe:
    """Statistics of the query's rows."""
    probe = RowProbe()
    with engine.tail(encoded, probe=probe) as tail:
        logits = tail.read(prompt.query, keep=1)
    check_finite(logits, [engine.settings.strategy], 1, sample)
    return probe


def _recomputed(encoded: EncodedPrompt, entropy_without: float) -> Recomputed:
    """Where the recomputed tokens of a prompt stand."""
    first, *later = encoded.context.lengths if encoded.context else (0,)
    counts = zip(encoded.recomputed_in_chunks, (first, *later), strict=True)
    chosen = torch.zeros(first + sum(later), dtype=torch.float64)
    chosen[list(encoded.recomputed)] = 1.0
    by_offset: list[float | None] = [None] * (len(OFFSETS) + 1)
    if later:
        by_offset = _by_offset(chosen[first:], _offset_ranges(later))
    return Recomputed([count / length for count, length in counts], by_offset, entropy_without)


def _key_norms(segment: Segment) -> list[list[float | None]]:
    """Mean key norms by offset, `(layers, len(OFFSETS) + 1)`.

    Rotary positions turn keys and leave their norms as they are.
    """
    ranges = _offset_ranges(segment.lengths)
    rows = []
    for keys in segment.keys:
        norms = keys[0].to(torch.promote_types(keys.dtype, torch.float32)).norm(dim=-1).mean(0).double().cpu()
        rows.append(_by_offset(norms, ranges))
    return rows


def _offset_ranges(lengths: Sequence[int]) -> Tensor:
    """Of each token of chunks the number of the range of its offset, `(tokens,)`."""
    offsets = torch.cat([torch.arange(length) for length in lengths])
    return torch.bucketize(offsets, torch.tensor(OFFSETS), right=True)


def _by_offset(values: Tensor, ranges: Tensor) -> list[float | None]:
    """Mean over the tokens of each range, `len(OFFSETS) + 1`; None where no token is."""
    counts = torch.bincount(ranges, minlength=len(OFFSETS) + 1).tolist()
    sums = torch.bincount(ranges, weights=values, minlength=len(OFFSETS) + 1).tolist()
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]
