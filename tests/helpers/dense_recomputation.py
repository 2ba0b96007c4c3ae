"""Recomputation by its definition, one row and one matrix: frozen tokens keep what their chunk's own pass left.

It shares no code with the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from helpers import dense


@dataclass
class InText(dense.Layout):
    """Every token at its place in the text, with everything before it in view."""

    def sees(self) -> Tensor:
        return torch.ones(len(self.ids), len(self.ids), dtype=torch.bool).tril()


class FrozenAttention(dense.DenseAttention):
    """Attention in which frozen tokens have the keys and values that their chunk's pass left."""

    frozen: dict[int, tuple[Tensor, Tensor, Tensor]]

    def __call__(self, module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        where, keys, values = self.frozen[module.layer_idx]
        repeats = keys.shape[1] // key.shape[1]
        key = torch.where(where[:, None], keys[:, ::repeats], key.double())
        value = torch.where(where[:, None], values[:, ::repeats], value.double())
        return super().__call__(module, query, key, value, *args, **kwargs)


def logits(model: PreTrainedModel, chunked: dense.Layout, recomputed: list[int], **options: Any) -> Tensor:
    """Logits of the query tokens, (1, query, vocabulary) (see `all_logits`)."""
    return all_logits(model, chunked, recomputed, **options)[:, chunked.pieces == dense.QUERY]


def all_logits(
    model: PreTrainedModel,
    chunked: dense.Layout,
    recomputed: list[int],
    *,
    temperature: Any = 1.0,
    scale: Any = 1.0,
    whole_layers: int = 0,
) -> Tensor:
    """Logits of all tokens, (1, tokens, vocabulary), of which those of frozen tokens mean nothing.

    `recomputed` are numbers of context tokens; in the first `whole_layers` layers all of them are new.
    """
    frozen = dense.moved_context(model, chunked)
    kept = chunked.pieces > 0
    kept[int((chunked.pieces == 0).nonzero()[0]) + torch.tensor(recomputed, dtype=torch.long)] = False
    attention = FrozenAttention(_in_text(chunked), temperature, scale, "lse")
    attention.frozen = {
        layer: (kept & torch.tensor(layer >= whole_layers), keys, values) for layer, (keys, values) in frozen.items()
    }
    return dense._forward(model, attention, 1)


@torch.no_grad()
def query_scores(model: PreTrainedModel, chunked: dense.Layout, layers: list[int]) -> Tensor:
    """For each context token the squared norm of the query's mean attention to it, averaged over layers."""
    rows = dense.dense_rows(model, chunked, temperature=1.0, scale=1.0, selecting=None)
    asks, context = chunked.pieces == dense.QUERY, chunked.pieces >= 0
    heads = torch.stack([rows[layer][0][0].mean(0)[asks][:, context] for layer in layers])
    return (heads**2).sum(1).mean(0)


@torch.no_grad()
def deviation_scores(model: PreTrainedModel, chunked: dense.Layout) -> Tensor:
    """For each context token the mean squared difference of layer 1's values from the ordinary model's."""
    ordinary = dense.DenseAttention(dense.sequential_layout(chunked.ids, 1), 1.0, 1.0, "lse")
    dense._forward(model, ordinary, 1)
    context = chunked.pieces >= 0
    new, frozen = ordinary.seen[1][1], dense.moved_context(model, chunked)[1][1]
    return ((new - frozen) ** 2).mean((0, 1, 3))[context]


def _in_text(chunked: dense.Layout) -> InText:
    return InText(chunked.ids, chunked.pieces, torch.arange(len(chunked.ids), dtype=torch.float64))
