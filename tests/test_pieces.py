"""Which pieces stand and attend together: little padding, nothing lost; and what tells pieces apart."""

from __future__ import annotations

import pytest
import torch

from lm_eval_ape.encoding.pieces import PADDING, Piece, alike, in_order


def piece(length: int, before: tuple[int, ...] = ()) -> Piece:
    return Piece(before, tuple(range(length)), torch.arange(length))


def test_pieces_are_ordered_by_prefix_and_length() -> None:
    pieces = [piece(3), piece(5, (1,)), piece(9), piece(2, (1,)), piece(7, (1,))]
    assert [(one.before, len(one)) for one in in_order(pieces)] == [((), 9), ((), 3), ((1,), 7), ((1,), 5), ((1,), 2)]


@pytest.mark.parametrize("seed", range(5))
def test_what_attends_together_is_all_there_and_little_padded(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 3000, (40,), generator=generator).tolist()
    found = list(alike(lengths))
    assert [number for part in found for number in range(40)[part]] == list(range(40))
    for part in found:
        padded = max(lengths[part]) * len(lengths[part])
        assert padded - sum(lengths[part]) <= PADDING * padded


def test_pieces_of_one_length_attend_together_and_much_shorter_ones_apart() -> None:
    assert list(alike([])) == []
    assert list(alike([100] * 9)) == [slice(0, 9)]
    assert list(alike([100, 90, 10, 10])) == [slice(0, 2), slice(2, 4)]


def test_a_key_tells_tokens_positions_and_prefix_apart() -> None:
    base = Piece((1, 2), (3, 4), torch.tensor([2, 3]))
    others = [
        Piece((1, 2), (3, 5), torch.tensor([2, 3])),
        Piece((1, 2), (3, 4), torch.tensor([2, 4])),
        Piece((1, 2), (3, 4), torch.tensor([2.0, 3.0])),
        Piece((2, 2), (3, 4), torch.tensor([2, 3])),
        Piece((1,), (2, 3, 4), torch.tensor([1, 2, 3])),
        Piece((), (1, 2, 3, 4), torch.tensor([0, 1, 2, 3])),
    ]
    assert len({one.key for one in (base, *others)}) == len(others) + 1
    assert Piece((1, 2), (3, 4), torch.tensor([2, 3])).key == base.key
