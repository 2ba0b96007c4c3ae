"""Which chunks of a context are worth reading, judged by their words alone, before any model sees them.

BM25 (Robertson & Zaragoza, 2009) as Lucene computes it (Kamphuis et al., 2020), by the package `bm25s`: for a chunk of
l words, of which f are the word, in a context of N chunks with l_mean words in the mean, n of which contain the word,

    score = sum over the query's words of  ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * l / l_mean))
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

K1, B = 1.5, 0.75

_WORD = re.compile(r"\w+")
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def best_chunks(chunks: Sequence[str], query: str, most: int) -> list[int]:
    """Choose the chunks that match a query best.

    Args:
        chunks: Text of each chunk, in order.
        query: The text to match.
        most: How many to choose, at least 1.

    Returns:
        Numbers of the chosen chunks, ascending. Of equal chunks the earlier ones are chosen, so without a word that
        query and chunks share, the first `most`.
    """
    if len(chunks) <= most:
        return list(range(len(chunks)))
    scores = bm25_scores([words(chunk) for chunk in chunks], words(query))
    # Rounded, so that an order of summation cannot break a tie.
    best = np.argsort(-np.round(scores, 9), kind="stable")[:most]
    return sorted(int(number) for number in best)


def bm25_scores(chunks: Sequence[Sequence[str]], query: Sequence[str]) -> np.ndarray:
    """Score chunks against a query, both as words.

    Returns:
        One score a chunk, `(chunks,)`, float64; 0 where no word is shared.
    """
    known = set().union(*chunks)
    asked = [word for word in query if word in known]
    if not asked:
        return np.zeros(len(chunks))
    index = _bm25s().BM25(method="lucene", k1=K1, b=B, dtype="float64")
    index.index([list(chunk) for chunk in chunks], show_progress=False)
    return np.asarray(index.get_scores(asked))


def words(text: str) -> list[str]:
    """Cut a text into words without case; Chinese, which has no spaces, by jieba.

    The tokenizer of `bm25s` would take a whole Chinese clause for one word and drop words of one character.
    """
    found: list[str] = []
    for run in _WORD.findall(text.casefold()):
        found += _jieba().lcut(run) if _HAN.search(run) else [run]
    return found


# These packages are slow to import: without retrieval nothing waits for them.


@cache
def _bm25s() -> Any:
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it reports every index
    return bm25s


@cache
def _jieba() -> Any:
    import jieba

    jieba.setLogLevel(logging.WARNING)  # it reports the loading of its dictionary on stderr
    return jieba
