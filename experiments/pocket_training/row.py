"""Rows of a batch: a context with its questions, none of which sees another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch

from lm_eval_ape.pocket.questions import DATASETS

# What a target token is: a value in a list of statements, the other end of a chain, the end of an
# answer, or the answer of a question.
KINDS: Final = ("pair", "join", "end", *DATASETS)
TRUNK: Final = 0
_PADDING: Final = -1
_NO_TARGET: Final = -100


class Batch(NamedTuple):
    """Rows padded to one length.

    Attributes:
        ids: token ids, (rows, length).
        positions: position ids, (rows, length).
        mask: True where a query token (third axis) may see a key token, (rows, 1, length, length).
        target: the token to predict, -100 where there is none, (rows, length).
        kind: index in `KINDS` of the target, -1 where there is none, (rows, length).
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    target: torch.Tensor
    kind: torch.Tensor


@dataclass
class Row:
    """A trunk and its branches; a branch sees the trunk and itself. One entry a token."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)

    def append(self, ids: list[int], first_position: int, branch: int) -> None:
        """Add tokens at consecutive positions."""
        self.ids += ids
        self.positions += range(first_position, first_position + len(ids))
        self.branch += [branch] * len(ids)
        self.target += [_NO_TARGET] * len(ids)
        self.kind += [-1] * len(ids)

    def aim(self, index: int, target: int, kind: str) -> None:
        """Let the token at `index` predict `target`."""
        self.target[index] = target
        self.kind[index] = KINDS.index(kind)

    def ask(self, asked: list[int], answer: int, end: int | None, kind: str) -> None:
        """Add a branch that starts right after the trunk."""
        trunk = self.branch.count(TRUNK)
        self.append([*asked, answer], self.positions[trunk - 1] + 1, self.branch[-1] + 1)
        self.aim(-2, answer, kind)
        if end is not None:
            self.aim(-1, end, "end")


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Pad rows to the longest one and write down what each token may see."""
    length = max(len(row.ids) for row in rows)

    def pad(lists: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (length - len(row)) for row in lists])

    branch = pad([row.branch for row in rows], _PADDING)
    same = branch[:, :, None] == branch[:, None, :]
    return Batch(
        ids=pad([row.ids for row in rows], pad_id),
        positions=pad([row.positions for row in rows], 0),
        mask=(same | (branch == TRUNK)[:, None, :]).tril()[:, None],
        target=pad([row.target for row in rows], _NO_TARGET),
        kind=pad([row.kind for row in rows], -1),
    )
