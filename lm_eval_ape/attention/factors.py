"""T and S of each layer and head, in place of two numbers for the whole model.

The numbers live in a calibration file; a model takes them up by `calibration=PATH`. `Settings.factors` holds them, and
wherever settings are written down their digest stands for them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

Table = tuple[tuple[float, ...], ...]
"""One number a layer and head, `(layers or 1, heads or 1)`; a single one stands for all."""

NAMES = ("temperature", "scale", "prefix_temperature", "prefix_scale")


@dataclass(frozen=True)
class Factors:
    """T and S of each layer and head; all tables have one shape.

    Attributes:
        temperature: T of context keys.
        scale: S of the context's term in the merge.
        prefix_temperature: T of prefix keys; None reads the prefix as ordinary attention does.
        prefix_scale: S of the prefix's term in the merge; None where `prefix_temperature` is.
    """

    temperature: Table
    scale: Table
    prefix_temperature: Table | None = None
    prefix_scale: Table | None = None

    @classmethod
    def of(cls, temperature: float, scale: float) -> Factors:
        """One T and one S for all layers and heads."""
        return cls(((temperature,),), ((scale,),))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Factors:
        """What `json` wrote."""
        return cls(**{name: _table(content[name]) for name in NAMES if content.get(name) is not None})

    @property
    def json(self) -> dict[str, Any]:
        """The tables as lists; None where there is none."""
        return {name: table and [list(row) for row in table] for name, table in self._tables.items()}

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and heads of the tables."""
        return len(self.temperature), len(self.temperature[0])

    @property
    def single(self) -> bool:
        """Whether they are no more than one T and one S."""
        return self.shape == (1, 1) and self.prefix_temperature is None

    @cached_property
    def digest(self) -> str:
        """Digest of all numbers: what distinguishes these tables from others."""
        return hashlib.sha256(json.dumps(self.json).encode()).hexdigest()

    def __str__(self) -> str:
        layers, heads = self.shape
        return f"(T and S of {layers} layers x {heads} heads, {self.digest[:8]})"

    @property
    def _tables(self) -> dict[str, Table | None]:
        return {name: getattr(self, name) for name in NAMES}


class ReadingFactors(NamedTuple):
    """What `segments.BatchReading` takes: each `(rows, layers or 1, heads or 1)`, or 1.0 for a prefix read as usual."""

    temperature: Tensor
    scale: Tensor
    prefix_temperature: Tensor | float
    prefix_scale: Tensor | float


def reading_factors(rows: Sequence[Factors], device: torch.device, dtype: torch.dtype) -> ReadingFactors:
    """One row of a batch for each of some factors.

    Args:
        rows: At least one.
        device: Where the queries are.
        dtype: The model's; T and S are kept in float32 at least.
    """
    precision = torch.promote_types(dtype, torch.float32)

    def stack(tables: Sequence[Table]) -> Tensor:
        shape = max(len(table) for table in tables), max(len(table[0]) for table in tables)
        full = [torch.tensor(table, dtype=torch.float64).expand(shape) for table in tables]
        return torch.stack(full).to(device, precision)

    context = stack([row.temperature for row in rows]), stack([row.scale for row in rows])
    if all(row.prefix_temperature is None for row in rows):
        return ReadingFactors(*context, 1.0, 1.0)
    ones: Table = ((1.0,),)
    prefix = stack([row.prefix_temperature or ones for row in rows]), stack([row.prefix_scale or ones for row in rows])
    return ReadingFactors(*context, *prefix)


def _table(content: Sequence[Sequence[float]]) -> Table:
    return tuple(tuple(map(float, row)) for row in content)
