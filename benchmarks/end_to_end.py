r"""End to end: prefill and generation of one request, sequential against parallel, with and without kept chunks.

    python benchmarks/end_to_end.py --device cuda --dtype bfloat16 --shape llama-3.1-8b \
        --tokens 131072 --chunks 32 --query 256 --new 256

is the setting of APE's headline (Yang et al., ICLR 2025: 4.5 times faster at 128K on one H100), and

    python benchmarks/end_to_end.py --shape 135m --tokens 400 800 1600 3200 --chunks 4 --prefix 24 --query 16 --new 6

that of short few-shot prompts.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from flags import parse, parser, positive
from timing import Clock, Spread, Table, finish, ratios
from transformers import PreTrainedModel
from workload import SHAPES, make_model, make_prompt

from lm_eval_ape.encoding.kv_store.store import KVStore, StoreLimits, open_store
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.generating import generating, whole_prompts
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import resolve


def sequential(model: PreTrainedModel, prompt: Prompt, new: int) -> None:
    """Generate from the whole prompt, as transformers does it."""
    ids = torch.tensor([prompt.ids], device=model.device)
    model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False)


def parallel(model: PreTrainedModel, prompt: Prompt, new: int, strategy: str, store: KVStore | None = None) -> None:
    """Chunks, encoded or found, and generation that reads them."""
    engine = Engine(model, resolve({"strategy": strategy}), store=store)
    ids, mask = (tensor.to(model.device) for tensor in whole_prompts([prompt], padding=0))
    with generating(engine, [prompt], [engine.encode(prompt)], mask) as arguments:
        model.generate(ids, **arguments, max_new_tokens=new, do_sample=False)


def main() -> None:
    flags = parser(__doc__, tokens=[8192], chunks=8, new=32)
    flags.add_argument("--prefix", type=positive, default=1, help="tokens of the prefix (default: %(default)s)")
    flags.add_argument("--strategy", default="ape", help="(default: %(default)s)")
    args = parse(flags)
    shape = SHAPES[args.shape]
    model = make_model(shape, args.device, args.dtype, max(args.tokens) + args.query + args.new + 1024)
    table = Table(
        f"End to end, {shape.words()}, {args.strategy}, {args.chunks} chunks, prefix {args.prefix}, query "
        f"{args.query}, {args.new} new tokens",
        [
            "context tokens",
            "sequential s",
            "parallel s",
            "kept chunks s",
            "times faster",
            "times faster with kept chunks",
        ],
    )
    figures: list[dict[str, Any]] = []
    for tokens in args.tokens:
        prompt = make_prompt(shape, context=tokens, chunks=args.chunks, query=args.query, prefix=args.prefix)
        device = torch.device(args.device)
        store = open_store(model, device, StoreLimits(2**40, None, None), facts="")
        rivals = {
            "sequential": partial(sequential, model, prompt, args.new),
            "parallel": partial(parallel, model, prompt, args.new, args.strategy),
            "kept": partial(parallel, model, prompt, args.new, args.strategy, store),
        }
        seconds = Clock(args.device, args.clock).in_turn(rivals, args.repeats)
        gains = {name: ratios(seconds["sequential"], seconds[name]) for name in ("parallel", "kept")}
        table.add(
            str(tokens),
            *(Spread.of(values).text() for values in seconds.values()),
            *(gain.text("{:.2f}") for gain in gains.values()),
        )
        figures.append({"tokens": tokens, "gains": gains, **seconds})
    finish(args, [table], figures)


if __name__ == "__main__":
    main()
