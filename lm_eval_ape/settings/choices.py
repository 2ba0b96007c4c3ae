"""What some settings and options can be, for those who check them and for those who do it."""

from typing import Literal, get_args

Chunking = Literal["tokens", "passages", "separator"]
Retriever = Literal["none", "bm25"]
Positions = Literal["shared", "stretched", "serial"]
Selector = Literal["query", "deviation", "first", "random"]
Pass = Literal["parallel", "sequential"]
NoContext = Literal["error", "sequential"]

POSITIONS: tuple[Positions, ...] = get_args(Positions)
SELECTORS: tuple[Selector, ...] = get_args(Selector)
