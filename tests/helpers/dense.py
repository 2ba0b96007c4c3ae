"""A dense reference: one row, one attention matrix, the formulas written out. It shares no code with the package."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    # Positions of the keys that queries read, where these are not the tokens' own.
    read_positions: Tensor | None = None
    # Whether chunks are read at other positions than those at which they see their prefix and themselves.
    moved: bool = False

    def distances(self) -> Tensor:
        """(tokens, tokens): how far behind a row's position a column's is."""
        own = self.positions[:, None] - self.positions
        if self.read_positions is None:
            return own
        return torch.where(self.pieces[:, None] == QUERY, self.positions[:, None] - self.read_positions, own)

    def sees(self) -> Tensor:
        """Boolean (tokens, tokens): who may attend to whom, windows aside."""
        row, column = self.pieces[:, None], self.pieces[None, :]
        allowed = row == column
        allowed |= row == QUERY
        allowed |= (column == PREFIX) & ((row >= 0) if self.shared_prefix else (row == 0))
        return allowed & torch.ones_like(allowed).tril()


def lay_out(  # noqa: PLR0917
    prefix: list[int],
    chunks: list[list[int]],
    query: list[int],
    positions: str,
    shared_prefix: bool,
    sequential_keys: bool = False,
) -> Layout:
    """Positions by the definitions: shared, stretched or serial; queries read the ordinary model's keys at theirs.

    With serial positions a chunk sees the prefix right before itself, and is read where it stands in the text.
    """
    p, longest = len(prefix), max(map(len, chunks))
    places: list[float] = list(range(p))
    pieces = [PREFIX] * p
    done = 0
    for number, chunk in enumerate(chunks):
        for index in range(len(chunk)):
            step = {"shared": index, "serial": index}.get(positions)
            if step is None:
                step = index * (longest - 1) / (len(chunk) - 1) if len(chunk) > 1 else 0
            places.append(p + step)
            pieces.append(number)
        done += len(chunk)
    in_text = sequential_keys or positions == "serial"
    start = p + done if in_text else math.floor(max(places)) + 1
    places += range(start, start + len(query))
    pieces += [QUERY] * len(query)
    ids = prefix + [token for chunk in chunks for token in chunk] + query
    read = torch.arange(len(ids), dtype=torch.float64) if in_text else None
    moved = positions == "serial" and not sequential_keys
    return Layout(ids, torch.tensor(pieces), torch.tensor(places, dtype=torch.float64), shared_prefix, read, moved)


@dataclass
class Selecting:
    """Algorithm 1 of Zhang et al. (2024) written as loops: which context keys each query row may read.

    `blocks` are the numbers of query tokens that are read in one pass. For LHT, `settled` holds the chunks of each row
    in each block that is done, and `scores` what the last pass gathered, by layer: (chunks, rows, heads, tokens).
    """

    top: int
    over: str
    blocks: list[int]
    settled: list[list[list[int]]] = field(default_factory=list)
    scores: dict[int, Tensor] = field(default_factory=dict)

    def keep(self, layer: int, probs: Tensor, layout: Layout) -> Tensor:
        """(rows, heads, tokens, tokens), from the row's probabilities of context keys."""
        chunks = sorted({int(piece) for piece in layout.pieces if piece >= 0})
        columns = [probs[..., layout.pieces == chunk] for chunk in chunks]
        score = torch.stack([column.sort(-1, descending=True)[0][..., :5].sum(-1) for column in columns])
        self.scores[layer] = score
        keep = torch.ones_like(probs, dtype=torch.bool)
        for block, tokens in enumerate(self.tokens(layout)):
            for row in range(probs.shape[0]):
                for head in range(probs.shape[1]):
                    for token in tokens:
                        chosen = self.settled[block][row] if block < len(self.settled) else None
                        if self.over != "LHT":
                            chosen = self._chosen(score[:, row], head, token, tokens)
                        lost = [int(p) >= 0 and chosen is not None and int(p) not in chosen for p in layout.pieces]
                        keep[row, head, token, torch.tensor(lost)] = False
        return keep

    def tokens(self, layout: Layout) -> list[list[int]]:
        """Places of each block's tokens."""
        first = int((layout.pieces == QUERY).nonzero()[0])
        ends = [first + sum(self.blocks[: number + 1]) for number in range(len(self.blocks))]
        return [list(range(end - size, end)) for end, size in zip(ends, self.blocks, strict=True)]

    def _chosen(self, score: Tensor, head: int, token: int, tokens: list[int]) -> list[int]:
        pools = {
            "none": score[:, head, token, None],
            "T": score[:, head, tokens],
            "HT": score[:, :, tokens].flatten(1),
        }
        return self.best(pools[self.over])

    def best(self, pool: Tensor) -> list[int]:
        """The chunks whose five largest scores have the largest sums."""
        sums = [float(row.sort(descending=True)[0][:5].sum()) for row in pool]
        return sorted(range(len(sums)), key=lambda chunk: -sums[chunk])[: self.top]

    def settle(self, layout: Layout) -> None:
        """Choose for the next block from the last pass's scores of all layers."""
        tokens = self.tokens(layout)[len(self.settled)]
        stacked = torch.stack([self.scores[layer] for layer in sorted(self.scores)])
        rows = range(stacked.shape[2])
        self.settled.append([self.best(stacked[:, :, row][..., tokens].transpose(0, 1).flatten(1)) for row in rows])


class DenseAttention:
    """transformers' attention signature; T and S are numbers or (rows, layers, heads)."""

    def __init__(  # noqa: PLR0917
        self,
        layout: Layout,
        temperature: Any,
        scale: Any,
        mode: str,
        selecting: Selecting | None = None,
        prefix: Any = None,
    ) -> None:
        self.layout, self.temperature, self.scale, self.mode = layout, temperature, scale, mode
        self.selecting, self.prefix = selecting, prefix
        # Post-rotation keys and values of the last forward pass by layer, and what queries read in their place.
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        # Probabilities and logits of the last forward pass by layer, (rows, heads, tokens, tokens); hidden logits -inf.
        self.rows: dict[int, tuple[Tensor, Tensor]] = {}
        self.context_keys: dict[int, Tensor] = {}
        self.context_values: dict[int, Tensor] = {}

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
        layer = module.layer_idx
        self.seen[layer] = (key, value)
        # Query rows may read the context with other keys and values than its own tokens do.
        in_context = (self.layout.pieces >= 0)[:, None]
        read_key = torch.where(in_context, self.context_keys.get(layer, key), key)
        read_value = torch.where(in_context, self.context_values.get(layer, value), value)
        scaling = dim**-0.5 if scaling is None else scaling
        factor = [torch.as_tensor(x, dtype=torch.float64) for x in (self.temperature, self.scale)]
        t, s = (x[:, layer, :, None, None] if x.dim() == 3 else x for x in factor)
        allowed = self.layout.sees()
        if sliding_window:
            allowed = allowed & (self.layout.distances() < sliding_window)
        context = (self.layout.pieces[None, :] >= 0) & (self.layout.pieces[:, None] == QUERY) & allowed
        other = allowed & ~context
        if self.prefix is not None:
            return self._three_groups(module, query @ key.transpose(-1, -2) * scaling, value, allowed, (t, s))

        def cap(x: Tensor) -> Tensor:
            return softcap * torch.tanh(x / softcap) if softcap else x

        dots = query @ key.transpose(-1, -2)
        logits_ctx = cap(query @ read_key.transpose(-1, -2) * (scaling / t)).masked_fill(~context, -math.inf)
        logits_oth = cap(dots * scaling).masked_fill(~other, -math.inf)
        if s_aux is not None:
            sink = s_aux.double().view(1, -1, 1, 1).expand(rows, heads, query.shape[2], 1)
            logits_oth = torch.cat([logits_oth, sink], -1)
            value_oth = torch.cat([value, torch.zeros_like(value[:, :, :1])], 2)
        else:
            value_oth = value
        l_oth = logits_oth.logsumexp(-1, keepdim=True)

        def weigh(logits: Tensor) -> tuple[Tensor, Tensor]:
            """The context's own probabilities, and the shares of context and rest in the row."""
            l_ctx = logits.logsumexp(-1, keepdim=True)
            weight = {"lse": s * t * l_ctx, "additive": t * l_ctx + torch.log(s), "value": l_ctx}[self.mode]
            weight = torch.where(torch.isinf(l_ctx), l_ctx, weight)
            return torch.nan_to_num(torch.exp(logits - l_ctx)), torch.softmax(torch.cat([weight, l_oth], -1), -1)

        probs, shares = weigh(logits_ctx)
        if self.selecting:
            keep = self.selecting.keep(layer, probs * shares[..., :1], self.layout)
            probs, shares = weigh(logits_ctx.masked_fill(~keep, -math.inf))
        others = torch.exp(logits_oth - l_oth)
        own = probs * shares[..., :1] + others[..., : probs.shape[-1]] * shares[..., 1:]
        raw = cap(torch.where(context, query @ read_key.transpose(-1, -2), dots) * scaling)
        self.rows[layer] = (own, raw.masked_fill(own == 0, -math.inf))
        o_ctx = probs @ read_value * (s if self.mode == "value" else 1.0)
        o_oth = others @ value_oth
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
    selecting: Selecting | None = None,
    sequential: tuple[str, ...] = (),
) -> Tensor:
    """Logits of the query tokens, (rows, query, vocabulary).

    `sequential` names what the query reads of the context as the ordinary model has it: `keys`, `values`.
    """
    attention = DenseAttention(layout, temperature, scale, mode, selecting, prefix)
    if layout.moved:
        attention.context_keys = {layer: keys for layer, (keys, _) in moved_context(model, layout).items()}
    if sequential:
        ordinary = DenseAttention(sequential_layout(layout.ids, 1), 1.0, 1.0, "lse")
        _forward(model, ordinary, rows)
        if "keys" in sequential:
            attention.context_keys = {layer: key for layer, (key, _) in ordinary.seen.items()}
        if "values" in sequential:
            attention.context_values = {layer: value for layer, (_, value) in ordinary.seen.items()}
    if selecting and selecting.over == "LHT":
        while len(selecting.settled) < len(selecting.blocks):
            _forward(model, attention, rows)
            selecting.settle(layout)
    return _forward(model, attention, rows)[:, layout.pieces == QUERY]


@torch.no_grad()
def moved_context(model: PreTrainedModel, layout: Layout) -> dict[int, tuple[Tensor, Tensor]]:
    """Keys where queries read them, and values, of each layer, (1, heads, tokens, dim); those of other pieces are zero.

    Each chunk is run alone, what it sees moved along with it: only distances matter to rotary embeddings.
    """
    assert layout.read_positions is not None
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for chunk in range(int(layout.pieces.max()) + 1):
        own = layout.pieces == chunk
        mine = own | ((layout.pieces == PREFIX) & (layout.shared_prefix or chunk == 0))
        shift = (layout.read_positions - layout.positions)[own][0]
        ids = [token for token, is_mine in zip(layout.ids, mine, strict=True) if is_mine]
        alone = Layout(ids, layout.pieces[mine], layout.positions[mine] + shift)
        attention = DenseAttention(alone, 1.0, 1.0, "lse")
        _forward(model, attention, 1)
        for layer, sides in attention.seen.items():
            for whole, side in zip(found.setdefault(layer, _zeros(sides, len(layout.ids))), sides, strict=True):
                whole[:, :, own] = side[:, :, own[mine]]
    return found


def _zeros(sides: tuple[Tensor, Tensor], tokens: int) -> tuple[Tensor, Tensor]:
    key, value = (side.new_zeros(1, side.shape[1], tokens, side.shape[3]) for side in sides)
    return key, value


@torch.no_grad()
def dense_rows(
    model: PreTrainedModel, layout: Layout, *, temperature: Any, scale: Any, selecting: Selecting | None
) -> dict[int, tuple[Tensor, Tensor]]:
    """Attention probabilities and logits of each layer, (rows, heads, tokens, tokens); -inf is unseen."""
    attention = DenseAttention(layout, temperature, scale, "lse", selecting)
    if layout.moved:
        attention.context_keys = {layer: keys for layer, (keys, _) in moved_context(model, layout).items()}
    if selecting and selecting.over == "LHT":
        _forward(model, attention, 1)
        selecting.settle(layout)
    _forward(model, attention, 1)
    return attention.rows


def _forward(model: PreTrainedModel, attention: DenseAttention, rows: int) -> Tensor:
    layout = attention.layout
    with _attention(model, attention):
        ids = torch.tensor([layout.ids]).expand(rows, -1)
        whole = bool((layout.positions == layout.positions.round()).all())
        places = layout.positions.long() if whole else layout.positions
        return model(ids, position_ids=places[None].expand(rows, -1), use_cache=False).logits


def sequential_layout(ids: list[int], query: int) -> Layout:
    """The ordinary row; its last `query` tokens are the query."""
    pieces = torch.full((len(ids),), PREFIX)
    pieces[len(ids) - query :] = QUERY
    return Layout(ids, pieces, torch.arange(len(ids), dtype=torch.float64))
