"""A world as English-looking text: numbered passages with a title, facts and filler."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from .relations import RELATIONS, Fact
from .world import World

_ADJECTIVES: Final = tuple(
    "bright broad calm cold dark deep dry gentle grey heavy late long loud narrow pale plain "
    "quiet rough sharp short slow small smooth soft steep tall warm wide young".split()
)
_NOUNS: Final = tuple(
    "autumn beach bird boat cloud coast corner country crowd evening field forest friend hill "
    "horse house island lake letter morning mountain neighbour path river road sea season ship "
    "street summer sun tree valley village wall wind window winter".split()
)
_FILLERS: Final = (
    "The {a} {n} is near the {m}.",
    "In the {n} the {m} was {a} and {b}.",
    "Many people like the {a} {n} and the {b} {m}.",
    "Every {n} has a {a} {m}.",
    "It was a {a} {n}, and the {m} was {b}.",
    "There is a {a} {n} behind the {b} {m}.",
)


def state(fact: Fact, rng: random.Random) -> str:
    """One sentence that states the fact, in one of its wordings."""
    sentence = rng.choice(RELATIONS[fact.relation].sentences)
    return sentence.format(s=fact.subject, o=fact.object)


def filler(rng: random.Random) -> str:
    """One sentence that names no entity."""
    (a, b), (n, m) = rng.sample(_ADJECTIVES, 2), rng.sample(_NOUNS, 2)
    return rng.choice(_FILLERS).format(a=a, b=b, n=n, m=m)


def write_context(world: World, rng: random.Random, fillers: Sequence[int]) -> str:
    r"""The world's passages, each under its heading and title, joined by an empty line.

    Args:
        world: whose facts to state; each secret goes to a passage of its own choice.
        rng: chooses wordings, the order of sentences and the filler.
        fillers: number of filler sentences of each passage.

    Returns:
        The context in LongBench's form: ``Passage 1:\nTitle\nSentences.\n\nPassage 2:...``.
    """
    pages = [[state(fact, rng) for fact in page] for page in world.passages]
    for page, count in zip(pages, fillers, strict=True):
        page.extend(filler(rng) for _ in range(count))
    for secret in world.secrets:
        rng.choice(pages).append(state(secret, rng))
    for page in pages:
        rng.shuffle(page)
    return "\n\n".join(
        f"Passage {number}:\n{facts[0].subject}\n{' '.join(page)}"
        for number, (facts, page) in enumerate(zip(world.passages, pages, strict=True), start=1)
    )


def texts() -> list[str]:
    """Text in which every word that a passage can use occurs."""
    sentences = [sentence for relation in RELATIONS.values() for sentence in relation.sentences]
    numbers = " ".join(str(number) for number in range(1, 61))
    return [*sentences, *_FILLERS, *_ADJECTIVES, *_NOUNS, f"Passage: {numbers}"]
