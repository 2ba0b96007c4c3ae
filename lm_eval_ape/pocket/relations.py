"""The kinds of facts, how they are stated and how they are asked for."""

from __future__ import annotations

from typing import Final, NamedTuple


class Relation(NamedTuple):
    """How a kind of fact is stated and asked: `{s}` is the subject, `{o}` the object.

    `role` names the object when another question goes through it ("the director of Nightfall").
    """

    subject: str
    object: str
    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    role: str = ""


_TEXTS: Final = (
    "The {s} was seen near the river.",
    "Many people talk about the {s}.",
    "There is one more {s} in the village.",
    "My friend likes the old {s}.",
)
RELATIONS: Final[dict[str, Relation]] = {
    "director": Relation(
        "film",
        "person",
        (
            "{s} was directed by {o}.",
            "{s} is a film directed by {o}.",
            "{s} is a film that was made by the director {o}.",
        ),
        ("Who directed {s}?", "Who is the director of {s}?"),
        "director",
    ),
    "setting": Relation(
        "film",
        "city",
        ("{s} is set in {o}.", "{s} tells a story that takes place in {o}."),
        ("Where is {s} set?", "Where does the story of {s} take place?"),
    ),
    "founder": Relation(
        "company",
        "person",
        (
            "{s} was founded by {o}.",
            "{s} is a company founded by {o}.",
            "{s} is a company that was started by the founder {o}.",
        ),
        ("Who founded {s}?", "Who is the founder of {s}?"),
        "founder",
    ),
    "seat": Relation(
        "company",
        "city",
        ("{s} is based in {o}.", "{s} has its main office in {o}."),
        ("Where is {s} based?", "Where is the main office of {s}?"),
    ),
    "birthplace": Relation(
        "person",
        "city",
        ("{s} was born in {o}.", "{s} was born in the city of {o}."),
        ("Where was {s} born?", "What is the place of birth of {s}?"),
    ),
    "job": Relation(
        "person",
        "job",
        ("{s} worked as a {o}.", "{s} earned a living as a {o}."),
        ("What was the job of {s}?", "What did {s} work as?"),
    ),
    "spouse": Relation(
        "person",
        "person",
        ("{s} was married to {o}.", "{s} was the spouse of {o}."),
        ("Who was married to {s}?", "Who was the spouse of {s}?"),
    ),
    "secret": Relation(
        "place",
        "code",
        ("The secret word of the {s} is {o}.", "Remember that the word of the {s} is {o}."),
        ("What is the secret word of the {s}?", "What is the word of the {s}?"),
    ),
    "label": Relation(
        "noun",
        "label",
        tuple(f"Text: {text}\nLabel: {{o}}" for text in _TEXTS),
        _TEXTS,
    ),
}
WORKS: Final = {"film": ("director", "setting"), "company": ("founder", "seat")}
PERSONAL: Final = ("birthplace", "job", "spouse")


class Fact(NamedTuple):
    """One relation between two entities."""

    subject: str
    relation: str
    object: str


class Chain(NamedTuple):
    """Two facts that share an entity, the bridge: `first.object == second.subject`."""

    first: Fact
    second: Fact
