"""Decoding: seconds a token of transformers' own `generate` with sdpa attention, against reading chunks.

Both have read the same prompt; the time is between one new token's logits and the next one's, inside `generate`, so
that prefill does not count.

    python benchmarks/decode.py --tokens 4096 8192 --chunks 4
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from flags import parse, parser
from timing import Clock, Spread, Table, finish, ratios
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, PreTrainedModel
from workload import SHAPES, make_model, make_prompt

from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import resolve


class Ticks(LogitsProcessor):
    """Notes when each token's logits are there."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.times.append(self.clock.now())
        return scores

    @property
    def seconds(self) -> float:
        """Of a token, in the median over tokens."""
        return Spread.of([b - a for a, b in zip(self.times, self.times[1:], strict=False)]).median


def generate(model: PreTrainedModel, ids: Tensor, new: int, clock: Clock, **options: Any) -> float:
    """Seconds a token of greedy generation."""
    ticks = Ticks(clock)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        do_sample=False,
        logits_processor=LogitsProcessorList([ticks]),
        **options,
    )
    return ticks.seconds


@torch.no_grad()
def sequential_reader(model: PreTrainedModel, prompt: Prompt, new: int, clock: Clock) -> Callable[[], float]:
    """Ordinary generation after a prompt whose prefix and context are in the cache."""
    ids = torch.tensor([prompt.ids], device=model.device)
    before = ids.shape[1] - len(prompt.query)
    cache = DynamicCache()
    model(ids[:, :before], logits_to_keep=1, **cache_argument(model, cache))

    def run() -> float:
        cache.crop(before - cache.get_seq_length())
        return generate(model, ids, new, clock, **cache_argument(None, cache))

    return run


def parallel_reader(model: PreTrainedModel, prompt: Prompt, new: int, clock: Clock) -> Callable[[], float]:
    """Generation that reads the prompt's encoded chunks."""
    engine = Engine(model, resolve({"strategy": "ape"}))
    encoded = engine.encode(prompt)
    ids = torch.tensor([prompt.query], device=model.device)
    positions = torch.arange(encoded.start, encoded.start + ids.shape[1], device=model.device)[None]

    def run() -> float:
        with engine.tail(encoded) as tail:
            return generate(model, ids, new, clock, position_ids=positions, **cache_argument(None, tail.cache))

    return run


def main() -> None:
    args = parse(parser(__doc__, repeats=5, tokens=[1024, 4096, 8192], new=32))
    shape = SHAPES[args.shape]
    clock = Clock(args.device, args.clock)
    model = make_model(shape, args.device, args.dtype, max(args.tokens) + args.query + args.new + 1024)
    table = Table(
        f"Decoding, {shape.words()}, {args.chunks} chunks, {args.new} new tokens",
        ["context tokens", "sdpa ms a token", "chunks ms a token", "chunks / sdpa"],
    )
    figures: list[dict[str, Any]] = []
    for tokens in args.tokens:
        prompt = make_prompt(shape, context=tokens, chunks=args.chunks, query=args.query)
        rivals = {
            "sdpa": sequential_reader(model, prompt, args.new, clock),
            "chunks": parallel_reader(model, prompt, args.new, clock),
        }
        seconds: dict[str, list[float]] = {name: [] for name in rivals}
        for turn in range(args.repeats + 1):
            for name, run in rivals.items():
                spent = run()
                if turn:
                    seconds[name].append(spent)
        ratio = ratios(seconds["chunks"], seconds["sdpa"])
        milliseconds = {name: Spread.of([1e3 * value for value in values]) for name, values in seconds.items()}
        table.add(
            str(tokens),
            milliseconds["sdpa"].text("{:.1f}"),
            milliseconds["chunks"].text("{:.1f}"),
            ratio.text("{:.2f}"),
        )
        figures.append({"tokens": tokens, "ratio": ratio, **seconds})
    finish(args, [table], figures)


if __name__ == "__main__":
    main()
