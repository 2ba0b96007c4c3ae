"""The facts of the pocket world, and which pairs of entities belong to which split.

Every pair (subject, object) belongs to exactly one split, found by a hash of the two words. A world
of a split states facts of that split's pairs alone, so a fact that was read in training is never
stated in a calibration or a test row, nor any chain of facts that contains it.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, get_args

from .names import ENTITY, TOPIC_OF
from .relations import PERSONAL, RELATIONS, WORKS, Chain, Fact

Split = Literal["train", "calibration", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)


@dataclass(frozen=True)
class World:
    """What is true in one context.

    Attributes:
        passages: the facts of each passage; all facts of a passage have the same subject.
        secrets: needles, to be hidden in any passage.
    """

    passages: tuple[tuple[Fact, ...], ...]
    secrets: tuple[Fact, ...]

    @property
    def facts(self) -> list[Fact]:
        """All facts about works and people, passage by passage."""
        return [fact for passage in self.passages for fact in passage]

    @property
    def chains(self) -> list[Chain]:
        """All pairs of facts joined by a bridge."""
        about: dict[str, list[Fact]] = {}
        for fact in self.facts:
            about.setdefault(fact.subject, []).append(fact)
        return [
            Chain(first, second)
            for first in self.facts
            if RELATIONS[first.relation].role
            for second in about.get(first.object, ())
        ]


@cache
def split_of(subject: str, obj: str) -> Split:
    """The one split in which the pair may be stated: 80% train, 10% calibration, 10% test.

    The nouns of a topic have their topic's splits.
    """
    digest = hashlib.blake2b(f"{TOPIC_OF.get(subject, subject)}|{obj}".encode(), digest_size=4).digest()
    tenth = int.from_bytes(digest, "big") % 10
    return "train" if tenth < 8 else "calibration" if tenth == 8 else "test"


@cache
def objects_of(subject: str, kind: str, split: Split) -> tuple[str, ...]:
    """The entities of `kind` that may be stated of `subject` in `split`."""
    return tuple(obj for obj in ENTITY[kind] if obj != subject and split_of(subject, obj) == split)


def sample_world(rng: random.Random, split: Split, *, passages: int, facts: int, secrets: int = 0) -> World:
    """Draw a world: half of its passages are about works, half about the people behind them.

    Args:
        rng: the source of all choices.
        split: whose pairs of entities may be stated.
        passages: number of passages, each about one subject.
        facts: most facts a passage states (a work has at most 2, a person at most 3).
        secrets: number of needles.

    Raises:
        ValueError: for fewer than two passages, or more than the world has names for.
    """
    if not 2 <= passages <= 60:
        raise ValueError(f"passages is {passages}, but a world has 2 to 60 of them: give a number in that range.")
    while True:
        world = _try_world(rng, split, passages, facts, secrets)
        if world is not None:
            return world


def _try_world(rng: random.Random, split: Split, passages: int, facts: int, secrets: int) -> World | None:
    """One draw; None where a subject has no free object left in the split."""
    used: set[str] = set()

    def take(kind: str, subject: str = "") -> str | None:
        names = objects_of(subject, kind, split) if subject else ENTITY[kind]
        free = [name for name in names if name not in used]
        if not free:
            return None
        name = rng.choice(free)
        # Two people may share a city or a job, but each name has one role.
        if kind not in ("city", "job"):
            used.add(name)
        return name

    pages: list[tuple[Fact, ...]] = []
    people: list[str] = []
    for _ in range(passages // 2):
        kind = rng.choice(("film", "film", "company"))
        work = take(kind)
        maker = take("person", work) if work else None
        if work is None or maker is None:
            return None
        people.append(maker)
        role, place = WORKS[kind]
        page = [Fact(work, role, maker)]
        if facts > 1:
            city = take("city", work)
            if city is None:
                return None
            page.append(Fact(work, place, city))
        pages.append(tuple(page))
    while len(people) < passages - passages // 2:
        person = take("person")
        if person is None:
            return None
        people.append(person)
    rng.shuffle(people)
    for person in people:
        page = []
        for relation in rng.sample(PERSONAL, min(facts, len(PERSONAL))):
            obj = take(RELATIONS[relation].object, person)
            if obj is None:
                return None
            page.append(Fact(person, relation, obj))
        pages.append(tuple(page))
    needles = []
    for _ in range(secrets):
        place_name = take("place")
        code = take("code", place_name) if place_name else None
        if place_name is None or code is None:
            return None
        needles.append(Fact(place_name, "secret", code))
    _order(pages, rng)
    return World(tuple(pages), tuple(needles))


def _order(pages: list[tuple[Fact, ...]], rng: random.Random) -> None:
    """Shuffle, but tell of a person before a work refers to them."""
    rng.shuffle(pages)
    place = {page[0].subject: i for i, page in enumerate(pages)}
    for i in range(len(pages)):
        maker = place.get(pages[i][0].object, i)
        if RELATIONS[pages[i][0].relation].role and maker > i:
            pages[i], pages[maker] = pages[maker], pages[i]
