"""Which tokens one forward pass reads: a pass whose tokens choose chunks together must hold no token of the future."""

from __future__ import annotations

from lm_eval_ape.attention.selection import Selection


def passes(tokens: int, query_tokens: int, selection: Selection | None) -> list[slice]:
    """Columns of each pass over a query and a known continuation, so that it is read as if it were generated.

    Args:
        tokens: Columns in all.
        query_tokens: How many of them, from the first, are the query.
        selection: How chunks are chosen; where tokens choose together, each one of the continuation reads alone.
    """
    if selection is None or not selection.whole_pass:
        return [slice(0, tokens)]
    return [slice(0, query_tokens), *(slice(column, column + 1) for column in range(query_tokens, tokens))]
