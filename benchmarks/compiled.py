"""`torch.compile` on what does not depend on a prompt's form, the feed-forwards and norms, against the model as it is.

Attention is left alone: prompts differ in how many segments they have and how long those are, so that a compiled one
would be compiled again and again. On the CPU the compiler of PyTorch needs a C++ compiler.

    python benchmarks/compiled.py --tokens 4096
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from decode import parallel_reader
from flags import parse, parser, positive
from timing import Clock, Spread, Table, finish, ratios
from transformers import PreTrainedModel
from workload import SHAPES, make_lm, make_model, make_prompt

from lm_eval_ape.calibration.grid.grid import make_grid
from lm_eval_ape.calibration.grid.scoring import Scorer
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.calibration.objective.teacher import ask

PARTS = ("mlp", "input_layernorm", "post_attention_layernorm")
# What is timed, and the seconds that one of its unit has.
WORK = {"encoding, s": 1.0, "scoring, s": 1.0, "a token, ms": 1e-3}


def compiled(model: PreTrainedModel, backend: str) -> PreTrainedModel:
    """The model with the parts of every layer compiled for any number of tokens."""
    for layer in model.get_decoder().layers:
        for name in PARTS:
            getattr(layer, name).compile(backend=backend, dynamic=True)
    return model


def main() -> None:
    flags = parser(__doc__, tokens=[4096], new=16)
    flags.add_argument("--steps", type=positive, default=8, help="tokens scored, K (default: %(default)s)")
    flags.add_argument(
        "--backend",
        choices=("inductor", "cudagraphs", "eager"),
        default="inductor",
        help="of torch.compile (default: %(default)s)",
    )
    args = parse(flags)
    shape, clock = SHAPES[args.shape], Clock(args.device, args.clock)
    points = make_grid(num_tokens=8).points
    table = Table(
        f"{', '.join(PARTS)} compiled by {args.backend}, {shape.words()}, {args.chunks} chunks, query {args.query}, "
        f"{len(points)} points x {args.steps} tokens",
        ["context tokens", "what", "as it is", "compiled", "compiled / as it is"],
    )
    figures: list[dict[str, Any]] = []
    for tokens in args.tokens:
        prompt = make_prompt(shape, context=tokens, chunks=args.chunks, query=args.query)
        runs: dict[str, dict[str, Callable[[], float]]] = {}
        for name in ("as it is", "compiled"):
            model = make_model(shape, args.device, args.dtype, tokens + args.query + args.new + 1024)
            if name == "compiled":
                model = compiled(model, args.backend)
            scorer = Scorer(make_lm(model, device=args.device), Objective(args.steps, "own", "continue"))
            teacher = ask(scorer.lm, prompt.ids, args.steps, (), "benchmark")
            score = partial(scorer.score, scorer.lm.engine.encode(prompt), prompt, teacher, points, sample="benchmark")
            runs[name] = {
                "encoding, s": partial(clock.time, partial(scorer.lm.engine.encode, prompt)),
                "scoring, s": partial(clock.time, score),
                "a token, ms": parallel_reader(model, prompt, args.new, clock),
            }
        seconds: dict[str, dict[str, list[float]]] = {what: {name: [] for name in runs} for what in WORK}
        # The first round compiles, and nobody's counts.
        for turn in range(args.repeats + 1):
            for what in WORK:
                for name, run in runs.items():
                    spent = run[what]()
                    if turn:
                        seconds[what][name].append(spent)
        for what, unit in WORK.items():
            rivals = seconds[what]
            ratio = ratios(rivals["compiled"], rivals["as it is"])
            shown = [Spread.of([value / unit for value in values]).text() for values in rivals.values()]
            table.add(str(tokens), what, *shown, ratio.text("{:.2f}"))
            figures.append({"tokens": tokens, "what": what, "ratio": ratio, **rivals})
    finish(args, [table], figures)


if __name__ == "__main__":
    main()
