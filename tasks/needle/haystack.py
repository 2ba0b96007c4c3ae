"""Haystacks: sentences that say nothing of what is asked, generated or from a text of the user's."""

import re
from bisect import bisect_left, bisect_right
from itertools import accumulate
from pathlib import Path

from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.files import reason
from lm_eval_ape.storage.strict_reading import text_of
from lm_eval_ape.tasks.draws import Draws

_PEOPLE = "baker carpenter child farmer fisher gardener miller painter sailor shepherd teacher traveller".split()
_ADJECTIVES = "brown cheerful cold distant empty gentle green heavy narrow old patient quiet sunny tall warm".split()
_NOUNS = "barn basket bench bridge field fence garden gate ladder lantern meadow orchard river road table well".split()
_VERBS = "cleaned described drew found mended passed remembered showed visited watched".split()
_TIMES = "After lunch;At dusk;Before winter;Every spring;In the morning;Last year;On Sundays;When it rained".split(";")
_FORMS = (
    "{time} the {person} {verb} the {a} {n}.",
    "The {a} {n} stood beside the {b} {m}.",
    "A {person} {verb} the {n} and the {a} {m}.",
    "{time} the {n} was {a}, and the {m} was {b}.",
    "Nobody {verb} the {a} {n} behind the {m}.",
    "The {person} spoke of a {a} {n} near the {b} {m}.",
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def generated_sentences(draws: Draws, words: int) -> list[str]:
    """Sentences about country life with at least so many words in all."""
    sentences: list[str] = []
    count = 0
    while count < words:
        n, m = (_NOUNS[place] for place in draws.order(len(_NOUNS))[:2])
        a, b = (_ADJECTIVES[place] for place in draws.order(len(_ADJECTIVES))[:2])
        fields = {"person": draws.pick(_PEOPLE), "verb": draws.pick(_VERBS), "time": draws.pick(_TIMES)}
        sentences.append(draws.pick(_FORMS).format(n=n, m=m, a=a, b=b, **fields))
        count += len(sentences[-1].split())
    return sentences


def local_sentences(path: str) -> list[str]:
    """The sentences of a `.txt` file, or of all `.txt` files of a folder in the order of their names.

    Raises:
        ApeError: There is no such file or folder, it cannot be read, or has no text.
    """
    place = Path(path).expanduser()
    files = sorted(place.glob("*.txt")) if place.is_dir() else [place]
    if not files or not files[0].is_file():
        raise ApeError(f"needle_haystack={path} is no .txt file and no folder of .txt files: give the path of one.")
    try:
        text = "\n".join(text_of(file.read_bytes()) for file in files)
    except (OSError, ValueError) as error:
        raise ApeError(
            f"needle_haystack={path} cannot be read as text in UTF-8: {reason(error)}. Give another file."
        ) from error
    sentences = [" ".join(sentence.split()) for sentence in _SENTENCE_END.split(text)]
    if not any(sentences):
        raise ApeError(f"needle_haystack={path} has no text: give another file.")
    return [sentence for sentence in sentences if sentence]


def cut_sentences(sentences: list[str], draws: Draws, words: int, source: str) -> list[str]:
    """Consecutive sentences with at least so many words, from a random one on.

    Raises:
        ApeError: The text is too short.
    """
    lengths = [len(sentence.split()) for sentence in sentences]
    spare = sum(lengths) - words
    if spare < 0:
        raise ApeError(
            f"{source} has {sum(lengths)} words, too few for a haystack of needle_words={words}: give a longer text "
            "or a smaller number."
        )
    before = list(accumulate(lengths, initial=0))
    # A later start than the last one that leaves enough words would make the haystack too short.
    start = draws.number(bisect_right(before, spare))
    return sentences[start : bisect_left(before, before[start] + words)]
