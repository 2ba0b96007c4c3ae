"""LongBench's metrics: one prediction against one reference answer, in [0, 1].

The published figures are means of these numbers times 100. The definitions follow the official
scorer, quirks included (https://github.com/THUDM/LongBench, `metrics.py` and `eval.py`).
"""

import logging
import re
import string
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from functools import cache
from typing import Any

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_DIGITS = re.compile(r"\d+")
_CHINESE_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗"
    "〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
_DROP_ASCII = str.maketrans("", "", string.punctuation)
_DROP_ALL = str.maketrans("", "", string.punctuation + _CHINESE_PUNCTUATION)


def qa_f1(prediction: str, answer: str) -> float:
    """F1 of the bags of English words, without case, punctuation and articles (as in SQuAD)."""
    return _bag_f1(_english_words(prediction), _english_words(answer))


def qa_f1_zh(prediction: str, answer: str) -> float:
    """F1 of the bags of jieba's Chinese words, without case, punctuation and white space."""
    return _bag_f1(_chinese_words(prediction), _chinese_words(answer))


def sub_em(prediction: str, answer: str) -> float:
    """Substring exact match (SubEM): 1 where the prediction contains the answer, both normalised as in SQuAD, else 0.

    `best_subspan_em` of Liu et al., Lost in the Middle (TACL 2024); the metric of Zhang et al. (2024) for RAG and
    synthetic tasks. Parts of words count. An answer of which nothing is left (`The`) is contained in nothing.
    """
    return _contains(" ".join(_english_words(prediction)), " ".join(_english_words(answer)))


def sub_em_zh(prediction: str, answer: str) -> float:
    """`sub_em` of texts without case, punctuation and white space."""
    return _contains("".join(_chinese_words(prediction)), "".join(_chinese_words(answer)))


def rouge_l(prediction: str, answer: str) -> float:
    """ROUGE-L F of the package `rouge`, which cuts sentences at full stops.

    A prediction or answer without any sentence scores 0, as in the official scorer.
    """
    if not prediction.strip(".") or not answer.strip("."):
        return 0.0
    # The package recurses once a word: without room a long text would fail in a deep call stack.
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + len(prediction.split()) + len(answer.split()))
    try:
        scores = _rouge().get_scores([prediction], [answer])
    finally:
        sys.setrecursionlimit(limit)
    return float(scores[0]["rouge-l"]["f"])


def rouge_l_zh(prediction: str, answer: str) -> float:
    """`rouge_l` of the texts with jieba's words set apart by spaces."""
    return rouge_l(_spaced(prediction), _spaced(answer))


def rouge_score_l(prediction: str, answer: str) -> float:
    """ROUGE-L F of the package `rouge-score`, without stemming; not the official LongBench score.

    It takes the text as one sentence and drops everything but ASCII letters and digits, and lies
    3 to 33 points (of 100) from `rouge_l`.
    """
    return float(_rouge_scorer().score(answer, prediction)["rougeL"].fmeasure)


def rouge_score_l_zh(prediction: str, answer: str) -> float:
    """ROUGE-L F of the package `rouge-score` over jieba's words.

    The package's own tokenizer would drop every Chinese character.
    """
    scores = _word_rouge_scorer().score(_spaced(answer), _spaced(prediction))
    return float(scores["rougeL"].fmeasure)


def classification(prediction: str, answer: str, classes: Sequence[str]) -> float:
    """1 / (number of class names found in the prediction) if the answer is among them, else 0.

    A class name that is only a part of the answer's name does not count. The official scorer
    deletes such names from the list while it walks it, and so passes over the name after each
    deleted one, which then counts; its published figures contain that, and so do ours.
    """
    found = [name for name in classes if name in prediction]
    position = 0
    while position < len(found):
        if found[position] != answer and found[position] in answer:
            del found[position]
        position += 1
    return 1 / len(found) if answer in found else 0.0


def retrieval(prediction: str, answer: str) -> float:
    """Share of the numbers in the prediction that are the number of `Paragraph N`."""
    return _share_of_numbers(prediction, _number_after("Paragraph ", answer))


def retrieval_zh(prediction: str, answer: str) -> float:
    """Share of the numbers in the prediction that are the number of `段落N`."""
    return _share_of_numbers(prediction, _number_after("段落", answer))


def count(prediction: str, answer: str) -> float:
    """Share of the numbers in the prediction that are the answer."""
    return _share_of_numbers(prediction, answer)


def code_similarity(prediction: str, answer: str) -> float:
    """Similarity of the first line of code to the answer, in whole hundredths.

    The line is the first one, after leading line breaks, without a backquote, `#` or `//`. The
    official scorer asks fuzzywuzzy, whose ratio without the optional python-Levenshtein is
    difflib's; difflib is called directly, so that no other installed package changes the score.
    """
    lines = prediction.lstrip("\n").split("\n")
    code = next((line for line in lines if not any(m in line for m in ("`", "#", "//"))), "")
    return round(100 * SequenceMatcher(None, code, answer).ratio()) / 100


def _english_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_DROP_ASCII)).split()


def _chinese_words(text: str) -> list[str]:
    words = ("".join(word.lower().translate(_DROP_ALL).split()) for word in _segments(text))
    return [word for word in words if word]


def _contains(prediction: str, answer: str) -> float:
    return float(bool(answer) and answer in prediction)


def _bag_f1(prediction: Iterable[str], answer: Iterable[str]) -> float:
    predicted, expected = Counter(prediction), Counter(answer)
    common = (predicted & expected).total()
    return 2 * common / (predicted.total() + expected.total()) if common else 0.0


def _spaced(text: str) -> str:
    return " ".join(_segments(text))


def _number_after(word: str, answer: str) -> str:
    match = re.search(re.escape(word) + r"(\d+)", answer)
    if match is None:
        raise ValueError(f"The answer must contain '{word}' and a number, but got {answer!r}.")
    return match[1]


def _share_of_numbers(prediction: str, number: str) -> float:
    numbers = _DIGITS.findall(prediction)
    return numbers.count(number) / len(numbers) if numbers else 0.0


def _segments(text: str) -> list[str]:
    """Chinese words and what stands between them, in jieba's exact mode."""
    return list(_jieba().cut(text, cut_all=False))


# These packages are slow to import: without such a task nothing waits for them.


@cache
def _jieba() -> Any:
    import jieba

    jieba.setLogLevel(logging.WARNING)  # it reports the loading of its dictionary on stderr
    return jieba


@cache
def _rouge() -> Any:
    from rouge import Rouge

    return Rouge(metrics=["rouge-l"])


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


@cache
def _word_rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


class _Words:
    def tokenize(self, text: str) -> list[str]:
        return text.split()
