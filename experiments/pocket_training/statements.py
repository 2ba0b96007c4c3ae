"""Facts about any two entities, in few words: what is learnt before passages."""

from __future__ import annotations

import random

from lm_eval_ape.pocket.names import ENTITY
from lm_eval_ape.pocket.passages import state
from lm_eval_ape.pocket.questions import Question, split_prompt
from lm_eval_ape.pocket.relations import Fact
from lm_eval_ape.pocket.world import split_of
from pocket_training.vocabulary import split_words


def draw_names(rng: random.Random, count: int, length: int) -> list[list[str]]:
    """Tuples of any entities, whatever their kinds, so that only the key tells the value."""
    names = [name for kind in ENTITY.values() for name in kind]
    while True:
        drawn = rng.sample(names, count * length)
        rows = [drawn[i : i + length] for i in range(0, len(drawn), length)]
        if all(split_of(*row[i : i + 2]) == "train" for row in rows for i in range(length - 1)):
            return rows


def cut_statement(fact: Fact, gap: int, rng: random.Random) -> str:
    """The key and the last words before the value in a statement, at most `gap`."""
    sentence = state(fact, rng)
    between = split_words(sentence[: sentence.rindex(fact.object)].split(fact.subject, 1)[1])
    return " ".join([fact.subject, *between[max(0, len(between) - _draw_gap(gap, rng)) :]])


def cut_question(question: Question, key: str, gap: int, rng: random.Random) -> str:
    """A question up to its key and the next words before the answer, at most `gap`."""
    stem = split_prompt(question.dataset)[1]
    before, after = stem.format(input=question.text).split(key, 1)
    return " ".join([before, key, *split_words(after)[: _draw_gap(gap, rng)]])


def _draw_gap(gap: int, rng: random.Random) -> int:
    return rng.randint(max(0, gap - 2), gap)
