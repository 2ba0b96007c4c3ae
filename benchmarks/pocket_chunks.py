"""Score and divergence of every strategy on the shipped model, against the number of chunks.

The same questions over contexts of 40 passages, which are joined into 1, 2, ..., 40 chunks: score is QA F1 x 100 with
its standard error on test rows, KL the mean divergence in nats from the sequential model over up to 8 of each model's
own greedy tokens on calibration rows. One chunk is the sequential prompt.

    python benchmarks/pocket_chunks.py > table.md
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

STRATEGIES = ("parallel", "sink", "ape")
KINDS = ("onehop", "twohop")
PASSAGES = 40


class Cell(NamedTuple):
    """One strategy with one number of chunks on one kind of question."""

    score: float
    error: float
    kl: float


def measure(strategy: str, chunks: int, loaded: tuple[Any, Any], limit: int) -> dict[str, Cell]:
    """Score and divergence on each kind of question."""
    from lm_eval import simple_evaluate

    from lm_eval_ape.artefacts.points import Point
    from lm_eval_ape.calibration.grid.measure import Meter
    from lm_eval_ape.calibration.objective.objective import Objective
    from lm_eval_ape.harness.ape_hf import ApeHFLM
    from lm_eval_ape.harness.catalogue import Catalogue
    from lm_eval_ape.harness.samples import gather
    from lm_eval_ape.settings.options import HarnessOptions

    model, tokenizer = loaded
    lm = ApeHFLM(model, tokenizer=tokenizer, batch_size=8, strategy=strategy, chunking="passages", max_chunks=chunks)
    options = HarnessOptions(metadata={"pocket_passages": PASSAGES})
    catalogue = Catalogue(options)
    meter = Meter(lm, Objective(num_tokens=8, history="own", after_eos="stop"), max_rows=None, cache=None)
    point = Point(lm.settings.attn_temperature, lm.settings.attn_scale)
    cells = {}
    for kind in KINDS:
        test, calibration = f"ape_pocket_{kind}_test", f"ape_pocket_{kind}_calibration"
        results = simple_evaluate(
            model=lm,
            tasks=list(catalogue.load([test]).values()),
            limit=limit,
            log_samples=False,
        )["results"][test]
        samples = gather(lm, catalogue.load([calibration]), options, num_tokens=8).samples
        kl = meter.measure(samples, [point]).kl.mean()
        cells[kind] = Cell(100 * results["score,none"], 100 * results["score_stderr,none"], float(kl))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=168, help="test questions of each kind (default: all %(default)s)")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 2, 5, 10, 20, 40], help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with redirect_stdout(sys.stderr):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from lm_eval_ape.pocket import pocket_path

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        path = pocket_path()
        loaded = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
        cells = {
            (chunks, strategy): measure(strategy, chunks, loaded, args.limit)
            for chunks in args.chunks
            for strategy in STRATEGIES
        }
    header = [f"{kind}, {strategy}" for kind in KINDS for strategy in STRATEGIES]
    for title, show in (
        ("QA F1 x 100 ± standard error", lambda cell: f"{cell.score:.1f} ± {cell.error:.1f}"),
        ("KL from the sequential model, nats", lambda cell: f"{cell.kl:.3f}"),
    ):
        print(f"{title}\n\n| chunks | {' | '.join(header)} |\n|---:|{'---:|' * len(header)}")
        for chunks in args.chunks:
            row = [show(cells[chunks, strategy][kind]) for kind in KINDS for strategy in STRATEGIES]
            print(f"| {chunks} | {' | '.join(row)} |")
        print()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        records = [
            {"chunks": chunks, "strategy": strategy, "kind": kind, **cell._asdict()}
            for (chunks, strategy), kinds in cells.items()
            for kind, cell in kinds.items()
        ]
        args.json.write_text(json.dumps({"limit": args.limit, "passages": PASSAGES, "cells": records}, indent=2))


if __name__ == "__main__":
    main()
