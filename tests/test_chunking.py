"""Where contexts are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lm_eval_ape.prompts.chunking import cut_text, cut_tokens, divide


def pieces(context: str, chunking: str, separator: str = "\n\n") -> list[str]:
    starts = [0, *cut_text(context, chunking, separator), len(context)]
    return [context[a:b] for a, b in pairwise(starts)]


def test_passages_are_cut_before_headings_at_line_starts_only() -> None:
    context = "Intro\nPassage 1:\nA, see Passage 2: there.\nPassage 2:\nB\nPassage 13:\nC"
    assert pieces(context, "passages") == [
        "Intro\nPassage 1:\nA, see Passage 2: there.\n",
        "Passage 2:\nB\n",
        "Passage 13:\nC",
    ]


@pytest.mark.parametrize(
    "context",
    [
        "Paragraph 1: a\n\nParagraph 2: b",
        "段落1：甲\n段落2：乙",
        "文章1\n甲\n文章2\n乙",
        "Document 1:\na\nDocument 2:\nb",
    ],
)
def test_headings_of_other_benchmarks_are_known(context: str) -> None:
    assert len(pieces(context, "passages")) == 2
    assert "".join(pieces(context, "passages")) == context


def test_a_separator_stays_with_the_piece_before_it() -> None:
    assert pieces("a.b.c.", "separator", ".") == ["a.", "b.", "c."]
    assert pieces("a||b", "separator", "||") == ["a||", "b"]
    assert pieces("abc", "separator", "||") == ["abc"]


def test_tokens_are_cut_at_full_chunks_and_a_rest() -> None:
    assert cut_tokens([9000], 4000, None) == [4000, 4000, 1000]
    assert cut_tokens([8000], 4000, None) == [4000, 4000]
    assert cut_tokens([3], 4000, None) == [3]


def test_long_pieces_are_cut_and_short_ones_stay() -> None:
    assert cut_tokens([5, 12, 3], 5, None) == [5, 5, 5, 2, 3]
    assert cut_tokens([5, 12, 3], None, None) == [5, 12, 3]


@pytest.mark.parametrize(("count", "most"), [(200, 20), (7, 3), (5, 5), (3, 8), (4, 1)])
def test_too_many_pieces_are_joined_evenly_and_lose_nothing(count: int, most: int) -> None:
    lengths = [10] * count
    got = cut_tokens(lengths, None, most)
    assert sum(got) == 10 * count
    assert len(got) == min(count, most)
    assert max(got) - min(got) <= 10


def test_joining_keeps_piece_borders() -> None:
    assert cut_tokens([100, 1, 1, 1, 100], None, 3) in ([100, 3, 100], [101, 1, 101], [102, 1, 100], [100, 1, 102])
    assert cut_tokens([9000], 4000, 2) == [4000, 5000]


@pytest.mark.parametrize(("tokens", "chunks"), [(9000, 1), (9000, 7), (64, 64), (65, 64), (127, 64), (1, 1)])
def test_a_context_is_divided_into_chunks_that_differ_by_a_token_at_most(tokens: int, chunks: int) -> None:
    got = divide([tokens], chunks, whole=False)
    assert (len(got), sum(got)) == (chunks, tokens)
    assert max(got) - min(got) <= 1


def test_fewer_tokens_than_chunks_make_a_chunk_each() -> None:
    assert divide([3], 8, whole=False) == [1, 1, 1]


def test_items_are_grouped_whole_into_about_equal_chunks() -> None:
    assert divide([10, 10, 10, 10], 2, whole=True) == [20, 20]
    assert divide([30, 10, 10, 10], 2, whole=True) == [30, 30]
    assert divide([5, 6, 7], 3, whole=True) == [5, 6, 7]
    assert divide([5, 6, 7], 8, whole=True) == [5, 6, 7]
    assert divide([5, 6, 7], 1, whole=True) == [18]
