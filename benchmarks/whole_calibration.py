r"""A whole calibration, teacher to divergences, beside the least that its operations could take.

The limit is the count of all floating-point operations at the rate of the model's own largest kind of matrix product,
measured in the same round: what a program that does nothing else, and never waits for memory, would need.

    python benchmarks/whole_calibration.py --tokens 4096 --samples 2

The label-free calibration paper's setting, 32 samples and 49 points x 8 tokens, on a GPU:

    python benchmarks/whole_calibration.py --device cuda --dtype bfloat16 --shape llama-3.1-8b \
        --tokens 8192 --samples 32
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from flags import parse, parser, positive
from timing import Clock, Spread, Table, finish, ratios
from workload import SEED, SHAPES, Shape, make_lm, make_model, make_prompt, operations

from lm_eval_ape.calibration.grid.grid import make_grid
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.objective.objective import HISTORIES, Objective
from lm_eval_ape.harness.samples import Sample

# Of the product that the rate is measured by: as many rows as an encoding's pass has at most.
ROWS = 8192


def product(shape: Shape, device: str, dtype: str) -> tuple[Callable[[], Any], float]:
    """A product of a feed-forward layer's size, and its operations."""
    left = torch.randn(ROWS, shape.hidden, device=device, dtype=getattr(torch, dtype))
    right = torch.randn(shape.hidden, shape.intermediate, device=device, dtype=getattr(torch, dtype))
    return lambda: left @ right, 2.0 * ROWS * shape.hidden * shape.intermediate


def main() -> None:
    flags = parser(__doc__, tokens=[4096])
    flags.add_argument("--steps", type=positive, default=8, help="tokens scored, K (default: %(default)s)")
    flags.add_argument("--samples", type=positive, default=2, help="contexts of a calibration (default: %(default)s)")
    flags.add_argument("--histories", nargs="+", choices=HISTORIES, default=list(HISTORIES))
    args = parse(flags)
    shape, clock = SHAPES[args.shape], Clock(args.device, args.clock)
    points = make_grid(num_tokens=8).points
    model = make_model(shape, args.device, args.dtype, max(args.tokens) + args.query + 1024)
    lm = make_lm(model, device=args.device)
    multiply, multiplied = product(shape, args.device, args.dtype)
    what = f"{args.chunks} chunks, query {args.query}, {len(points)} points x {args.steps} tokens"
    table = Table(
        f"Calibration of {args.samples} samples, {shape.words()}, {what}",
        "context tokens|history|s|s a sample|limit s|times the limit|TFLOP/s of a product".split("|"),
    )
    figures: list[dict[str, Any]] = []
    for tokens in args.tokens:
        samples = []
        for number in range(args.samples):
            prompt = make_prompt(shape, context=tokens, chunks=args.chunks, query=args.query, seed=SEED + number)
            samples.append(Sample("benchmark", number, 0, prompt, str(number)))
        counts = operations(shape, tokens, args.chunks, args.query)
        counted = counts.teacher(args.steps) + counts.encoding() + counts.scoring(len(points), args.steps)
        for history in args.histories:
            meter = Meter(lm, Objective(args.steps, history, "continue"), max_rows=None, cache=None)

            def calibrate(meter: Meter = meter, samples: list[Sample] = samples) -> None:
                meter.known.clear()
                meter.measure(samples, points)

            seconds = clock.in_turn({"product": multiply, "calibration": calibrate}, args.repeats)
            rates = [multiplied / spent for spent in seconds["product"]]
            limits = [args.samples * counted / rate for rate in rates]
            against = ratios(seconds["calibration"], limits)
            table.add(
                str(tokens),
                history,
                Spread.of(seconds["calibration"]).text(),
                Spread.of([spent / args.samples for spent in seconds["calibration"]]).text(),
                Spread.of(limits).text(),
                against.text("{:.2f}"),
                Spread.of([rate / 1e12 for rate in rates]).text(),
            )
            figures.append(
                {"tokens": tokens, "history": history, "samples": args.samples, "operations": counted}
                | {"limit": limits, "times_the_limit": against, "seconds": seconds}
            )
    finish(args, [table], figures)


if __name__ == "__main__":
    main()
