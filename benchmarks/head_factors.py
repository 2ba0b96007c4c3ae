"""What T and S of each head cost over one of each: seconds a token, and accuracy in half precision.

Kernels take one softmax scale a call, so T of a head is divided into its queries in float32, which are then rounded to
the model's precision. Times are medians of interleaved repeats on a random Llama, one token after the other over a
frozen context; errors are means over seeds, against float64 on the same inputs.

    python benchmarks/head_factors.py > table.md
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lm_eval_ape.attention.attend import attend
from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.attention.factors import Factors, reading_factors
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import BatchReading, SegmentedCache
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.strategy import resolve

LAYERS, HEADS, WIDTH = 8, 16, 1024


def seconds(context: int, new: int, repeats: int) -> dict[str, float]:
    """Median seconds a token: with numbers, and with T and S of each head."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 4,
        max_position_embeddings=32768,
    )
    model = LlamaForCausalLM(config).eval()
    quarter = tuple(torch.randint(5, 1000, (context // 4,)).tolist())
    encoded = Engine(model, resolve({})).encode(Prompt((1, 2, 3, 4), (quarter,) * 4, (7,)))
    tables = Factors(((0.8,) * HEADS,) * LAYERS, ((0.9,) * HEADS,) * LAYERS)
    readings = {
        "one T and S": BatchReading((encoded,), temperature=0.8, scale=0.9),
        "T and S of each head": BatchReading(
            (encoded,), **reading_factors([tables], model.device, model.dtype)._asdict()
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in readings}
    with torch.no_grad(), reading_segments(model):
        for turn in range(repeats + 1):
            for name, reading in readings.items():
                cache = SegmentedCache(reading, LAYERS)
                ids = torch.tensor([[7]])
                for step in range(new):
                    start = time.perf_counter()
                    positions = torch.tensor([[encoded.start + step]])
                    logits = model(ids, position_ids=positions, **cache_argument(model, cache)).logits
                    if turn:
                        times[name].append(time.perf_counter() - start)
                    ids = logits[:, -1:].argmax(-1)
    return {name: statistics.median(values) for name, values in times.items()}


def errors(dtype: torch.dtype, seeds: int) -> list[tuple[float, float]]:
    """Relative error of the output and largest error of the log-sum-exp, T as a number and T in the queries."""
    temperature, scaling = 0.83, 128**-0.5
    found: list[list[tuple[float, float]]] = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        query, key, value = (
            (factor * torch.randn(1, heads, length, 128, generator=generator)).to(dtype)
            for heads, length, factor in ((8, 4, 2), (2, 2048, 1), (2, 2048, 1))
        )
        exact = attend(query.double(), key.double(), value.double(), scaling=scaling / temperature)
        folded = (query / torch.full((1, 8, 1, 1), temperature)).to(dtype)
        rows = []
        for seen, factor in ((query, scaling / temperature), (folded, scaling)):
            got = attend(seen, key, value, scaling=factor)
            relative = float((got.out - exact.out).norm() / exact.out.norm())
            rows.append((relative, float((got.lse - exact.lse).abs().max())))
        found.append(rows)
    return [tuple(torch.tensor([rows[case] for rows in found]).mean(0).tolist()) for case in range(2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, nargs="+", default=[1024, 8192], help="tokens (default: %(default)s)")
    parser.add_argument("--new", type=int, default=32, help="tokens a repeat (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=8, help="repeats (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| context | one T and S, ms a token | T and S of each head | ratio |\n|---:|---:|---:|---:|")
    for context in args.context:
        one, each = seconds(context, args.new, args.repeats).values()
        print(f"| {context} | {1000 * one:.2f} | {1000 * each:.2f} | {each / one:.3f} |", flush=True)
    print("\n| dtype | T | error of the output | error of the log-sum-exp |\n|---|---|---:|---:|")
    for dtype in (torch.bfloat16, torch.float16):
        for name, (out, lse) in zip(("a number", "in the queries"), errors(dtype, 20), strict=True):
            print(f"| {str(dtype).removeprefix('torch.')} | {name} | {out:.2e} | {lse:.1e} |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
