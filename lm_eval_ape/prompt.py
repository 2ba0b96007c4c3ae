"""From a request's text to prefix, chunks and query: where the context stands, and its token ids cut at its borders.

The whole prompt is tokenised once, as the harness does it, and its ids are cut: every strategy, the sequential teacher
and the harness's own `hf` read the same ids.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Any, NamedTuple

from lm_eval_ape.chunking import cut_text, cut_tokens, divide
from lm_eval_ape.errors import ApeError
from lm_eval_ape.retrieval import best_chunks
from lm_eval_ape.strategy import Settings

logger = logging.getLogger(__name__)

# Token ids with, for each, the (start, end) characters of the text that it covers.
Tokenise = Callable[[str], tuple[list[int], list[tuple[int, int]]]]


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


class Tally(NamedTuple):
    """What was out of the ordinary about some requests.

    Attributes:
        notes: By what it was, in words that follow "they", how many requests it concerns.
        unread: What a retriever dropped: `requests` that it read, their `chunks`, those `dropped`, and their `tokens`.
    """

    notes: Counter[str]
    unread: Counter[str]


def warn_of(tallies: Iterable[Tally], settings: Settings) -> None:
    """Warn once about each thing out of the ordinary, with how many requests it concerns."""
    notes, unread = Counter[str](), Counter[str]()
    for tally in tallies:
        notes.update(tally.notes)
        unread.update(tally.unread)
    for note, count in notes.items():
        logger.warning("%d request%s: they %s.", count, "" if count == 1 else "s", note)
    if unread["tokens"]:
        logger.warning(
            "retriever=%s with max_chunks=%d: of %d requests' %d chunks it dropped %d, with %d tokens.",
            settings.retriever,
            settings.max_chunks,
            *(unread[what] for what in ("requests", "chunks", "dropped", "tokens")),
        )


class Splitter:
    """Cuts requests by the settings and keeps count of everything out of the ordinary."""

    def __init__(self, tokenise: Tokenise, settings: Settings, max_length: int) -> None:
        self.tokenise = tokenise
        self.settings = settings
        self.max_length = max_length
        self.notes: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()

    def split(self, text: str, source: Source, reserve: int) -> Prompt:
        """Cut one request.

        Args:
            text: The prompt as the harness would give it to any model.
            source: The request's task and document, whose `context_field` is looked up in the text.
            reserve: Tokens that must still fit into the model's window after the prompt.

        Raises:
            ApeError: No context can be found and `no_context=error`, or the rest leaves no room for one token of it.
        """
        if not text:
            # How the harness asks for a continuation's unconditional likelihood.
            return self._whole(text, reserve)
        span = self._locate(text, source)
        if span is None:
            if self.settings.no_context == "error" and self.settings.parallel:
                raise ApeError(self._no_context(text, source))
            self._note("have no context and are read sequentially", self.settings.parallel)
            return self._whole(text, reserve)
        start, end = span
        if self.settings.prefix and not text[:start].strip():
            text = text[:start] + self.settings.prefix + text[start:]
            start, end = start + len(self.settings.prefix), end + len(self.settings.prefix)
        ids, offsets = self.tokenise(text)
        starts = _token_starts(offsets)
        last = len(ids) - 1
        first, after = (min(bisect_left(starts, char), last) for char in (start, end))
        room = self.max_length - first - (len(ids) - after) - reserve
        if room < 1:
            raise ApeError(
                f"{source}: the model's window of {self.max_length} tokens has no room for the context beside "
                f"{first} prefix tokens, {len(ids) - after} query tokens and {reserve} tokens to generate or score; "
                "raise max_length or lower max_gen_toks."
            )
        cuts = self._cuts(text[start:end], start, starts, first, after)
        prefix, context, query = tuple(ids[:first]), ids[first:after], tuple(ids[after:])
        lengths, retrieval = [b - a for a, b in pairwise(cuts)], None
        if self.settings.retrieves and context:
            lengths = cut_tokens(lengths, self.settings.chunk_tokens, None)
            retrieval = self._retrieve(text, starts[first : after + 1], lengths, end)
            context, lengths = _keep(context, lengths, retrieval.kept)
        unread, dropped = after - first - len(context), 0
        if self.settings.one_sequence:
            context, lengths, dropped = _drop_middle(context, lengths, room)
            self._note("lose the middle of their context, which the model's window cannot hold", bool(dropped))
        if not self.settings.parallel or not context:
            # Also where a neighbour's token covers all of the context's text, so that nothing is left to cut.
            return Prompt((), (), (*prefix, *context, *query), unread + dropped, retrieval)
        ends = accumulate(self._chunk(lengths, room))
        chunks = tuple(tuple(context[a:b]) for a, b in pairwise([0, *ends]))
        if self.settings.shared_prefix and not prefix:
            self._note("have no prefix to share: no text or BOS token stands before their context", True)
        return Prompt(prefix, chunks, query, unread + dropped, retrieval)

    def tally(self) -> Tally:
        """What was out of the ordinary since the last time."""
        tally = Tally(self.notes, self._unread)
        self.notes, self._unread = Counter(), Counter()
        return tally

    def _note(self, note: str, concerns: bool) -> None:
        if concerns:
            self.notes[note] += 1

    def _locate(self, text: str, source: Source) -> tuple[int, int] | None:
        """Characters of the context: the document's own text, else everything up to the last separator."""
        context = source.doc.get(self.settings.context_field) if isinstance(source.doc, Mapping) else None
        if isinstance(context, str):
            # A chat template may strip the message that the context begins or ends.
            for candidate in (context, context.strip()):
                if candidate and (start := text.rfind(candidate)) >= 0:
                    # The last occurrence is the one before the question; earlier ones belong to few-shot examples.
                    self._note("hold their context more than once; the last is taken", text.count(candidate) > 1)
                    return start, start + len(candidate)
        if self.settings.chunking == "separator":
            end = len(text.rstrip())
            start = text.rfind(self.settings.separator, 0, end)
            if start > 0:
                return 0, start + len(self.settings.separator)
        return None

    def _no_context(self, text: str, source: Source) -> str:
        field = self.settings.context_field
        if isinstance(source.doc, Mapping) and field in source.doc:
            found = f"its field {field!r} is {'empty' if not source.doc[field] else 'not part of the prompt'}"
        else:
            names = ", ".join(source.doc) if isinstance(source.doc, Mapping) else type(source.doc).__name__
            found = f"it has no field {field!r} (it has: {names})"
        return (
            f"{source}: no context to encode in parallel was found in the prompt ({len(text)} characters): {found}. "
            "Name the field that holds it with context_field=..., split few-shot prompts with chunking=separator, "
            "or let such prompts be read sequentially with no_context=sequential."
        )

    def _whole(self, text: str, reserve: int) -> Prompt:
        ids, _ = self.tokenise(text)
        dropped = max(0, len(ids) + reserve - self.max_length)
        self._note("lose their beginning, which the model's window cannot hold", bool(dropped))
        return Prompt((), (), tuple(ids[dropped:]), dropped)

    def _cuts(self, context: str, offset: int, starts: Sequence[int], first: int, after: int) -> list[int]:
        """Token indices at which pieces begin, and the end; no piece is empty."""
        settings = self.settings
        cut = settings.parallel or settings.retrieves
        chars = cut_text(context, settings.chunking, settings.separator) if cut else []
        self._note(
            f"show nothing to cut at with chunking={settings.chunking} and make one piece",
            cut and settings.chunking != "tokens" and not chars,
        )
        inner = {bisect_left(starts, offset + char) for char in chars}
        return sorted({first, after} | {cut for cut in inner if first < cut < after})

    def _retrieve(self, text: str, starts: Sequence[int], lengths: Sequence[int], end: int) -> Retrieval:
        """Choose chunks by what follows the context.

        Args:
            text: The whole prompt.
            starts: First character of each of the context's tokens, and of the query's first.
            lengths: Tokens of each chunk.
            end: Character at which the context ends.
        """
        borders = [max(0, starts[border]) for border in accumulate(lengths, initial=0)]
        kept = best_chunks([text[a:b] for a, b in pairwise(borders)], text[end:], self.settings.max_chunks or 1)
        self._note("have no text after their context to retrieve by: the first chunks are kept", not text[end:].strip())
        unread = [length for number, length in enumerate(lengths) if number not in set(kept)]
        self._unread.update(requests=1, chunks=len(lengths), dropped=len(unread), tokens=sum(unread))
        return Retrieval(tuple(kept), len(lengths))

    def _chunk(self, lengths: list[int], room: int) -> list[int]:
        settings = self.settings
        if settings.chunks is not None:
            chunks = divide(lengths, settings.chunks, whole=settings.chunking != "tokens")
            pieces = "tokens" if settings.chunking == "tokens" else "pieces"
            self._note(f"have fewer {pieces} than chunks={settings.chunks}", len(chunks) < settings.chunks)
        else:
            chunks = cut_tokens(lengths, settings.chunk_tokens, settings.max_chunks)
        if max(chunks, default=0) > room and not settings.one_sequence:
            self._note("have chunks that the model's window cannot hold, which are cut again", True)
            chunks = cut_tokens(chunks, room, None)
        return chunks


def _token_starts(offsets: Sequence[tuple[int, int]]) -> list[int]:
    """First character of each token, never falling; tokens without text (BOS) stand before or with their neighbour."""
    leading = next((index for index, (start, end) in enumerate(offsets) if end > start), len(offsets))
    starts = [-1] * leading + [start for start, _ in offsets[leading:]]
    return list(accumulate(starts, max))


def _keep(context: list[int], lengths: Sequence[int], kept: Sequence[int]) -> tuple[list[int], list[int]]:
    """Token ids and lengths of some chunks of a context, in its order."""
    ends = list(accumulate(lengths))
    chunks = [context[ends[number] - lengths[number] : ends[number]] for number in kept]
    return list(chain.from_iterable(chunks)), [len(chunk) for chunk in chunks]


def _drop_middle(context: list[int], lengths: list[int], room: int) -> tuple[list[int], list[int], int]:
    """Cut the middle out of a context that is too long, as LongBench's official code does, pieces shrinking with it."""
    dropped = len(context) - room
    if dropped <= 0:
        return context, lengths, 0
    head = -(-room // 2)
    ends = [min(end, head) + max(0, end - head - dropped) for end in accumulate(lengths)]
    kept = [end - start for start, end in pairwise([0, *ends]) if end > start]
    return context[:head] + context[head + dropped :], kept, dropped
