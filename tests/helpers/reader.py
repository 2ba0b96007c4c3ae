"""A reader of pocket contexts that shares nothing with the generator: it parses the text."""

from __future__ import annotations

import re

_STATEMENTS = {
    "maker": (
        r"(\w+) (?:was|is a film|is a company) (?:directed|founded) by (\w+)",
        r"(\w+) is a film that was made by the director (\w+)",
        r"(\w+) is a company that was started by the founder (\w+)",
    ),
    "where": (
        r"(\w+) is (?:set|based) in (\w+)",
        r"(\w+) tells a story that takes place in (\w+)",
        r"(\w+) has its main office in (\w+)",
    ),
    "born": (r"(\w+) was born in (?:the city of )?(\w+)",),
    "job": (r"(\w+) (?:worked|earned a living) as a (\w+)",),
    "spouse": (r"(\w+) was (?:married to|the spouse of) (\w+)",),
    "secret": (r"(?:The secret|Remember that the) word of the (\w+) is (\w+)",),
}
# In the order in which they are tried: a two-hop question also names its second fact's relation.
_QUESTIONS = (
    ("born", r"born\?|place of birth"),
    ("job", r"job of|work as"),
    ("spouse", r"married to|spouse of"),
    ("secret", r"word of the"),
    ("where", r"\bset\?|take place|based\?|main office"),
    ("maker", r"directed|founded|is the (?:director|founder)"),
)


def passages(context: str) -> list[tuple[int, str, list[str]]]:
    """(number, title, sentences) of each passage."""
    found = re.findall(r"Passage (\d+):\n(\w+)\n(.+)", context)
    return [(int(number), title, re.findall(r"[^.]+", body)) for number, title, body in found]


def statements(context: str) -> list[tuple[str, str, str]]:
    """(subject, relation, object) of each fact that the text states."""
    return [
        (match[1], relation, match[2])
        for _, _, sentences in passages(context)
        for sentence in sentences
        for relation, patterns in _STATEMENTS.items()
        for pattern in patterns
        if (match := re.fullmatch(pattern, sentence.strip()))
    ]


def derive(question: str, context: str) -> list[str]:
    """Every answer that the context supports."""
    facts = statements(context)
    relation = next(name for name, pattern in _QUESTIONS if re.search(pattern, question))
    through = re.search(r"the (?:director|founder) of (\w+)", question)
    if through and relation != "maker":
        subjects = [o for s, r, o in facts if (s, r) == (through[1], "maker")]
    else:
        subjects = [word for word in re.findall(r"\w+", question) if word in {f[0] for f in facts}]
    return [o for s, r, o in facts if s in subjects and r == relation]
