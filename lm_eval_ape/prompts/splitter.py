"""From a request's text to prefix, chunks and query: where the context stands, and its token ids cut at its borders.

The whole prompt is tokenised once, as the harness does it, and its ids are cut: every strategy, the sequential teacher
and the harness's own `hf` read the same ids.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

from lm_eval_ape.errors import ApeError
from lm_eval_ape.prompts.chunking import cut_text, cut_tokens, divide
from lm_eval_ape.prompts.contexts import CONTEXT, Context, by_entry, by_fields, by_length, by_pattern, field_of, follows
from lm_eval_ape.prompts.examples import find_examples
from lm_eval_ape.prompts.prompt import Prompt, Retrieval, Source, Tokenise
from lm_eval_ape.prompts.retrieval import best_chunks
from lm_eval_ape.prompts.tally import Tally
from lm_eval_ape.settings.context_table import AUTO, packaged_table, read_fields
from lm_eval_ape.settings.strategy import Settings


class Splitter:
    """Cuts requests by the settings and keeps count of everything out of the ordinary."""

    def __init__(self, tokenise: Tokenise, settings: Settings, max_length: int) -> None:
        self.tokenise = tokenise
        self.settings = settings
        self.max_length = max_length
        self.notes: Counter[str] = Counter()
        self.places: Counter[tuple[str, str]] = Counter()
        self._unread: Counter[str] = Counter()

    def split(self, text: str, source: Source, reserve: int) -> Prompt:
        """Cut one request.

        Args:
            text: The prompt as the harness would give it to any model.
            source: The request's task and document, which say where the context stands.
            reserve: Tokens that must still fit into the model's window after the prompt.

        Raises:
            ApeError: No context can be found and `no_context=error`, or the rest leaves no room for one token of it.
        """
        if not text:
            # How the harness asks for a continuation's unconditional likelihood.
            return self._whole(text, reserve)
        found = self._locate(text, source)
        if found is None:
            if self.settings.no_context == "error" and self.settings.parallel:
                raise ApeError(self._no_context(text, source))
            self._note("have no context and are read sequentially", self.settings.parallel)
            return self._whole(text, reserve)
        self.places[source.task, found.where] += 1
        self._note("hold their context more than once; the last is taken", found.repeated)
        unasked = found.where != f"field {CONTEXT!r}" and not follows(text, found)
        self._note("have no text after their context, so that a question in it is cut up with it", unasked)
        if self.settings.prefix and not text[: found.start].strip():
            text = text[: found.start] + self.settings.prefix + text[found.start :]
            found = found.moved(len(self.settings.prefix))
        start, end = found.start, found.end
        ids, offsets = self.tokenise(text)
        lost = bool(text[found.end :].strip()) and max(last for _, last in offsets) <= found.end
        self._note("lose all text after their context, which the tokenizer cuts off (truncation=True)", lost)
        starts = token_starts(offsets)
        last = len(ids) - 1
        first, after = (min(bisect_left(starts, char), last) for char in (start, end))
        room = self.max_length - first - (len(ids) - after) - reserve
        if room < 1:
            raise ApeError(
                f"{source}: the model's window of {self.max_length} tokens has no room for the context beside "
                f"{first} prefix tokens, {len(ids) - after} query tokens and {reserve} tokens to generate or score; "
                "raise max_length or lower max_gen_toks."
            )
        cuts = self._cuts(text, found, starts, first, after)
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

    def note_template(self) -> None:
        """Note that a prompt was put into the chat template elsewhere, so that its messages are not known."""
        self._note(
            "were put into the chat template by somebody else (--cache_requests keeps them so), whose text cannot be "
            "distinguished from theirs; use --cache_requests refresh",
            True,
        )

    def tally(self) -> Tally:
        """What was out of the ordinary since the last time."""
        tally = Tally(self.notes, self.places, self._unread)
        self.notes, self.places, self._unread = Counter(), Counter(), Counter()
        return tally

    def _note(self, note: str, concerns: bool) -> None:
        if concerns:
            self.notes[note] += 1

    def _locate(self, text: str, source: Source) -> Context | None:
        """The context by the settings: what is named, else what a table, the document or the prompt's shape says."""
        settings, doc = self.settings, source.doc
        if settings.context_pattern:
            return by_pattern(text, re.compile(settings.context_pattern), "context_pattern")
        if settings.context_field != AUTO:
            found = by_fields(text, doc, read_fields(settings.context_field))
        else:
            tables = [table for table in (settings.table, packaged_table()) if table]
            entry = next(filter(None, (table.entry(source.task) for table in tables)), None)
            if entry and (found := by_entry(text, doc, entry)):
                return found
            found = by_fields(text, doc, (CONTEXT,))
        if found is None and settings.chunking == "separator":
            found = find_examples(text, doc, settings.separator)
        if found is None and settings.context_field == AUTO:
            found = by_length(text, doc)
        return found

    def _no_context(self, text: str, source: Source) -> str:
        names = read_fields(self.settings.context_field)
        doc = source.doc
        name = next((name for name in names if field_of(doc, name) is not None), None)
        if self.settings.context_pattern:
            found = "context_pattern matches no text of it"
        elif name is not None and name != AUTO:
            found = f"its field {name!r} is {self._why_not(text, field_of(doc, name))}"
        elif isinstance(doc, Mapping) and CONTEXT in doc:
            found = f"its field {CONTEXT!r} is {self._why_not(text, doc[CONTEXT])}"
        else:
            asked = " or ".join(map(repr, [CONTEXT] if names == (AUTO,) else names))
            has = ", ".join(doc) if isinstance(doc, Mapping) else type(doc).__name__
            found = f"it has no field {asked} (it has: {has})"
        return (
            f"{source}: no context to encode in parallel was found in the prompt ({len(text)} characters): {found}. "
            "Name the field that holds it with context_field=..., find it in the prompt with context_pattern=... or a "
            "table (context_table=FILE), split few-shot prompts with chunking=separator, or let such prompts be read "
            "sequentially with no_context=sequential."
        )

    @staticmethod
    def _why_not(text: str, value: Any) -> str:
        """Why a field is no context."""
        if not value:
            return "empty"
        if isinstance(value, str):
            return "the whole prompt, the question with it" if value.strip() in text else "not part of the prompt"
        if isinstance(value, (list, tuple)):
            return "a list whose texts do not all stand in the prompt in their order"
        return f"no text and no list, but {type(value).__name__}"

    def _whole(self, text: str, reserve: int) -> Prompt:
        ids, _ = self.tokenise(text)
        dropped = max(0, len(ids) + reserve - self.max_length)
        self._note("lose their beginning, which the model's window cannot hold", bool(dropped))
        return Prompt((), (), tuple(ids[dropped:]), dropped)

    def _cuts(self, text: str, found: Context, starts: Sequence[int], first: int, after: int) -> list[int]:
        """Token indices at which pieces begin, and the end; no piece is empty."""
        settings = self.settings
        chars: Sequence[int] = ()
        if (settings.parallel or settings.retrieves) and settings.chunking != "tokens":
            chars = found.pieces
            if not found.whole and not (chars and settings.chunking == "passages"):
                cuts = cut_text(text[found.start : found.end], settings.chunking, settings.separator)
                chars = [found.start + char for char in cuts]
            self._note(f"show nothing to cut at with chunking={settings.chunking} and make one piece", not chars)
        inner = {bisect_left(starts, char) for char in chars}
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


def token_starts(offsets: Sequence[tuple[int, int]]) -> list[int]:
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
