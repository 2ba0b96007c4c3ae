"""Work is done in order and completely, however little fits at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lm_eval_ape.runtime.out_of_memory import Room


def fitting(fits: int, rows: int) -> Callable[[slice], list[int]]:
    """Work that gives the numbers of its rows, as far as so many fit at a time."""

    def work(part: slice) -> list[int]:
        numbers = list(range(rows))[part]
        if len(numbers) > fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return numbers

    return work


@pytest.mark.parametrize(("rows", "fits"), [(7, 7), (7, 3), (7, 1), (1, 1), (0, 4)])
def test_every_row_is_done_once_and_in_order(rows: int, fits: int) -> None:
    room = Room()
    pieces = room.pieces(fitting(fits, rows), rows)
    assert [number for piece in pieces for number in piece] == list(range(rows))
    assert all(len(piece) <= fits for piece in pieces)
    assert room.most is None or room.most <= fits


def test_room_is_made_in_another_way_before_rows_get_fewer(caplog: pytest.LogCaptureFixture) -> None:
    reliefs = ["kept chunks are let go", None, None]
    room = Room(rows="points", relieve=lambda: reliefs.pop(0))
    assert room.pieces(fitting(2, 4), 4, what="a prompt") == [[0, 1], [2, 3]]
    assert [record.getMessage() for record in caplog.records] == [
        "a prompt: memory is short; kept chunks are let go.",
        "a prompt: memory is short; going on with 2 points at a time.",
    ]


def test_relief_that_can_be_had_again_ends() -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Room(relieve=lambda: "kept chunks are let go").pieces(fitting(0, 2), 2)


def test_other_errors_pass_and_a_row_that_does_not_fit_is_refused() -> None:
    def broken(part: slice) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Room().pieces(broken, 2)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Room().pieces(fitting(0, 2), 2)
    with pytest.raises(ValueError, match="not even one"):
        Room().pieces(fitting(0, 2), 2, refusal=lambda: ValueError("not even one"))
