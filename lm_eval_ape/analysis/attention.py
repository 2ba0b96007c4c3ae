"""A model's attention while it reads one prompt's query."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lm_eval_ape.attention.row_statistics import ROLES, RowProbe
from lm_eval_ape.attention.segments import Segment
from lm_eval_ape.engine.decoding import check_finite
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings

# Where the ranges of offsets end that key norms are averaged over: the first tokens one by one, then in octaves.
OFFSETS = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


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
    """

    entropy: list[list[float]]
    logit: list[list[float]]
    mass: dict[str, list[list[float]]]
    key_norms: dict[str, list[list[float | None]]]
    chunks: int
    tokens: int


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
    probe, engine = RowProbe(), lm.engine.under(settings)
    encoded = engine.encode(prompt)
    with engine.tail(encoded, probe=probe) as tail:
        logits = tail.read(prompt.query, keep=1)
    check_finite(logits, [settings.strategy], 1, sample)

    def mean(name: str) -> list[list[float]]:
        return [[float(x) for x in heads] for heads in probe.stacked(0, name)[:, 0].mean(-1).tolist()]

    return Attention(
        mean("entropy"),
        mean("logit"),
        {role: mean(role) for role in ROLES},
        {segment.role: _key_norms(segment) for segment in encoded.segments},
        len(prompt.chunks),
        len(prompt.query),
    )


def _key_norms(segment: Segment) -> list[list[float | None]]:
    """Mean key norms by offset, `(layers, len(OFFSETS) + 1)`.

    Rotary positions turn keys and leave their norms as they are.
    """
    offsets = torch.cat([torch.arange(length) for length in segment.lengths])
    ranges = torch.bucketize(offsets, torch.tensor(OFFSETS), right=True)
    counts = torch.bincount(ranges, minlength=len(OFFSETS) + 1).tolist()
    rows = []
    for keys in segment.keys:
        norms = keys[0].to(torch.promote_types(keys.dtype, torch.float32)).norm(dim=-1).mean(0).double().cpu()
        sums = torch.bincount(ranges, weights=norms, minlength=len(OFFSETS) + 1).tolist()
        rows.append([total / count if count else None for total, count in zip(sums, counts, strict=True)])
    return rows
