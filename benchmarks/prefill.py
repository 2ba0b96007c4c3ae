"""Prefill: the whole prompt in one sequence against chunks in parallel and then the query, up to the first logits.

Prints seconds, the speed-up with its spread over rounds, the speed-up that the count of operations allows, the fraction
of it that is reached, and the most memory that the process with its model needs. In a round the sequential model takes
its turn beside all numbers of chunks. With few tokens the machine does not keep its speed, so that a fraction above 1
is as possible as one below.

    python benchmarks/prefill.py --tokens 2048 4096 8192 --chunks 2 4 8
    python benchmarks/prefill.py --device cuda --dtype bfloat16 --shape llama-3.1-8b --tokens 8192 32768 131072
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from flags import parse, parser
from peaks import peak
from timing import Clock, Spread, Table, finish, ratios
from transformers import DynamicCache, PreTrainedModel
from workload import SHAPES, make_model, make_prompt, operations

from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.encoding.kv_store.store import KVStore
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import resolve


@torch.no_grad()
def sequential(model: PreTrainedModel, prompt: Prompt) -> None:
    """The ordinary model up to the first new token's logits."""
    ids = torch.tensor([prompt.ids], device=model.device)
    model(ids, logits_to_keep=1, **cache_argument(model, DynamicCache()))


@torch.no_grad()
def parallel(model: PreTrainedModel, prompt: Prompt, store: KVStore | None = None) -> None:
    """Prefix and chunks, encoded or found, then the query up to the first new token's logits."""
    engine = Engine(model, resolve({"strategy": "ape"}), store=store)
    with engine.tail(engine.encode(prompt)) as tail:
        tail.read(prompt.query, keep=1)


def main() -> None:
    args = parse(parser(__doc__, tokens=[2048, 4096, 8192], chunks=[2, 4, 8, 20]))
    shape = SHAPES[args.shape]
    model = make_model(shape, args.device, args.dtype, max(args.tokens) + args.query + 1024)
    table = Table(
        f"Prefill, {shape.words()}, query {args.query}",
        "context tokens|chunks|sequential s|parallel s|speed-up|counted|reached|sequential MiB|parallel MiB".split("|"),
    )
    figures: list[dict[str, Any]] = []
    for tokens in args.tokens:
        prompts = {count: make_prompt(shape, context=tokens, chunks=count, query=args.query) for count in args.chunks}
        rivals: dict[str, Callable[[], None]] = {"sequential": partial(sequential, model, prompts[args.chunks[0]])}
        rivals |= {str(count): partial(parallel, model, prompt) for count, prompt in prompts.items()}
        seconds = Clock(args.device, args.clock).in_turn(rivals, args.repeats)
        memory = {name: peak(work, args.device) for name, work in rivals.items()}
        for count in args.chunks:
            counts = operations(shape, tokens, count, args.query)
            counted = counts.sequential / counts.parallel
            gain = ratios(seconds["sequential"], seconds[str(count)])
            table.add(
                str(tokens),
                str(count),
                Spread.of(seconds["sequential"]).text(),
                Spread.of(seconds[str(count)]).text(),
                gain.text("{:.2f}"),
                f"{counted:.2f}",
                f"{gain.median / counted:.2f}",
                f"{memory['sequential']:.0f}",
                f"{memory[str(count)]:.0f}",
            )
            own = {name: {"seconds": seconds[name], "mib": memory[name]} for name in ("sequential", str(count))}
            figures.append({"tokens": tokens, "chunks": count, "counted": counted, "speedup": gain} | own)
    finish(args, [table], figures)


if __name__ == "__main__":
    main()
