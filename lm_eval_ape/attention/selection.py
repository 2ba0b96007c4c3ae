"""Selective attention: a query token reads only the chunks that attention itself likes best.

Algorithm 1 of Zhang et al., "Attention entropy is a key factor" (2024): a chunk's score is the sum of its five largest
attention probabilities; scores are taken together over query tokens, heads or layers, again by the sum of the five
largest; the best chunks stay, and the row is renormalised over what is left. A forward pass chooses for its own tokens:
the query's first, then those that are generated one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

SelectOver = Literal["none", "T", "HT", "LHT"]
SELECT_OVER: tuple[SelectOver, ...] = get_args(SelectOver)
"""What shares one choice: nothing (each layer, head and token chooses), tokens, heads and tokens, or layers too."""

# How many of the largest probabilities are summed, of a chunk and of what shares a choice (the paper's top-5).
SUMMED = 5
# Logits of one block of queries stay below this many elements (256 MiB in float32).
BLOCK_ELEMENTS = 2**26


@dataclass(frozen=True)
class Selection:
    """How chunks are chosen.

    Attributes:
        top_chunks: How many stay.
        over: One of `SELECT_OVER`.
        reselect: Whether every pass chooses again; otherwise the first one, the query's, decides for all.
    """

    top_chunks: int
    over: str
    reselect: bool = True

    @property
    def whole_pass(self) -> bool:
        """Whether tokens of one pass share a choice, so that a continuation must be read token by token."""
        return self.over != "none" or not self.reselect


@dataclass(frozen=True, eq=False)
class Choice:
    """Chunks that were chosen.

    Attributes:
        kept: Boolean `(rows, heads or 1, query or 1, chunks)`.
    """

    kept: Tensor

    @cached_property
    def read(self) -> list[int]:
        """Numbers of the chunks that anything keeps; on a GPU the first call waits for it."""
        numbers: list[int] = self.kept.flatten(0, -2).any(0).nonzero()[:, 0].tolist()
        return numbers


def top_logits(
    query: Tensor, key: Tensor, *, scaling: float, mask: Tensor | None = None, softcap: float | None = None
) -> Tensor:
    """Each query's largest logits over one group of keys.

    Args:
        query: `(batch, heads, query, head_dim)`.
        key: `(batch / rows, kv_heads, keys, head_dim)`; query row i reads key row `i // rows`.
        scaling: Factor of the logits.
        mask: Boolean, True where a query may attend, broadcastable to `(batch, heads, query, keys)`.
        softcap: The model's cap on logits.

    Returns:
        `(batch, heads, query, SUMMED)`, descending, -inf where there are fewer keys, in float32 (float64 for float64
        queries).
    """
    groups, kv_heads, keys, width = key.shape
    batch, heads, length, _ = query.shape
    dtype = torch.promote_types(query.dtype, torch.float32)
    columns = key.to(dtype).transpose(-1, -2).reshape(groups, 1, kv_heads, 1, width, keys)
    rows = query.to(dtype).reshape(groups, batch // groups, kv_heads, heads // kv_heads, length, width)
    visible = None if mask is None else mask.expand(batch, heads, length, keys).reshape(*rows.shape[:-1], keys)
    found = []
    block = max(1, BLOCK_ELEMENTS // (batch * heads * keys))
    for start in range(0, length, block):
        part = slice(start, start + block)
        logits = (rows[..., part, :] @ columns) * scaling
        if softcap:
            logits = softcap * torch.tanh(logits / softcap)
        if visible is not None:
            logits = logits.masked_fill(~visible[..., part, :], -torch.inf)
        found.append(logits.topk(min(SUMMED, keys), dim=-1).values)
    largest = torch.cat(found, dim=-2).reshape(batch, heads, length, -1)
    return pad(largest, (0, SUMMED - largest.shape[-1]), value=-torch.inf)


def chunk_scores(tops: Tensor, lse: Tensor, share: Tensor, tokens: Tensor | None) -> Tensor:
    """Sum of each chunk's largest attention probabilities.

    Args:
        tops: Each chunk's largest logits, `(rows, heads, query, chunks, up to SUMMED)`.
        lse: Log-sum-exp of all context logits, `(rows, heads, query)`.
        share: The context's share of the whole row, likewise.
        tokens: Boolean `(rows, query)`, False for padding, which scores 0; None for no padding.

    Returns:
        `(rows, heads, query, chunks)`, at most 1.
    """
    lse = lse.masked_fill(lse == -torch.inf, 0.0)[..., None, None]
    scores = torch.exp(tops - lse).sum(-1) * share.unsqueeze(-1)
    return scores if tokens is None else scores * tokens[:, None, :, None]


def aggregate(scores: Tensor, over: str) -> Tensor:
    """Take scores together over what shares a choice.

    Args:
        scores: `(rows, heads, query, chunks)`, or `(rows, layers, heads, query, chunks)` for `LHT`.
        over: One of `SELECT_OVER`.

    Returns:
        `(rows, heads or 1, query or 1, chunks)`.
    """
    if over == "none":
        return scores
    if over == "T":
        return _top_sum(scores).unsqueeze(2)
    return _top_sum(scores.flatten(1, -2))[:, None, None]


def _top_sum(scores: Tensor) -> Tensor:
    """Sum of the largest scores along the last axis but one."""
    return scores.topk(min(SUMMED, scores.shape[-2]), dim=-2).values.sum(-2)


def winners(scores: Tensor, count: int) -> Tensor:
    """The best chunks, of equal ones the earlier.

    Args:
        scores: `(..., chunks)`.
        count: How many stay.

    Returns:
        Boolean `(..., chunks)`, `count` of them True.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order[..., :count], True)
