"""The second question on a document: time to first token with its chunks kept, against encoding them.

    python benchmarks/stored_chunks.py --tokens 4096 8192 --chunks 4

Another question each time. `memory` finds the chunks where the model left them, `disk` reads and checks their files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from flags import parse, parser
from peaks import MIB
from prefill import parallel
from timing import Clock, Spread, Table, finish, ratios
from workload import SHAPES, make_model, make_prompt

from lm_eval_ape.encoding.kv_store.store import KVStore, StoreLimits, open_store
from lm_eval_ape.prompts.prompt import Prompt


def main() -> None:
    args = parse(parser(__doc__, tokens=[4096, 8192]))
    shape = SHAPES[args.shape]
    model = make_model(shape, args.device, args.dtype, max(args.tokens) + args.query + 1024)
    table = Table(
        f"Time to first token, {shape.words()}, {args.chunks} chunks, query {args.query}",
        [
            "context tokens",
            "encoding s",
            "memory s",
            "disk s",
            "memory, times faster",
            "disk, times faster",
            "MiB kept",
        ],
    )
    figures: list[dict[str, Any]] = []
    for tokens in args.tokens:
        prompt = make_prompt(shape, context=tokens, chunks=args.chunks, query=args.query)
        with tempfile.TemporaryDirectory() as folder:
            device = torch.device(args.device)
            stores = {
                "memory": open_store(model, device, StoreLimits(2**36, None, None), facts=""),
                "disk": open_store(model, device, StoreLimits(0, Path(folder), None), facts=""),
            }
            for store in stores.values():
                parallel(model, prompt, store)
            asked = [0]

            def question(
                store: KVStore | None, prompt: Prompt = prompt, asked: list[int] = asked
            ) -> Callable[[], None]:
                def ask() -> None:
                    asked[0] += 1
                    query = tuple((token + asked[0]) % shape.vocabulary for token in prompt.query)
                    parallel(model, replace(prompt, query=query), store)

                return ask

            rivals = {"encoding": question(None), **{name: question(store) for name, store in stores.items()}}
            seconds = Clock(args.device, args.clock).in_turn(rivals, args.repeats)
            kept = stores["memory"].record()["memory_bytes"] / MIB if stores["memory"] else 0.0
        gains = {name: ratios(seconds["encoding"], seconds[name]) for name in stores}
        table.add(
            str(tokens),
            *(Spread.of(values).text() for values in seconds.values()),
            *(gain.text("{:.1f}") for gain in gains.values()),
            f"{kept:.0f}",
        )
        figures.append({"tokens": tokens, "gains": gains, "mib": kept, **seconds})
    finish(args, [table], figures)


if __name__ == "__main__":
    main()
