"""Where the few-shot examples of a prompt stand, each in one piece, and where its own question begins.

The harness puts examples into a prompt in one of three ways: as turns of a conversation, inside one message, or as
plain text. The template shows where turns begin. Inside a text the separator stands between examples, but perhaps
within them too. There the document says which words of the prompt are its own: what its task writes before them
(`Question: `) begins every example, and what it writes after them (`Answer:`) stands once in every example, before its
answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from lm_eval_ape.prompts.chat import Message, messages_of
from lm_eval_ape.prompts.contexts import Context, strings

_WHERE = "few-shot examples"
# Shorter texts of a document, such as the letter of an answer, may stand anywhere.
_SHORTEST = 3


def find_examples(text: str, doc: Any, separator: str) -> Context | None:
    """The examples as a context, each a piece of it.

    Args:
        text: The prompt.
        doc: The document of its own question.
        separator: What stands between examples.

    Returns:
        None where the prompt has no example.
    """
    users = [message for message in messages_of(text) if message.role == "user"]
    if len(users) > 1:
        return _turns(text, users)
    first, last = (users[0].start, users[0].end) if users else (0, len(text))
    starts = list(_starts(text, first, last, separator))
    words, after = _own_words(text, first, last, doc)
    if words is None:
        return Context(first, starts[-1], tuple(starts[:-1]), _WHERE, whole=True) if starts else None
    own, before = _own_start(text, first, starts, words, after)
    if own is None:
        return None
    starts = [start for start in starts if start < own]
    if before and any(text.startswith(before, start) for start in (first, *starts)):
        headed = [start for start in starts if text.startswith(before, start)]
        if not text.startswith(before, first) and (not after or after not in text[first : headed[0]]):
            # An introduction: an example would have been answered.
            first, *headed = headed
        starts = headed
    if after and after in text[first:own]:
        starts = _answered(text, first, starts, after)
    return Context(first, own, tuple(starts), _WHERE, whole=True)


def _turns(text: str, users: Sequence[Message]) -> Context:
    """Examples as turns: each from its user's header to the next one's."""
    opens = [message.opens for message in users]
    # Where the first turn's header is all that comes before, it is what examples can share.
    first = opens[0] if text[: opens[0]].strip() else users[0].start
    return Context(first, opens[-1], tuple(opens[1:-1]), _WHERE, whole=True)


def _own_words(text: str, first: int, last: int, doc: Any) -> tuple[int | None, str]:
    """Where the document's own texts begin at the end of the prompt, and the mark that is written after them.

    The longest of them is the question, or what it is about. Another one before it counts where it is no answer, and no
    answer stands between the two.

    Returns:
        None where the prompt has no text of the document; the mark is empty where nothing follows.
    """
    said = {one.strip() for one in strings(doc)}
    places = {one: text.rfind(one, first, last) for one in said if one}
    spans = sorted((place, place + len(one)) for one, place in places.items() if place >= 0)
    if not spans:
        return None, ""
    longest = max(spans, key=lambda span: span[1] - span[0])
    long = [span for span in spans if span[1] - span[0] >= _SHORTEST]
    lines = text[max(end for _, end in (longest, *long)) : last].split("\n")
    after = next((line.strip() for line in reversed(lines) if line.strip()), "")
    before = [start for start, end in long if start < longest[0] and after and after not in text[end : longest[0]]]
    asked = [start for start in before if not text[first:start].rstrip().endswith(after)]
    return min(asked, default=longest[0]), after


def _own_start(text: str, first: int, starts: Sequence[int], words: int, after: str) -> tuple[int | None, str]:
    """Where the prompt's own question begins, and what the task writes there before the document's texts.

    Args:
        text: The prompt.
        first: Where its examples may begin.
        starts: Where text begins after separators.
        words: Where the document's texts begin.
        after: What is written after them.

    Returns:
        None where no separator stands before the question.
    """
    before = [start for start in starts if start <= words]
    if not before:
        return None, ""
    own = before[-1]
    # What the task writes before the document may hold the separator itself: then an example begins with all of it.
    for start in before[-2::-1]:
        mark = text[start:words]
        if not after or after in mark:
            break
        if any(text.startswith(mark, other) for other in (first, *starts) if other < start):
            own = start
    return own, text[own:words] if text[own:words].strip() else ""


def _starts(text: str, first: int, last: int, separator: str) -> Iterator[int]:
    """Where text begins after each separator."""
    ends = [match.end() for match in re.finditer(re.escape(separator), text[first:last])]
    # A line break that ends an empty line separates nothing.
    for end, after in pairwise([*ends, last - first]):
        if text[first + end : first + after].strip():
            yield first + end


def _answered(text: str, first: int, starts: Sequence[int], after: str) -> list[int]:
    """Those starts before which a whole example has ended, which is one that says what stands before an answer."""
    found, begun = [], first
    for start in starts:
        if after in text[begun:start]:
            found.append(start)
            begun = start
    return found
