"""T and S of layers and heads: their digest, their form in a file, and the rows that a batch reads."""

from __future__ import annotations

import torch

from lm_eval_ape.attention.factors import Factors, reading_factors

TABLES = Factors(((0.5, 1.0), (2.0, 1.5)), ((0.9, 0.8), (0.7, 0.6)))
PREFIX = Factors(TABLES.temperature, TABLES.scale, ((1.1, 1.2), (1.3, 1.4)), ((1.0, 1.0), (0.9, 0.9)))


def test_a_file_gives_back_what_was_written() -> None:
    for factors in (TABLES, PREFIX, Factors.of(0.9, 0.8)):
        assert Factors.from_json(factors.json) == factors


def test_any_other_number_has_another_digest() -> None:
    other = Factors(((0.5, 1.0), (2.0, 1.500001)), TABLES.scale)
    assert len({TABLES.digest, other.digest, PREFIX.digest}) == 3
    assert TABLES.digest == Factors.from_json(TABLES.json).digest


def test_rows_of_different_granularity_share_a_batch() -> None:
    found = reading_factors([TABLES, Factors.of(0.9, 0.8)], torch.device("cpu"), torch.bfloat16)
    assert found.temperature.dtype == torch.float32
    assert found.temperature.tolist()[0] == [[0.5, 1.0], [2.0, 1.5]]
    assert torch.equal(found.scale[1], torch.full((2, 2), 0.8))
    assert (found.prefix_temperature, found.prefix_scale) == (1.0, 1.0)


def test_a_row_without_a_prefix_pair_reads_the_prefix_as_ever() -> None:
    found = reading_factors([PREFIX, TABLES], torch.device("cpu"), torch.float64)
    assert isinstance(found.prefix_temperature, torch.Tensor)
    assert isinstance(found.prefix_scale, torch.Tensor)
    assert found.prefix_temperature[1].eq(1).all()
    assert found.prefix_scale[0].tolist() == [[1.0, 1.0], [0.9, 0.9]]
