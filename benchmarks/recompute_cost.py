"""What recomputation costs: time to first token against the sequential model's, chunks encoded or kept.

`counted` is the ratio that the count of operations gives, selector included, `reached` how much of it is measured: a
ratio as counted is 1. In a round the sequential model takes its turn beside everything else.

    python benchmarks/recompute_cost.py --tokens 4096 16384 --chunks 8
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from flags import parse, parser
from prefill import sequential
from timing import Clock, Spread, Table, finish, ratios
from transformers import PreTrainedModel
from workload import SHAPES, make_model, make_prompt, operations

from lm_eval_ape.encoding.kv_store.store import KVStore, StoreLimits, open_store
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.choices import SELECTORS
from lm_eval_ape.settings.strategy import Settings, resolve


@torch.no_grad()
def first_token(model: PreTrainedModel, prompt: Prompt, settings: Settings, store: KVStore | None) -> None:
    """Chunks encoded or found, some tokens recomputed, then the query up to the first new token's logits."""
    engine = Engine(model, settings, store=store)
    with engine.tail(engine.encode(prompt)) as tail:
        tail.read(prompt.query, keep=1)


def another_question(work: Callable[[Prompt], None], prompt: Prompt, vocabulary: int) -> Callable[[], None]:
    """Ask the same context something else each time."""
    asked = [0]

    def ask() -> None:
        asked[0] += 1
        work(replace(prompt, query=tuple((token + asked[0]) % vocabulary for token in prompt.query)))

    return ask


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__, tokens=[4096, 16384], chunks=8)
    flags.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.05, 0.15], help="(default: %(default)s)")
    flags.add_argument("--selectors", choices=SELECTORS, nargs="+", default=["query"], help="(default: %(default)s)")
    args = parse(flags)
    shape = SHAPES[args.shape]
    model = make_model(shape, args.device, args.dtype, max(args.tokens) + args.query + 1024)
    table = Table(
        f"Time to first token, {shape.words()}, {args.chunks} chunks, query {args.query}",
        "context tokens|recomputed|by|sequential s|s|of sequential|counted|reached|kept s|kept, of sequential".split(
            "|"
        ),
    )
    figures: list[dict[str, Any]] = []
    for tokens in args.tokens:
        prompt = make_prompt(shape, context=tokens, chunks=args.chunks, query=args.query)
        store = open_store(model, torch.device(args.device), StoreLimits(2**36, None, None), facts="")
        ways = [(share, by) for share in args.shares for by in (args.selectors if share else args.selectors[:1])]
        rivals: dict[str, Callable[[], None]] = {"sequential": partial(sequential, model, prompt)}
        for share, by in ways:
            settings = resolve({"strategy": "recompute", "recompute": share, "recompute_by": by})
            for name, kept in (("", None), (" kept", store)):
                work = partial(first_token, model, settings=settings, store=kept)
                rivals[f"{share} {by}{name}"] = another_question(work, prompt, shape.vocabulary)
        seconds = Clock(args.device, args.clock).in_turn(rivals, args.repeats)
        counts = operations(shape, tokens, args.chunks, args.query)
        for share, by in ways:
            own, kept_seconds = seconds[f"{share} {by}"], seconds[f"{share} {by} kept"]
            ratio = ratios(own, seconds["sequential"])
            counted = (counts.parallel + counts.recomputation(share, by)) / counts.sequential
            table.add(
                str(tokens),
                f"{share:.0%}",
                by if share else "-",
                Spread.of(seconds["sequential"]).text(),
                Spread.of(own).text(),
                ratio.text("{:.2f}"),
                f"{counted:.2f}",
                f"{counted / ratio.median:.2f}",
                Spread.of(kept_seconds).text(),
                ratios(kept_seconds, seconds["sequential"]).text("{:.3f}"),
            )
            figures.append(
                {"tokens": tokens, "share": share, "by": by, "counted": counted, "ratio": ratio}
                | {"seconds": own, "kept": kept_seconds, "sequential": seconds["sequential"]}
            )
    finish(args, [table], figures)


if __name__ == "__main__":
    main()
