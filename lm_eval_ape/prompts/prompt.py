"""A request as prefix, chunks and query, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

Tokens = tuple[list[int], list[tuple[int, int]]]
"""Token ids with, for each, the (start, end) characters of the text that it covers."""
Tokenise = Callable[[str], Tokens]


class Retrieval(NamedTuple):
    """Which chunks a retriever left of a context.

    Attributes:
        kept: Numbers of the chunks that are read, ascending, from 0.
        chunks: How many chunks the whole context has.
    """

    kept: tuple[int, ...]
    chunks: int


@dataclass(frozen=True)
class Prompt:
    """A request as token ids.

    Attributes:
        prefix: What stands before the context.
        chunks: The context's pieces, none empty; no chunk at all for a prompt that is read sequentially.
        query: What stands after the context, at least one token.
        dropped: Tokens of the prompt that are left out, because the model's window cannot hold them or a retriever did
            not choose their chunks.
        retrieval: What a retriever chose, None without one.
    """

    prefix: tuple[int, ...]
    chunks: tuple[tuple[int, ...], ...]
    query: tuple[int, ...]
    dropped: int = 0
    retrieval: Retrieval | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """The prompt in one row, as the sequential teacher reads it."""
        return (*self.prefix, *chain.from_iterable(self.chunks), *self.query)


class Source(NamedTuple):
    """Where a request comes from.

    Attributes:
        task: The task's name.
        doc_id: The document's number in its task.
        doc: The task's document.
    """

    task: str
    doc_id: int
    doc: Any

    def __str__(self) -> str:
        return f"document {self.doc_id} of task {self.task}"
