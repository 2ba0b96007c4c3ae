"""The one exception that stands for a mistake a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ApeError(ValueError):
    """A wrong argument, file, prompt or model, reported in a sentence a user can act on.

    The command line prints the sentence alone and exits with status 2; from Python it is a `ValueError`.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``' Did you mean X?'`` for the closest of `known`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
