"""Pieces packed in one row: laid out as rows for attention and back, and passed over once, without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from test_exactness import prompt_of, tokens
from torch import nn
from transformers.masking_utils import sliding_window_causal_mask_function

from helpers import tiny
from lm_eval_ape.attention.packed_pieces import PiecesTogether
from lm_eval_ape.attention.segments import BatchReading, EncodedPrompt
from lm_eval_ape.encoding import encode
from lm_eval_ape.encoding.encode import encode_all
from lm_eval_ape.encoding.pieces import Piece, alike
from lm_eval_ape.settings.strategy import resolve


def pieces_of(lengths: tuple[int, ...], first: int = 2) -> PiecesTogether:
    return PiecesTogether(BatchReading((EncodedPrompt((), 0, rows=len(lengths)),)), first, lengths)


def test_rows_hold_a_piece_each_and_go_back_into_the_row() -> None:
    row = torch.randn(1, 3, 12, 4)
    pieces = pieces_of((4, 1, 3))
    rows = pieces.rows(row)
    assert rows.shape == (3, 3, 4, 4)
    for number, (start, length) in enumerate([(2, 4), (6, 1), (7, 3)]):
        assert torch.equal(rows[number, :, :length], row[0, :, start : start + length])
    assert torch.equal(pieces.packed(rows), row[:, :, 2:10])


def test_pieces_of_one_length_are_not_copied() -> None:
    row = torch.randn(1, 3, 12, 4)
    pieces = pieces_of((5, 5))
    rows = pieces.rows(row)
    assert rows.data_ptr() == row[:, :, 2:].data_ptr()
    assert torch.equal(rows, torch.cat([row[:, :, 2:7], row[:, :, 7:12]]))
    assert torch.equal(pieces.packed(rows), row[:, :, 2:])


@pytest.mark.parametrize("window", [None, 1, 3, 4, 9])
def test_a_sliding_window_leaves_what_transformers_leaves(window: int | None) -> None:
    mask = pieces_of((4, 2)).mask(window, torch.device("cpu"))
    if window is None or window >= 4:
        assert mask is None
        return
    sees = sliding_window_causal_mask_function(window)
    places = range(4)
    expected = [[bool(sees(0, 0, torch.tensor(q), torch.tensor(k))) for k in places] for q in places]
    assert mask is not None
    assert mask[0, 0].tolist() == expected


@pytest.mark.parametrize("strategy", ["parallel", "sink"])
def test_prefix_and_chunks_pass_once_and_without_padding(strategy: str) -> None:
    model = tiny.make_model("llama")
    passed: list[int] = []

    def count(module: nn.Module, arguments: Any) -> None:
        passed.append(arguments[0].shape[:-1].numel())

    prompt = prompt_of([tokens(length, length) for length in (9, 2, 5, 17)], prefix=tokens(6, 1))
    hook = model.get_decoder().layers[0].mlp.register_forward_pre_hook(count)
    try:
        encode_all(model, [prompt], resolve({"strategy": strategy}))
    finally:
        hook.remove()
    assert passed == [6 + 9 + 2 + 5 + 17]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "gpt_oss"])
@pytest.mark.parametrize("strategy", ["parallel", "sink"])
def test_pieces_that_are_padded_to_attend_together_leave_what_they_leave_alone(
    family: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, settings = tiny.make_model(family), resolve({"strategy": strategy})
    prompt = prompt_of([tokens(length, length) for length in (19, 20, 17, 18)])
    (expected,) = encode_all(model, [prompt], settings)
    together: list[slice] = []

    def as_on_a_gpu(pieces: Sequence[Piece], device: torch.device) -> Iterator[slice]:
        together.extend(alike(pieces, torch.device("cuda")))
        return iter(together)

    monkeypatch.setattr(encode, "alike", as_on_a_gpu)
    (padded,) = encode_all(model, [prompt], settings)
    assert max(part.stop - part.start for part in together) >= 3
    for one, other in zip(padded.segments, expected.segments, strict=True):
        for got, wanted in zip((*one.keys, *one.values), (*other.keys, *other.values), strict=True):
            assert (got - wanted).abs().max() < 1e-12
