"""Scores and divergences of the shipped model against the share of tokens recomputed, by selector.

Test questions over 10 passages in P chunks. Score is QA F1 x 100; KL is the divergence of the first new token from the
sequential model's in nats; differences are from `random` at the same share, paired over questions, with their bootstrap
95% intervals. Finished parts are kept in the output folder and not run again.

    python benchmarks/recomputation.py --output_path out/recomputation > tables.md
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flags import positive

if TYPE_CHECKING:
    from lm_eval_ape.artefacts.board import Board

SELECTORS: Mapping[str, str] = {
    "query": "recompute_by=query",
    "query, last 2 layers": "recompute_by=query,recompute_layers=last:2",
    "first": "recompute_by=first",
    "deviation": "recompute_by=deviation",
    "random": "recompute_by=random",
}
SHARES = (0.01, 0.02, 0.05, 0.15, 0.3, 1.0)
# What of the grid is run on the other tasks, where the question is whether anything is lost.
FEW = (0.05, 0.3)
TWO_HOP = "ape_pocket_twohop_test"
OTHERS = ("ape_pocket_onehop_test", "ape_pocket_needle_test", "ape_pocket_classify_test")
# The other tasks' contexts are no passages, and are cut into chunks of equal numbers of tokens.
WITH_PASSAGES = (TWO_HOP, "ape_pocket_onehop_test")
SEQUENTIAL, NOTHING = "sequential", "sink[positions=serial]"
RESAMPLES = 999


class Cell(NamedTuple):
    """One selector at one share on one task, and its differences from chance: mean and interval, or None."""

    score: float
    kl: float
    score_difference: tuple[float, float, float] | None
    kl_difference: tuple[float, float, float] | None


def spec(selector: str, share: float) -> str:
    """The strategy as `compare` takes it."""
    return f"recompute[recompute={share:g},{SELECTORS[selector]}]"


def run(chunks: int, task: str, shares: Sequence[float], args: argparse.Namespace) -> Board:
    """Compare all of it, or read what was compared before."""
    from lm_eval_ape.comparison.compare import compare
    from lm_eval_ape.comparison.options import Options

    cut = {"chunking": "passages", "max_chunks": chunks} if task in WITH_PASSAGES else {"chunks": chunks}
    strategies = [SEQUENTIAL, NOTHING, *(spec(selector, share) for share in shares for selector in SELECTORS)]
    board = compare(
        Options.read(
            {
                "model_args": {"pretrained": "pocket", **cut},
                "metadata": {"pocket_passages": args.passages},
                "tasks": [task],
                "strategies": strategies,
                "limit": args.limit,
                "batch_size": 8,
                "kl_tokens": 1,
                "kl_limit": args.limit,
                "resamples": RESAMPLES,
                "output_path": str(args.output_path / f"{task}-{chunks}"),
            }
        ),
        ["python", "benchmarks/recomputation.py"],
    )
    assert board is not None
    return board


def cell(board: Board, task: str, label: str, chance: str | None) -> Cell:
    """A row's figures on a task.

    Args:
        board: The comparison.
        task: Its task.
        label: The row.
        chance: The row of `random` with the same share; None for no difference.
    """
    import numpy as np

    from lm_eval_ape.comparison.statistics import paired

    def values(row: str) -> tuple[list[float], list[float]]:
        answers = [sample.runs[row] for sample in board.samples[task]]
        scores = [100 * (answer.score or 0.0) for answer in answers]
        # The sequential model is no way from itself.
        kl = [
            float(np.mean([np.mean(prompt.nats) for prompt in answer.kl])) if answer.kl else 0.0 for answer in answers
        ]
        return scores, kl

    own = values(label)
    differences: list[tuple[float, float, float] | None] = [None, None]
    if chance is not None:
        found = [
            paired(np.array(mine) - np.array(theirs), resamples=RESAMPLES, seed=0)
            for mine, theirs in zip(own, values(chance), strict=True)
        ]
        differences = [(one.mean, one.low or 0.0, one.high or 0.0) for one in found]
    return Cell(float(np.mean(own[0])), float(np.mean(own[1])), *differences)


def shown(found: Cell) -> str:
    """A cell of a table: score, KL, and whether both intervals of the differences leave zero out."""
    marks = ""
    for difference in (found.score_difference, found.kl_difference):
        if difference is not None:
            _, low, high = difference
            marks += "=" if low <= 0 <= high else "+" if low > 0 else "-"
    return f"{found.score:.1f} ({found.kl:.2f}){' ' + marks if marks else ''}"


def main() -> None:
    """Run all parts and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--limit", type=positive, default=168, help="test questions of each kind (default: %(default)s)"
    )
    parser.add_argument("--passages", type=positive, default=10, help="of each context (default: %(default)s)")
    parser.add_argument("--chunks", type=positive, nargs="+", default=[2, 5, 10], help="(default: %(default)s)")
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES), help="(default: %(default)s)")
    parser.add_argument("--output_path", type=Path, default=Path("out/recomputation"), help="(default: %(default)s)")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with redirect_stdout(sys.stderr):
        few = [share for share in args.shares if share in FEW] or args.shares[:1]
        two_hop = {chunks: run(chunks, TWO_HOP, args.shares, args) for chunks in args.chunks}
        others = {task: {chunks: run(chunks, task, few, args) for chunks in args.chunks} for task in OTHERS}
    print("Two-hop questions: score (KL). + or - or =: above, below or equal to `random`, score first, then KL.\n")
    print_table(TWO_HOP, two_hop, args.shares)
    for task, boards in others.items():
        print(f"\n{task}: score (KL)\n")
        print_table(task, boards, few)
    print("\nTwo-hop questions: difference of the score from `random`'s, with its 95% interval\n")
    header = [f"P={chunks}" for chunks in args.chunks]
    print(f"| recomputed | {' | '.join(header)} |\n|---|{'---:|' * len(header)}")
    for share in args.shares:
        for selector in SELECTORS:
            if selector == "random":
                continue
            cells = []
            for board in two_hop.values():
                found = cell(board, TWO_HOP, spec(selector, share), spec("random", share)).score_difference
                cells.append("" if found is None else f"{found[0]:+.1f} [{found[1]:+.1f}, {found[2]:+.1f}]")
            print(f"| `{selector}` {share:.0%} | {' | '.join(cells)} |")


def print_table(task: str, boards: Mapping[int, Board], shares: Sequence[float]) -> None:
    """A table of one task, a column a number of chunks."""
    header = [f"P={chunks}" for chunks in boards]
    print(f"| recomputed | {' | '.join(header)} |\n|---|{'---:|' * len(header)}")
    rows: list[tuple[str, str, str | None]] = [("all: sequential", SEQUENTIAL, None), ("nothing", NOTHING, None)]
    rows += [
        (f"`{selector}` {share:.0%}", spec(selector, share), None if selector == "random" else spec("random", share))
        for share in shares
        for selector in SELECTORS
    ]
    for name, label, chance in rows:
        cells = [shown(cell(board, task, label, chance)) for board in boards.values()]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
