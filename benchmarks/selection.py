"""Selective attention: seconds a generated token when each one chooses its chunks, and when the query's choice stays.

    python benchmarks/selection.py --tokens 8192 --chunks 16

All read the same encoded chunks; `sink` reads all of them, `reselect` chooses the best two anew for each token, `kept`
(reselect=False) reads the two that the query chose. The query's own pass is not counted.
"""

from __future__ import annotations

from typing import Any

import torch
from decode import generate
from flags import parse, parser
from timing import Clock, Spread, Table, finish, ratios
from workload import SHAPES, make_model, make_prompt

from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.selection import Selection
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.settings.strategy import resolve

RIVALS = {"sink": None, "reselect": Selection(2, "HT"), "kept": Selection(2, "HT", reselect=False)}


def main() -> None:
    args = parse(parser(__doc__, repeats=5, tokens=[4096, 8192], chunks=16, new=16))
    shape = SHAPES[args.shape]
    clock = Clock(args.device, args.clock)
    model = make_model(shape, args.device, args.dtype, max(args.tokens) + args.query + args.new + 1024)
    table = Table(
        f"Selective attention, {shape.words()}, the best 2 of {args.chunks} chunks, {args.new} new tokens",
        ["context tokens", *(f"{name} ms a token" for name in RIVALS), "reselect / sink", "kept / sink"],
    )
    figures: list[dict[str, Any]] = []
    for tokens in args.tokens:
        prompt = make_prompt(shape, context=tokens, chunks=args.chunks, query=args.query)
        engine = Engine(model, resolve({"strategy": "sink"}))
        encoded = engine.encode(prompt)
        ids = torch.tensor([prompt.query], device=model.device)
        positions = torch.arange(encoded.start, encoded.start + ids.shape[1], device=model.device)[None]
        seconds: dict[str, list[float]] = {name: [] for name in RIVALS}
        for turn in range(args.repeats + 1):
            for name, selection in RIVALS.items():
                with engine.tail(encoded, selection=selection) as tail:
                    spent = generate(
                        model, ids, args.new, clock, position_ids=positions, **cache_argument(None, tail.cache)
                    )
                if turn:
                    seconds[name].append(spent)
        against = {name: ratios(seconds[name], seconds["sink"]) for name in ("reselect", "kept")}
        cells = [Spread.of([1e3 * value for value in values]).text("{:.1f}") for values in seconds.values()]
        table.add(str(tokens), *cells, *(ratio.text("{:.2f}") for ratio in against.values()))
        figures.append({"tokens": tokens, **{f"{name}_ratio": ratio for name, ratio in against.items()}, **seconds})
    finish(args, [table], figures)


if __name__ == "__main__":
    main()
