"""How pieces are batched: little padding, bounded tokens, nothing lost."""

from __future__ import annotations

import pytest
import torch

from lm_eval_ape.encoding.pieces import ENCODE_TOKENS, PADDING, Piece, batches


def piece(length: int, before: tuple[int, ...] = ()) -> Piece:
    return Piece(before, tuple(range(length)), torch.arange(length))


@pytest.mark.parametrize("seed", range(5))
def test_batches_hold_every_piece_once_and_waste_little(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 3000, (40,), generator=generator).tolist()
    pieces = [piece(length, (1,) * (length % 2)) for length in lengths]
    found = list(batches(pieces))
    assert sorted(map(id, pieces)) == sorted(id(one) for batch in found for one in batch)
    for batch in found:
        width = max(map(len, batch))
        padded = width * len(batch)
        assert padded <= ENCODE_TOKENS or len(batch) == 1
        assert padded - sum(map(len, batch)) <= PADDING * padded


def test_a_piece_longer_than_a_batch_goes_alone() -> None:
    assert [len(batch) for batch in batches([piece(ENCODE_TOKENS + 1), piece(3), piece(3)])] == [1, 2]


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
