"""How much a query attends to each token of a context: what the query's choice of tokens to recompute rests on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from lm_eval_ape.attention.row_statistics import BLOCK_ELEMENTS, Asked, Part


class KeyScores:
    """A probe that adds up, over layers, the squared norm of the query's attention to each context token.

    A layer's score of token j is the sum over query tokens of the squared attention to j, averaged over heads
    (InfoFlow KV, Teng et al. 2026, takes the norm of the last two layers; ProphetKV, 2026, averages layers). The rows
    are those of ordinary attention, T = S = 1.

    Args:
        layers: Numbers of the layers that are asked.
    """

    def __init__(self, layers: Collection[int]) -> None:
        self.layers = layers
        self._total: Tensor | None = None

    def record(self, place: tuple[int, int], asked: Asked, parts: Sequence[Part], lse: Tensor) -> None:
        """Add one layer's scores (see `row_statistics.Probe`); a window that hides all of the context adds none."""
        for part in parts:
            if part.role == "context" and place[0] in self.layers:
                scores = _squared_attention(asked, part, lse)
                self._total = scores if self._total is None else self._total + scores.to(self._total.device)

    def mean(self, tokens: int) -> Tensor:
        """Mean over the layers asked, `(tokens,)`, on the CPU.

        Args:
            tokens: How many tokens the context has.
        """
        return torch.zeros(tokens) if self._total is None else self._total.cpu() / len(self.layers)


def _squared_attention(asked: Asked, part: Part, lse: Tensor) -> Tensor:
    """Sum over queries of the squared attention to each key, averaged over heads, `(keys,)`; rows are added up."""
    rows, heads, length, _ = asked.query.shape
    kv_heads, keys = part.key.shape[1:3]
    query = asked.query.to(lse.dtype).unflatten(1, (kv_heads, heads // kv_heads))
    block = max(1, BLOCK_ELEMENTS // (rows * heads * length))
    found = []
    for start in range(0, keys, block):
        columns = part.key[:, :, start : start + block].to(lse.dtype).unsqueeze(2).transpose(-1, -2)
        logits = (query @ columns).flatten(1, 2) * asked.scaling
        if asked.softcap:
            logits = asked.softcap * torch.tanh(logits / asked.softcap)
        weights = torch.exp(logits - lse.unsqueeze(-1))
        if part.visible is not None:
            seen = part.visible.expand(rows, heads, length, keys)[..., start : start + block]
            weights = weights.masked_fill(~seen, 0.0)
        found.append(weights.mean(1).square().sum((0, 1)))
    return torch.cat(found)
