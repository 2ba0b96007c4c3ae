"""The scores of pocket answers, as LongBench defines them: token F1 and accuracy, from 0 to 1."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence


def normalize(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation and articles."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def qa_f1(prediction: str, answers: Sequence[str]) -> float:
    """The best token F1 of the prediction over the answers."""
    return max((_f1(normalize(prediction), normalize(answer)) for answer in answers), default=0.0)


def accuracy(prediction: str, answers: Sequence[str], classes: Sequence[str]) -> float:
    """1 if the prediction names one of the answers; shared equally with other classes it names."""
    named = [label for label in classes if label in prediction]
    # A class that is part of the answer's name is not another answer (LongBench's rule).
    named = [label for label in named if label in answers or label not in answers[0]]
    return 1 / len(named) if any(answer in named for answer in answers) else 0.0


def _f1(prediction: list[str], answer: list[str]) -> float:
    common = sum((Counter(prediction) & Counter(answer)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(prediction), common / len(answer)
    return 2 * precision * recall / (precision + recall)
