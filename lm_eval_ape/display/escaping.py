"""Text of models, data sets and files where it is shown, so that it is read as text: terminal, Markdown, CSV.

The report's HTML is escaped by Jinja.
"""

from __future__ import annotations

import re
from typing import Any

# Control characters (an escape sequence can rewrite a terminal) and those that turn the direction of text, but no tab
# and no line feed.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# What begins a construct in the middle of a line of Markdown; a closing bracket where it would make a link.
_MARKDOWN = re.compile(r"[\\`*|<>]|&(?=#?\w+;)|\](?=[(\[:])|(?<!\w)_|_(?!\w)")
_BLANK = re.compile(r"\s*[\r\n]\s*")
_FORMULA = ("=", "+", "-", "@", "\t")


def terminal(text: str) -> str:
    """Text with control characters written out, an escape sequence's first one as `x1b` after a backslash."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """The same on one line."""
    return terminal(_BLANK.sub(" ", text))


def markdown(text: str) -> str:
    """Text for a line or a cell of Markdown: no markup, no HTML, no further cell or line."""
    return _MARKDOWN.sub(
        lambda found: "\\" + found[0] if found[0] not in "<>&" else _ENTITIES[found[0]], one_line(text)
    )


def code(text: str) -> str:
    """Text as a code span of Markdown, also in a table."""
    line = one_line(text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def csv_cell(value: Any) -> Any:
    """A value for a CSV: text without control characters, and with an apostrophe where a spreadsheet would run it."""
    if not isinstance(value, str):
        return value
    text = terminal(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
