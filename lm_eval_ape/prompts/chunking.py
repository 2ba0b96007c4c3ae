"""Where a context is cut into chunks.

Rules cut text or token ids; nothing is dropped here. A piece keeps whatever separates it from the next one, so the
chunks in order are the context.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise

# Headings of LongBench's contexts, alone at the start of a line: `Passage 1:`, `Paragraph 12:`, `段落3：`, `文章2`.
HEADING = re.compile(r"^(?:(?:Passage|Paragraph|Document)\s+\d+\s*:|(?:段落|文章)\s*\d+)", re.MULTILINE)


def cut_text(context: str, chunking: str, separator: str) -> list[int]:
    """Find where pieces of a context start, by its text.

    Args:
        context: The context, not empty.
        chunking: `passages` cuts before each heading (`HEADING`); `separator` after each separator; `tokens` nowhere.
        separator: The separator's text, not empty for `separator`.

    Returns:
        Starts of all pieces but the first, as character offsets into the context, ascending. Text before the first
        heading belongs to the first piece.
    """
    if chunking == "passages":
        return [match.start() for match in HEADING.finditer(context)][1:]
    if chunking == "separator":
        starts = [match.end() for match in re.finditer(re.escape(separator), context)]
        return [start for start in starts if start < len(context)]
    return []


def cut_tokens(lengths: Sequence[int], longest: int | None, most: int | None) -> list[int]:
    """Turn pieces into chunks: cut what is too long, then join what is too many.

    Args:
        lengths: Tokens of each piece, in order, each at least 1.
        longest: A longer piece is cut after every `longest` tokens; None leaves pieces whole.
        most: Most chunks. Neighbours are joined into chunks of about equally many tokens, even where that makes them
            longer than `longest`: no text is dropped. None for no limit.

    Returns:
        Tokens of each chunk; their sum is the pieces' sum.
    """
    if longest is not None:
        lengths = [part for length in lengths for part in _cut(length, longest)]
    return _join(lengths, most) if most is not None and len(lengths) > most else list(lengths)


def divide(lengths: Sequence[int], chunks: int, *, whole: bool) -> list[int]:
    """Turn pieces into a given number of chunks, as Zhang et al. (2024) divide a context among P encoders.

    Args:
        lengths: Tokens of each piece, in order, each at least 1.
        chunks: P, the number of chunks.
        whole: Whether pieces stay whole: chunks are then groups of neighbours with about equally many tokens. Else the
            lengths of chunks differ by at most one token, the longer ones first.

    Returns:
        Tokens of each chunk; their sum is the pieces' sum. Fewer than P where there are fewer pieces (or tokens).
    """
    if whole:
        return _join(lengths, chunks) if len(lengths) > chunks else list(lengths)
    total = sum(lengths)
    count = min(chunks, total)
    least, longer = divmod(total, count)
    return [least + 1] * longer + [least] * (count - longer)


def _cut(length: int, longest: int) -> list[int]:
    whole, rest = divmod(length, longest)
    return [longest] * whole + ([rest] if rest else [])


def _join(lengths: Sequence[int], most: int) -> list[int]:
    """Join neighbours into `most` groups, each ending at the piece border nearest to its even share."""
    ends = list(accumulate(lengths))
    borders = [0]
    piece = -1
    for group in range(1, most):
        share = ends[-1] * group / most
        # Leave at least one piece for this group and for each that follows.
        candidates = range(piece + 1, len(lengths) - (most - group))
        piece = min(candidates, key=lambda index: abs(ends[index] - share))
        borders.append(ends[piece])
    return [end - start for start, end in pairwise([*borders, ends[-1]])]
