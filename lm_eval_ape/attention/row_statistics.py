"""What a query's attention rows look like: their entropy, their logits, and where their mass lies.

The rows are never held whole: logits are taken again in blocks of keys, and a block's probabilities follow from its
logits and the row's log-sum-exp, which attention has left. With groups g of keys (tail, prefix, context) of mass w_g,
own log-sum-exp L_g and own mean logit E_g, a row's entropy is `-sum_g w_g ln w_g + sum_g w_g (L_g - E_g)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lm_eval_ape.attention.merge import Attended

# Logits of one block of keys stay below this many elements (256 MiB in float32).
BLOCK_ELEMENTS = 2**26
ROLES = ("prefix", "context", "query")


class Asked(NamedTuple):
    """The rows of one encoded prompt in one layer.

    Attributes:
        query: `(rows, heads, query, head_dim)`, not divided by T.
        scaling: The model's softmax scaling, without T.
        softcap: The model's cap on logits.
    """

    query: Tensor
    scaling: float
    softcap: float | None


class Part(NamedTuple):
    """One group of keys that rows read.

    Attributes:
        role: One of `ROLES`.
        key: `(rows or 1, kv_heads, keys, head_dim)`.
        temperature: T, a number or `(rows or 1, heads or 1, 1)`.
        visible: Boolean, broadcastable to `(rows, heads, query, keys)`, True where a query attends; None for all keys,
            or, among the queries themselves, for plain causality.
        attended: Attention over the group, T in its logits.
        weighed: The same as it enters the merge, with S.
    """

    role: str
    key: Tensor
    temperature: float | Tensor
    visible: Tensor | None
    attended: Attended
    weighed: Attended


class Rows(NamedTuple):
    """Statistics of attention rows, each `(rows, heads, query)`.

    Attributes:
        entropy: In nats, over all keys that the row attends to.
        logit: Mean absolute logit of these keys, T not applied.
        mass: Share of the row on the keys of each role, in the order of `ROLES`.
    """

    entropy: Tensor
    logit: Tensor
    mass: tuple[Tensor, ...]


class Probe(Protocol):
    """Sees the attention rows of every layer and encoded prompt while a model reads segments."""

    def record(self, place: tuple[int, int], asked: Asked, parts: Sequence[Part], lse: Tensor) -> None:
        """Look at one layer's rows of one encoded prompt.

        Args:
            place: The layer's and the encoded prompt's number.
            asked: The rows.
            parts: The groups of keys that they attend to.
            lse: Log-sum-exp of the merged rows, `(rows, heads, query)`.
        """


@dataclass
class RowProbe:
    """Collects statistics of the rows of every layer and encoded prompt while a model reads segments.

    Attributes:
        rows: By layer and number of the encoded prompt; of several passes, the last one's.
    """

    rows: dict[tuple[int, int], Rows] = field(default_factory=dict)

    def record(self, place: tuple[int, int], asked: Asked, parts: Sequence[Part], lse: Tensor) -> None:
        """Note the statistics of one layer's rows of one encoded prompt (see `Probe`)."""
        self.rows[place] = summarise(asked, parts, lse)

    def stacked(self, encoded: int, name: str) -> Tensor:
        """One statistic of all layers, `(layers, rows, heads, query)`.

        Args:
            encoded: The encoded prompt's number in the batch.
            name: `entropy`, `logit`, or one of `ROLES` for the mass on its keys.
        """
        own = [rows for (_, number), rows in sorted(self.rows.items()) if number == encoded]
        values = [rows.mass[ROLES.index(name)] if name in ROLES else getattr(rows, name) for rows in own]
        return torch.stack([value.to(values[0].device) for value in values])


def summarise(asked: Asked, parts: Sequence[Part], lse: Tensor) -> Rows:
    """The statistics of rows that attend to some groups of keys (see the module)."""
    entropy, size, count = (torch.zeros_like(lse) for _ in range(3))
    mass = {role: torch.zeros_like(lse) for role in ROLES}
    for part in parts:
        share = torch.exp(part.weighed.lse - lse).nan_to_num()
        mean, absolute, keys = _logits(asked, part)
        entropy += torch.where(share > 0, share * (part.attended.lse - mean), 0.0) - torch.special.xlogy(share, share)
        size += absolute
        count += keys
        mass[part.role] += share
    return Rows(entropy, size / count.clamp(min=1), tuple(mass[role] for role in ROLES))


def _logits(asked: Asked, part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Mean logit under the group's own softmax, sum of absolute logits, and number of keys, each like the row's."""
    rows, heads, length, _ = asked.query.shape
    kv_heads, keys = part.key.shape[1:3]
    dtype = part.attended.lse.dtype
    query = asked.query.to(dtype).unflatten(1, (kv_heads, heads // kv_heads))
    lse = part.attended.lse.masked_fill(part.attended.lse == -torch.inf, 0.0).unsqueeze(-1)
    temperature = part.temperature.unsqueeze(-1) if isinstance(part.temperature, Tensor) else part.temperature
    mean, absolute, count = (torch.zeros_like(part.attended.lse) for _ in range(3))
    visible = torch.ones(length, keys, dtype=torch.bool, device=query.device) if part.visible is None else part.visible
    if part.visible is None and part.role == "query" and length > 1:
        visible = visible.tril()
    block = max(1, BLOCK_ELEMENTS // (rows * heads * length))
    for start in range(0, keys, block):
        columns = part.key[:, :, start : start + block].to(dtype).unsqueeze(2).transpose(-1, -2)
        raw = (query @ columns).flatten(1, 2) * asked.scaling
        divided = raw / temperature
        if asked.softcap:
            raw, divided = (asked.softcap * torch.tanh(x / asked.softcap) for x in (raw, divided))
        hidden = ~visible.expand(rows, heads, length, keys)[..., start : start + block]
        mean += (torch.exp(divided - lse) * divided).masked_fill(hidden, 0.0).sum(-1)
        absolute += raw.abs().masked_fill(hidden, 0.0).sum(-1)
        count += (~hidden).sum(-1)
    return mean, absolute, count
