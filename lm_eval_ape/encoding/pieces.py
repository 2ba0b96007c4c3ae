"""What is encoded in one go: a prompt's prefix and chunks as pieces, and which pieces pass and attend together."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from lm_eval_ape.encoding.positions import chunk_positions, query_start
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import Settings

# Tokens that one forward pass may hold: enough to keep a GPU busy, few enough to bound activations.
ENCODE_TOKENS = 8192
# Share of the pieces that attend together that may be padding, but on a CPU, where padding and the copies that it asks
# for take longer than more calls.
PADDING = 1 / 4


class Piece:
    """Tokens that are encoded in one go.

    Args:
        before: The shared prefix that they see; empty for none.
        ids: The tokens, at least one.
        positions: Their positions, `(tokens,)`.
    """

    def __init__(self, before: tuple[int, ...], ids: tuple[int, ...], positions: Tensor) -> None:
        self.before = before
        self.ids = ids
        self.positions = positions

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def key(self) -> str:
        """Digest of all that a model's keys and values for these tokens depend on."""
        digest = hashlib.sha256(f"{len(self.before)} {len(self.ids)} {self.positions.dtype} ".encode())
        for part in (self.before, self.ids, self.positions.tolist()):
            digest.update(array("d" if self.positions.is_floating_point() else "q", part))
        return digest.hexdigest()


class Plan(NamedTuple):
    """How a prompt becomes segments.

    Attributes:
        prefix: The shared prefix, or None where there is none.
        context: The pieces that hold the chunks; without a shared prefix the first one begins with the prefix.
        lead: How many tokens of the first piece are prefix.
        whole: Prefix and chunks in one sequence, for oracles that take their keys or values from it; else None.
        lengths: Tokens of each chunk.
        positions: Of the context's tokens as they are read, `(tokens,)`.
        encoded: Their positions as they are encoded, where chunks are moved afterwards; else None.
        query: Position of the query's first token.
    """

    prefix: Piece | None
    context: tuple[Piece, ...]
    lead: int
    whole: Piece | None
    lengths: tuple[int, ...]
    positions: Tensor
    encoded: Tensor | None
    query: int

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All of them: the prefix, if any, the chunks, and what oracles take theirs from."""
        return tuple(piece for piece in (self.prefix, *self.context, self.whole) if piece)

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for prompts that differ at most in their queries."""
        return (str(self.lead), *(piece.key for piece in self.pieces))


def plan(prompt: Prompt, settings: Settings) -> Plan:
    """Lay a prompt with at least one chunk out in pieces.

    A chunk attends to itself, causally, and to the prefix if that is shared. Without a shared prefix the prefix and
    the first chunk are one piece, as in the ordinary text, and later chunks stand alone; either way one chunk is
    exactly the sequential prompt.

    With `positions=serial` every chunk is encoded right after the prefix, as with `shared`, and moved from there to
    where it stands: what a chunk's keys and values are then depends on nothing but the prefix and itself.
    """
    lengths = tuple(map(len, prompt.chunks))
    start = len(prompt.prefix)
    moved = settings.positions == "serial"
    rows = chunk_positions(lengths, start, "shared" if moved else settings.positions)
    prefix, lead = None, 0
    if settings.shared_prefix:
        chunks = [Piece(prompt.prefix, ids, row) for ids, row in zip(prompt.chunks, rows, strict=True)]
        prefix = Piece((), prompt.prefix, torch.arange(start)) if start else None
    else:
        lead = start
        first = torch.cat([torch.arange(start).to(rows[0].dtype), rows[0]])
        ids = ((*prompt.prefix, *prompt.chunks[0]), *prompt.chunks[1:])
        chunks = [Piece((), chunk, row) for chunk, row in zip(ids, [first, *rows[1:]], strict=True)]
    places, mode, whole = torch.cat(rows), settings.positions, None
    positions = torch.cat(chunk_positions(lengths, start, mode)) if moved else places
    encoded = places if moved else None
    if "sequential" in (settings.keys_from, settings.values_from):
        everything = (*prompt.prefix, *chain.from_iterable(prompt.chunks))
        whole = Piece((), everything, torch.arange(len(everything)))
    if settings.keys_from == "sequential":
        # Positions go with the keys, which have been rotated by them.
        positions, mode, encoded = torch.arange(start, start + sum(lengths)), "serial", None
    query = query_start(lengths, start, mode)
    return Plan(prefix, tuple(chunks), lead, whole, lengths, positions, encoded, query)


def blocks(lengths: Sequence[int]) -> list[slice]:
    """Neighbours in as few blocks of at most `ENCODE_TOKENS` tokens as they fit in (or one longer alone).

    Of that many blocks, the largest is as small as can be, which bounds memory.

    Args:
        lengths: Tokens of each.
    """
    fewest = len(_filled(lengths, ENCODE_TOKENS))
    least = bisect_left(range(ENCODE_TOKENS), True, key=lambda limit: len(_filled(lengths, limit)) <= fewest)
    return _filled(lengths, least)


def _filled(lengths: Sequence[int], limit: int) -> list[slice]:
    """Neighbours in blocks, each filled up to the limit before the next one."""
    found = []
    first, tokens = 0, 0
    for number, length in enumerate(lengths):
        if number > first and tokens + length > limit:
            found.append(slice(first, number))
            first, tokens = number, 0
        tokens += length
    return [*found, slice(first, len(lengths))] if lengths else found


def passes(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Which pieces go through the model together, each once.

    Those that see no prefix come first, then those that see the same one beside one another, the longest first, in
    `blocks`.
    """
    distinct = {piece.key: piece for piece in pieces}
    ordered = sorted(distinct.values(), key=lambda piece: (piece.before, -len(piece)))
    return [ordered[part] for part in blocks(list(map(len, ordered)))]


def alike(pieces: Sequence[Piece], device: torch.device) -> Iterator[slice]:
    """Neighbours that see the same prefix and are of about the same length, on a CPU of the very same.

    Args:
        pieces: In order.
        device: Where they attend.
    """
    most = 0.0 if device.type == "cpu" else PADDING
    first, tokens = 0, 0
    for number, piece in enumerate(pieces):
        longest = max(map(len, pieces[first : number + 1]))
        padded = longest * (number + 1 - first)
        waste = padded - tokens - len(piece)
        if number > first and (piece.before != pieces[first].before or waste > most * padded):
            yield slice(first, number)
            first, tokens = number, 0
        tokens += len(piece)
    if pieces:
        yield slice(first, len(pieces))
