"""`lm-eval-ape analyze`: what attention looks like under each strategy, and how that goes with the score."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm_eval_ape.analysis.options import Options
from lm_eval_ape.cli.work import carry_out
from lm_eval_ape.settings.flags import add_flags, command_parser

if TYPE_CHECKING:
    from lm_eval_ape.artefacts.analysis import Analysis

DESCRIPTION = """\
Say why parallel encoding hurts: run strategies with more and more chunks on the same prompts, look at the attention of
the query's tokens, and correlate its entropy with the score.

Attention is not held whole: entropies come from log-sum-exps and blocks of logits, so long contexts need no more memory
than reading them does. For each case, by layer and head: entropy, mean absolute logit, and how much of the row lies on
prefix, context and query; and the norms of the keys by their place in the chunk. Where a strategy recomputes tokens:
which chunks they are of, how far from their start, and the entropy without them.
"""
EPILOG = """\
cases:
  Every strategy with every number of chunks P, the context cut evenly (whole passages with chunking=passages). One
  chunk at T=S=1 is the sequential model, which stands for P=1 of all. Oracles: value_only, and any strategy with
  keys_from=sequential or values_from=sequential.

output (--output_path):
  analysis.json             everything; lm-eval-ape report shows it
  analysis.md, analysis.csv tables; the CSV by layer and head
  figures/                  entropy and score against chunks, against one another, by head, and key norms by place
  board/                    the scores, as `lm-eval-ape compare` writes them
  cache/                    attention of every prompt: a run that was killed goes on where it stopped

examples:
  lm-eval-ape analyze --model_args pretrained=MODEL --tasks ape_longbench_2wikimqa_test --output_path analysis

  # attention alone, without generating an answer
  lm-eval-ape analyze --model_args pretrained=MODEL --tasks TASK --no-scores --output_path analysis

  # in a minute, on the shipped model
  lm-eval-ape analyze --model_args pretrained=pocket,chunking=passages --tasks ape_pocket_twohop_test --limit 20 \\
    --chunks 2,5,10 --batch_size 8 --output_path analysis
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags: those of `Options`."""
    parser = command_parser("analyze", DESCRIPTION, EPILOG)
    add_flags(parser, Options)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Analyse and print the tables.

    Args:
        arguments: What follows `lm-eval-ape analyze`.

    Raises:
        ApeError: Something asked for is impossible.
    """
    return carry_out(build_parser(), arguments, Options.read, _analyze, _show)


def _analyze(options: Options, command: list[str]) -> Analysis | None:
    from lm_eval_ape.analysis.run import analyze

    return analyze(options, command)


def _show(content: Analysis, options: Options) -> None:
    from rich.console import Console

    from lm_eval_ape.analysis.tables import show

    show(content, Console(width=None if sys.stdout.isatty() else 180))
    print(
        f"All of it is in {options.output_path}; lm-eval-ape report {options.output_path} makes a page of it.",
        file=sys.stderr,
    )
