"""Work is done in order and completely, however little fits at a time."""

from __future__ import annotations

import pytest
import torch

from lm_eval_ape.engine.out_of_memory import half, in_pieces


@pytest.mark.parametrize(("rows", "fits"), [(7, 7), (7, 3), (7, 1), (1, 1), (0, 4)])
def test_every_row_is_done_once_and_in_order(rows: int, fits: int) -> None:
    most: list[int | None] = [None]

    def work(part: slice) -> list[int]:
        numbers = list(range(rows))[part]
        if len(numbers) > fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return numbers

    def make_room(size: int, error: RuntimeError) -> None:
        assert "out of memory" in str(error)
        most[0] = half(size)

    pieces = in_pieces(work, rows, lambda: most[0], make_room)
    assert [number for piece in pieces for number in piece] == list(range(rows))
    assert all(len(piece) <= fits for piece in pieces)


def test_errors_that_are_not_of_memory_and_those_of_make_room_pass() -> None:
    def broken(part: slice) -> None:
        raise RuntimeError("shapes do not match")

    def full(part: slice) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    def refuse(size: int, error: RuntimeError) -> None:
        raise ValueError(f"not even {size}") from error

    with pytest.raises(RuntimeError, match="shapes"):
        in_pieces(broken, 2, lambda: None, refuse)
    with pytest.raises(ValueError, match="not even 2"):
        in_pieces(full, 2, lambda: None, refuse)
