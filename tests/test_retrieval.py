"""Chunks chosen by BM25, against the formula written out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from lm_eval_ape.prompts.retrieval import best_chunks, bm25_scores, words

CHUNKS = [
    "The river Rhine flows through Köln and on to the sea.",
    "A film by a director who was born in Paris, and another film.",
    "Bread is baked in the morning.",
    "The director of the film lives in Köln; the film was long.",
    "Bread is baked in the morning.",
]


def formula(chunks: Sequence[Sequence[str]], query: Sequence[str], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Lucene's BM25, word by word."""
    mean = sum(map(len, chunks)) / len(chunks)
    scores = []
    for chunk in chunks:
        score = 0.0
        for word in query:
            holding = sum(word in other for other in chunks)
            count = chunk.count(word)
            weight = math.log(1 + (len(chunks) - holding + 0.5) / (holding + 0.5))
            score += weight * count / (count + k1 * (1 - b + b * len(chunk) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("query", ["Who is the director of the film?", "Rhine, Köln", "film film film", "Nothing here"])
def test_scores_equal_the_formula(query: str) -> None:
    chunks = [words(chunk) for chunk in CHUNKS]
    np.testing.assert_allclose(bm25_scores(chunks, words(query)), formula(chunks, words(query)), atol=1e-12)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_the_best_chunks_by_the_formula_are_kept_in_their_order(most: int) -> None:
    query = "Where does the director of the film live?"
    scores = formula([words(chunk) for chunk in CHUNKS], words(query))
    expected = sorted(sorted(range(len(CHUNKS)), key=lambda number: -scores[number])[:most])
    assert best_chunks(CHUNKS, query, most) == expected
    assert best_chunks(CHUNKS, query, 1) == [3]


def test_of_equal_chunks_the_earlier_is_kept() -> None:
    assert best_chunks(CHUNKS, "bread", 1) == [2]
    assert best_chunks(CHUNKS, "bread", 3) == [0, 2, 4]


@pytest.mark.parametrize("query", ["", "?!", "zebra"])
def test_without_a_shared_word_the_first_chunks_are_kept(query: str) -> None:
    assert best_chunks(CHUNKS, query, 2) == [0, 1]


def test_chunks_without_words_are_no_mistake() -> None:
    assert best_chunks(["...", "film", "---"], "a film", 1) == [1]
    assert best_chunks(["...", "!", "---"], "a film", 2) == [0, 1]


def test_all_are_kept_where_no_more_are_asked_for() -> None:
    assert best_chunks(CHUNKS, "film", 5) == [0, 1, 2, 3, 4]
    assert best_chunks(CHUNKS, "film", 50) == [0, 1, 2, 3, 4]


def test_chinese_is_cut_into_words() -> None:
    assert words("请问北京的天气，Today 怎么样?") == ["请问", "北京", "的", "天气", "today", "怎么样"]
    chunks = ["上海是一座港口城市。", "北京的天气今天很好。", "他喜欢读书。"]
    assert best_chunks(chunks, "北京今天的天气怎么样？", 1) == [1]
