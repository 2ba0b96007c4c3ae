"""Which pieces stand and attend together: little padding, nothing lost; and what tells pieces apart."""

from __future__ import annotations

import pytest
import torch

from lm_eval_ape.encoding.pieces import PADDING, Piece, alike, blocks, passes


def piece(length: int, before: tuple[int, ...] = ()) -> Piece:
    return Piece(before, tuple(range(length)), torch.arange(length))


def test_pieces_pass_by_prefix_and_length_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [piece(3), piece(5, (1,)), piece(9), piece(2, (1,)), piece(7, (1,)), piece(9)]
    expected = [((), 9), ((), 3), ((1,), 7), ((1,), 5), ((1,), 2)]
    assert [[(one.before, len(one)) for one in together] for together in passes(pieces)] == [expected]
    monkeypatch.setattr("lm_eval_ape.encoding.pieces.ENCODE_TOKENS", 12)
    assert [[len(one) for one in together] for together in passes([*pieces, piece(13)])] == [[13], [9], [3, 7], [5, 2]]


def test_blocks_are_as_few_as_they_can_be_and_then_as_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval_ape.encoding.pieces.ENCODE_TOKENS", 10)
    lengths = [1, 3, 3, 3, 3, 12, 2]
    found = [lengths[block] for block in blocks(lengths)]
    assert found == [[1, 3, 3], [3, 3], [12], [2]]
    assert blocks([]) == []


@pytest.mark.parametrize(("device", "most"), [("cpu", 0.0), ("cuda", PADDING)])
@pytest.mark.parametrize("seed", range(3))
def test_what_attends_together_is_all_there_and_little_padded(seed: int, device: str, most: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 3000, (40,), generator=generator).tolist()
    pieces = [piece(length, (1,) * (number % 3)) for number, length in enumerate(lengths)]
    found = [pieces[part] for part in alike(pieces, torch.device(device))]
    assert [one for together in found for one in together] == pieces
    for together in found:
        padded = max(map(len, together)) * len(together)
        assert padded - sum(map(len, together)) <= most * padded
        assert len({one.before for one in together}) == 1


def test_pieces_of_one_length_attend_together_and_much_shorter_ones_apart() -> None:
    def found(*pieces: Piece, device: str = "cuda") -> list[list[int]]:
        return [list(map(len, pieces[part])) for part in alike(pieces, torch.device(device))]

    assert found() == []
    assert found(*[piece(100)] * 9) == found(*[piece(100)] * 9, device="cpu") == [[100] * 9]
    uneven = [piece(length) for length in (100, 90, 10, 10)]
    assert found(*uneven) == [[100, 90], [10, 10]]
    assert found(*uneven, device="cpu") == [[100], [90], [10, 10]]
    assert found(piece(10), piece(10, (1,)), piece(10, (1,))) == [[10], [10, 10]]


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
