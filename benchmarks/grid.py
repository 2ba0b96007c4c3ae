"""Calibration: all points of a grid as one batch over one encoding, against its rivals.

For each history, seconds of one sample's 49 points x 8 tokens beside those of the teacher's pass and of the encoding,
and against (a) encoding the chunks again for each point, and (b) one point at a time over keys and values that are
kept. The rivals do the same for every point, so that a few points are timed (`--sampled`) and their seconds scaled to
all; the peak memory of one point is beside that of all.

    python benchmarks/grid.py --tokens 4096 8192 --chunks 4
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flags import parse, parser, positive
from peaks import peak
from timing import Clock, Spread, Table, finish, ratios
from workload import SHAPES, make_lm, make_model, make_prompt, operations

from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.grid.grid import make_grid
from lm_eval_ape.calibration.grid.scoring import Scorer
from lm_eval_ape.calibration.objective.objective import HISTORIES, Objective
from lm_eval_ape.calibration.objective.teacher import Teacher, ask
from lm_eval_ape.prompts.prompt import Prompt


def spaced(points: Sequence[Point], count: int) -> list[Point]:
    """Some of the points, evenly spaced."""
    step = max(1, len(points) // count)
    return list(points[::step][:count])


def one_by_one(score: Callable[..., Any], points: Sequence[Point]) -> None:
    """Score each point on its own."""
    for point in points:
        score(points=[point])


def encoded_and_scored(scorer: Scorer, prompt: Prompt, teacher: Teacher, points: Sequence[Point]) -> None:
    """Encode a prompt and score points on it."""
    scorer.score(scorer.lm.engine.encode(prompt), prompt, teacher, points, sample="benchmark")


def main() -> None:
    flags = parser(__doc__, tokens=[4096])
    flags.add_argument("--steps", type=positive, default=8, help="tokens scored, K (default: %(default)s)")
    flags.add_argument("--sampled", type=positive, default=3, help="points timed of each rival (default: %(default)s)")
    flags.add_argument("--histories", nargs="+", choices=HISTORIES, default=list(HISTORIES))
    args = parse(flags)
    shape, clock = SHAPES[args.shape], Clock(args.device, args.clock)
    points = make_grid(num_tokens=8).points
    few = spaced(points, args.sampled)
    scale = len(points) / len(few)
    model = make_model(shape, args.device, args.dtype, max(args.tokens) + args.query + 1024)
    lm = make_lm(model, device=args.device)
    what = f"{shape.words()}, {args.chunks} chunks, query {args.query}, {len(points)} points x {args.steps} tokens"
    costs = Table(
        f"Calibration of one sample, {what}",
        "context tokens|history|teacher s|encoding s|scoring s|scoring / (teacher + encoding)|counted".split("|"),
    )
    gained: list[list[str]] = []
    needed: list[list[str]] = []
    figures: list[dict[str, Any]] = []
    for tokens in args.tokens:
        prompt = make_prompt(shape, context=tokens, chunks=args.chunks, query=args.query)
        counts = operations(shape, tokens, args.chunks, args.query)
        teacher = ask(lm, prompt.ids, args.steps, (), "benchmark")
        for history in args.histories:
            scorer = Scorer(lm, Objective(args.steps, history, "continue"))
            encoded = scorer.lm.engine.encode(prompt)
            score = partial(scorer.score, encoded, prompt, teacher, sample="benchmark")
            encode_and_score = partial(encoded_and_scored, scorer, prompt, teacher)
            seconds = clock.in_turn(
                {
                    "teacher": partial(ask, lm, prompt.ids, args.steps, (), "benchmark"),
                    "encoding": partial(scorer.lm.engine.encode, prompt),
                    "scoring": partial(score, points=points),
                    "one_by_one": partial(one_by_one, score, few),
                    "encoding_each": partial(one_by_one, encode_and_score, few),
                },
                args.repeats,
            )
            for name in ("one_by_one", "encoding_each"):
                seconds[name] = [value * scale for value in seconds[name]]
            before = [a + b for a, b in zip(seconds["teacher"], seconds["encoding"], strict=True)]
            ours = [a + b for a, b in zip(seconds["encoding"], seconds["scoring"], strict=True)]
            counted = counts.scoring(len(points), args.steps) / (counts.teacher(args.steps) + counts.encoding())
            costs.add(
                str(tokens),
                history,
                *(Spread.of(seconds[name]).text() for name in ("teacher", "encoding", "scoring")),
                ratios(seconds["scoring"], before).text("{:.2f}"),
                f"{counted:.2f}",
            )
            again = counts.scoring(len(points), args.steps) + len(points) * counts.encoding()
            allowed = again / (counts.scoring(len(points), args.steps) + counts.encoding())
            gains = {
                "encoding_each": ratios(seconds["encoding_each"], ours),
                "one_by_one": ratios(seconds["one_by_one"], seconds["scoring"]),
            }
            memory = {
                "one point": peak(partial(encode_and_score, points=points[:1]), args.device),
                "all points": peak(partial(encode_and_score, points=points), args.device),
            }
            where = [str(tokens), history]
            gained.append(
                [*where, gains["encoding_each"].text("{:.1f}"), f"{allowed:.1f}", gains["one_by_one"].text("{:.2f}")]
            )
            needed.append(
                [*where, *map("{:.0f}".format, memory.values()), f"{memory['all points'] / memory['one point']:.2f}"]
            )
            figures.append(
                {"tokens": tokens, "history": history, "counted": counted, "allowed": allowed, "gains": gains}
                | {"memory_mib": memory, "seconds": seconds}
            )
    rivals = Table(
        f"One batch against its rivals, times faster ({len(few)} of their {len(points)} points timed)",
        ["context tokens", "history", "than encoding each", "counted", "than one by one over kept KV"],
    )
    for row in gained:
        rivals.add(*row)
    peaks = Table(
        "Peak memory of encoding and scoring, the process with its model, MiB",
        ["context tokens", "history", "one point", "all points", "all / one"],
    )
    for row in needed:
        peaks.add(*row)
    finish(args, [costs, rivals, peaks], figures)


if __name__ == "__main__":
    main()
