"""A dense reference: one row, one attention matrix, the formulas written out. It shares no code with the package."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_utils import AttentionInterface

PREFIX, QUERY = -1, -2


@dataclass
class Layout:
    """A prompt laid out in one row: for each token its piece (chunk number, PREFIX or QUERY) and its position."""

    ids: list[int]
    pieces: Tensor
    positions: Tensor
    shared_prefix: bool = True

    def sees(self) -> Tensor:
        """Boolean (tokens, tokens): who may attend to whom, windows aside."""
        row, column = self.pieces[:, None], self.pieces[None, :]
        allowed = row == column
        allowed |= row == QUERY
        allowed |= (column == PREFIX) & ((row >= 0) if self.shared_prefix else (row == 0))
        return allowed & torch.ones_like(allowed).tril()


def lay_out(
    prefix: list[int], chunks: list[list[int]], query: list[int], positions: str, shared_prefix: bool
) -> Layout:
    """Positions by the definitions: shared, stretched or serial."""
    p, longest = len(prefix), max(map(len, chunks))
    places: list[float] = list(range(p))
    pieces = [PREFIX] * p
    done = 0
    for number, chunk in enumerate(chunks):
        for index in range(len(chunk)):
            step = {"shared": index, "serial": done + index}.get(positions)
            if step is None:
                step = index * (longest - 1) / (len(chunk) - 1) if len(chunk) > 1 else 0
            places.append(p + step)
            pieces.append(number)
        done += len(chunk)
    start = math.floor(max(places)) + 1
    places += range(start, start + len(query))
    pieces += [QUERY] * len(query)
    ids = prefix + [token for chunk in chunks for token in chunk] + query
    return Layout(ids, torch.tensor(pieces), torch.tensor(places, dtype=torch.float64), shared_prefix)


class DenseAttention:
    """transformers' attention signature; T and S are numbers or (rows, layers, heads)."""

    def __init__(self, layout: Layout, temperature: Any, scale: Any, mode: str, prefix: Any = None) -> None:
        self.layout, self.temperature, self.scale, self.mode = layout, temperature, scale, mode
        self.prefix = prefix

    def __call__(  # noqa: PLR0917 (transformers passes these by position)
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        scaling: float | None = None,
        softcap: float | None = None,
        sliding_window: int | None = None,
        s_aux: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        rows, heads, _, dim = query.shape
        key = key.repeat_interleave(heads // key.shape[1], 1).double()
        value = value.repeat_interleave(heads // value.shape[1], 1).double()
        query = query.double()
        scaling = dim**-0.5 if scaling is None else scaling
        factor = [torch.as_tensor(x, dtype=torch.float64) for x in (self.temperature, self.scale)]
        t, s = (x[:, module.layer_idx, :, None, None] if x.dim() == 3 else x for x in factor)
        places = self.layout.positions
        allowed = self.layout.sees()
        if sliding_window:
            allowed = allowed & (places[:, None] - places[None, :] < sliding_window)
        context = (self.layout.pieces[None, :] >= 0) & (self.layout.pieces[:, None] == QUERY) & allowed
        other = allowed & ~context
        if self.prefix is not None:
            return self._three_groups(module, query @ key.transpose(-1, -2) * scaling, value, allowed, (t, s))

        def cap(x: Tensor) -> Tensor:
            return softcap * torch.tanh(x / softcap) if softcap else x

        dots = query @ key.transpose(-1, -2)
        logits_ctx = cap(dots * (scaling / t)).masked_fill(~context, -math.inf)
        logits_oth = cap(dots * scaling).masked_fill(~other, -math.inf)
        if s_aux is not None:
            sink = s_aux.double().view(1, -1, 1, 1).expand(rows, heads, query.shape[2], 1)
            logits_oth = torch.cat([logits_oth, sink], -1)
            value_oth = torch.cat([value, torch.zeros_like(value[:, :, :1])], 2)
        else:
            value_oth = value
        l_ctx, l_oth = logits_ctx.logsumexp(-1, keepdim=True), logits_oth.logsumexp(-1, keepdim=True)
        o_ctx = torch.nan_to_num(torch.exp(logits_ctx - l_ctx)) @ value
        o_oth = torch.exp(logits_oth - l_oth) @ value_oth
        if self.mode == "lse":
            weight = s * t * l_ctx
        elif self.mode == "additive":
            weight = t * l_ctx + torch.log(s)
        else:
            weight, o_ctx = l_ctx, o_ctx * s
        weight = torch.where(torch.isinf(l_ctx), l_ctx, weight)
        shares = torch.softmax(torch.cat([weight, l_oth], -1), -1)
        out = shares[..., :1] * o_ctx + shares[..., 1:] * o_oth
        return out.to(module.parameters().__next__().dtype).transpose(1, 2), None

    def _three_groups(
        self, module: Any, dots: Tensor, value: Tensor, allowed: Tensor, pair: Any
    ) -> tuple[Tensor, None]:
        """Context and prefix, each with a T and S of its own, and the query's own keys: one row of the `lse` merge."""
        asks = self.layout.pieces[:, None] == QUERY
        pieces = self.layout.pieces[None, :]
        outs, weights = [], []
        for keys, given in ((pieces >= 0, pair), (pieces == PREFIX, self.prefix), (pieces == QUERY, (1.0, 1.0))):
            # Tokens before the query read as ever: all keys in one group.
            t, s = (torch.where(asks, torch.as_tensor(x, dtype=torch.float64), 1.0) for x in given)
            logits = (dots / t).masked_fill(~(allowed & keys), -math.inf)
            lse = logits.logsumexp(-1, keepdim=True)
            outs.append(torch.nan_to_num(torch.exp(logits - lse)) @ value)
            weights.append(torch.where(torch.isinf(lse), lse, s * t * lse))
        shares = torch.softmax(torch.cat(weights, -1), -1)
        out = sum(shares[..., number : number + 1] * one for number, one in enumerate(outs))
        return out.to(module.parameters().__next__().dtype).transpose(1, 2), None


@contextmanager
def _attention(model: PreTrainedModel, function: DenseAttention) -> Iterator[None]:
    AttentionInterface.register("dense_reference", function)
    previous = model.config._attn_implementation
    model.set_attn_implementation("dense_reference")
    try:
        yield
    finally:
        model.set_attn_implementation(previous)


@torch.no_grad()
def dense_logits(
    model: PreTrainedModel,
    layout: Layout,
    *,
    temperature: Any = 1.0,
    scale: Any = 1.0,
    mode: str = "lse",
    prefix: tuple[float, float] | None = None,
    rows: int = 1,
) -> Tensor:
    """Logits of the query tokens, (rows, query, vocabulary)."""
    with _attention(model, DenseAttention(layout, temperature, scale, mode, prefix)):
        ids = torch.tensor([layout.ids]).expand(rows, -1)
        whole = bool((layout.positions == layout.positions.round()).all())
        places = layout.positions.long() if whole else layout.positions
        logits = model(ids, position_ids=places[None].expand(rows, -1), use_cache=False).logits
    return logits[:, layout.pieces == QUERY]


def sequential_layout(ids: list[int], query: int) -> Layout:
    """The ordinary row; its last `query` tokens are the query."""
    pieces = torch.full((len(ids),), PREFIX)
    pieces[len(ids) - query :] = QUERY
    return Layout(ids, pieces, torch.arange(len(ids), dtype=torch.float64))
