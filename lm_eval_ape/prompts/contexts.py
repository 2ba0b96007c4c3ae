"""Where a prompt's context stands: in a field of the document, in a list of it, or where a pattern finds it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from lm_eval_ape.prompts.chat import messages_of
from lm_eval_ape.settings.context_table import Entry

CONTEXT = "context"
# Words by which a field's name says that a task asks or answers with it, in any part: `question_stem`, `choices.text`,
# `option_a`, `mc_answer1`. `context_field` and tables can still name such fields.
_ASKING = frozenset(
    """
    answer answers candidate candidates choice choices completion distractor distractors ending endings explanation
    goal gold hypothesis input inputs instruction instructions label labels option options output outputs problem
    problems prompt qtext query question questions rationale response sol solution subject target targets
    """.split()
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_BREAK = re.compile(r"\s*\n\s*")


class Context(NamedTuple):
    """A context in a prompt's text, in characters.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        pieces: Where its pieces begin, but the first; none where only rules about text can say.
        where: What it is, in words.
        repeated: Whether it stands in the prompt more than once; this is the last time.
        whole: Whether pieces stay in one, whatever their text holds.
    """

    start: int
    end: int
    pieces: tuple[int, ...]
    where: str
    repeated: bool = False
    whole: bool = False

    def moved(self, characters: int) -> Context:
        """The context after so many characters were put before it."""
        pieces = tuple(piece + characters for piece in self.pieces)
        return self._replace(start=self.start + characters, end=self.end + characters, pieces=pieces)


def by_fields(text: str, doc: Any, names: Sequence[str]) -> Context | None:
    """The first of some named fields of the document that stands in the prompt.

    A field other than `context` that is a whole message, or the whole prompt, is passed over: the question must then be
    inside of it.

    Args:
        text: The prompt.
        doc: The task's document.
        names: Names of fields; `a.b` is the field `b` of `a`.
    """
    for name in names:
        found = _find(text, name, field_of(doc, name))
        if found and (name == CONTEXT or not fills_message(text, found)):
            return found
    return None


def by_pattern(text: str, pattern: re.Pattern[str], where: str) -> Context | None:
    """What a pattern's group `context` is in the last user message, or in a plain prompt; the last match counts.

    Args:
        text: The prompt.
        pattern: It has a group named `context`.
        where: What to call it.
    """
    users = [message for message in messages_of(text) if message.role == "user"]
    first, last = (users[-1].start, users[-1].end) if users else (0, len(text))
    # In a text of its own, so that ^ and \A are its beginning.
    matches = list(pattern.finditer(text[first:last]))
    if not matches or not matches[-1]["context"]:
        return None
    start, end = matches[-1].span("context")
    return Context(first + start, first + end, (), where, len(matches) > 1)


def by_entry(text: str, doc: Any, entry: Entry) -> Context | None:
    """What a table's entry says."""
    where = f"{entry.what} ({entry.table})"
    if entry.pattern is not None:
        return by_pattern(text, entry.pattern, where)
    found = by_fields(text, doc, entry.fields)
    return found and found._replace(where=f"{found.where} ({entry.table})")


def by_length(text: str, doc: Any) -> Context | None:
    """The longest field or list of the document that stands in the prompt with text after it.

    Fields that by their names hold questions or answers are left out.
    """
    longest: Context | None = None
    for name, value in _fields(doc):
        if _asks(name):
            continue
        found = _find(text, name, value)
        if found and follows(text, found) and (longest is None or _length(found) > _length(longest)):
            longest = found
    return longest


def follows(text: str, context: Context) -> bool:
    """Whether the prompt says anything after its context; what a chat template writes says nothing."""
    messages = messages_of(text)
    if not messages:
        return bool(text[context.end :].strip())
    return any(text[max(message.start, context.end) : message.end].strip() for message in messages)


def fills_message(text: str, context: Context) -> bool:
    """Whether a context is all that a message, or a plain prompt, says."""
    spans = [(message.start, message.end) for message in messages_of(text)] or [(0, len(text))]
    inside = [(first, last) for first, last in spans if first < context.end and context.start < last]
    return all(not (text[first : context.start] + text[context.end : last]).strip() for first, last in inside)


def field_of(doc: Any, name: str) -> Any:
    """A document's field; None where it has none of that name."""
    if not isinstance(doc, Mapping):
        return None
    if name in doc:
        return doc[name]
    outer, _, inner = name.partition(".")
    return field_of(doc.get(outer), inner) if inner else None


def strings(value: Any) -> Iterator[str]:
    """All strings in a value, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from strings(inner)


def _fields(doc: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of all fields that are text or lists."""
    if isinstance(doc, Mapping):
        for name, value in doc.items():
            if isinstance(value, (str, list, tuple)):
                yield f"{before}{name}", value
            else:
                yield from _fields(value, f"{before}{name}.")


def _asks(name: str) -> bool:
    """Whether a field's name says that it holds a question or answers; those of one letter hold choices."""
    words = {word.lower() for word in _WORD.findall(name)}
    return len(name.rpartition(".")[2]) == 1 or not words.isdisjoint(_ASKING)


def _length(context: Context) -> int:
    return context.end - context.start


def _find(text: str, name: str, value: Any) -> Context | None:
    if isinstance(value, str):
        for said in dict.fromkeys((value, value.strip())):
            # A template may strip the message that the context begins or ends.
            if said.strip() and (start := text.rfind(said)) >= 0:
                # The last occurrence is the one before the question; earlier ones belong to few-shot examples.
                return Context(start, start + len(said), (), f"field {name!r}", text.count(said) > 1)
    if isinstance(value, (list, tuple)):
        spans = _places(text, value)
        if spans:
            borders = tuple(_border(text, end, start) for (_, end), (start, _) in pairwise(spans))
            return Context(spans[0][0], spans[-1][1], borders, f"list {name!r}")
    return None


def _places(text: str, pieces: Sequence[Any]) -> list[tuple[int, int]]:
    """Where each piece of a list stands, looked for from the end; nothing where one is missing or out of order."""
    spans: list[tuple[int, int]] = []
    last = len(text)
    for piece in reversed(pieces):
        # A record's longest text is its passage; others are titles, numbers and the like.
        said = max((one.strip() for one in strings(piece)), key=len, default="")
        if not said:
            continue
        start = text.rfind(said, 0, last)
        if start < 0:
            return []
        spans.append((start, start + len(said)))
        last = start
    return spans[::-1]


def _border(text: str, end: int, start: int) -> int:
    """Where the next piece begins between two: after the first line break, so that a heading goes with its piece."""
    broken = _BREAK.search(text, end, start)
    return broken.end() if broken else start
