"""`lm-eval-ape compare`: strategies, and runs of other models, on one board."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_ape.cli.work import carry_out
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.forecast.flag import HELP, add_flag
from lm_eval_ape.settings.flags import add_flags, command_parser

if TYPE_CHECKING:
    from lm_eval_ape.artefacts.board import Board
    from lm_eval_ape.forecast.forecast import Forecast

DESCRIPTION = """\
Run encoding strategies on the same prompts and say which differences are real: each one's score with its standard
error, the difference from the sequential model document by document, its bootstrap interval and p-value, seconds,
tokens, memory, and scores by the length of the prompt.

The model is loaded once. Each strategy's results and samples are written as lm_eval writes them, and a strategy that
is finished is not run again unless the model, its settings, the tasks, the limit or a version have changed.
"""
EPILOG = """\
strategies:
  sequential                               the ordinary model; the baseline
  parallel, sink, ape                      with their defaults (see the README)
  ape[attn_temperature=0.8,attn_scale=0.9] with settings; quote the brackets for your shell
  ape@out/calibration.json                 with T and S of `lm-eval-ape calibrate`; its folder will do

the table:
  Two runs are paired by the harness's digest of each document. Difference is the mean over documents, with the 95%
  percentile bootstrap interval and the p-value of a randomisation test of its sign. A difference is marked ▲ (better)
  or ▼ (worse) where p < 0.05 and the interval leaves 0 out, else ≈. The average is over tasks, each of the same weight.
  What does not match (documents, prompts, versions) is counted under the table, and left out for all rows alike.

output (--output_path):
  board.md, board.csv, board.json          the tables; the last one with every sample, setting and command
  STRATEGY/MODEL/results_*.json, samples_*.jsonl, and STRATEGY/run.json with lengths and times of all requests
  STRATEGY/kl.json                         with --kl_tokens: the KL of every prompt, token by token; it needs no label,
                                           and no score or time holds any of it. cache/ keeps the teachers
                                           (K x vocabulary x 4 bytes a prompt; --kl_limit 32 keeps few).
  STRATEGY/answer_nats.json                with --answer_nats: the log-likelihood of each document's reference answer,
                                           the sum over its tokens, after the task's own prompt. The task's target
                                           (doc_to_target) is the answer; of several the likeliest counts.

{forecast}
examples:
  lm-eval-ape compare --model_args pretrained=MODEL --tasks ape_longbench_2wikimqa_test,ape_longbench_hotpotqa_test \\
    --strategies sequential,parallel,sink,ape,ape@out/calibration.json --kl_tokens 8 --output_path board
  lm-eval-ape report board out

  # in a minute, on the shipped model
  lm-eval-ape compare --model_args pretrained=pocket,chunking=passages --tasks ape_pocket_twohop_test --limit 20 \\
    --output_path board

  # how long and how much memory, before asking Slurm for it: half as much again, in minutes and MiB
  ARGS="--model_args pretrained=MODEL --tasks TASK --output_path board"
  FORECAST=$(lm-eval-ape compare $ARGS --dry_run | tail -1)
  sbatch --time=$(jq -n "$FORECAST.seconds / 40 + 5 | ceil") \\
    --mem=$(jq -n "$FORECAST.peak_bytes * 1.5 / pow(2; 20) | ceil")M --wrap "lm-eval-ape compare $ARGS"

  # one W&B run a strategy and one for the board and its report, in a group of the output folder's name
  lm-eval-ape compare ... --output_path board --wandb_args project=parallel-encoding

  # what the number of chunks does, and what retrieval leaves
  lm-eval-ape compare --model_args pretrained=MODEL --tasks ape_longbench_2wikimqa_test --output_path board \\
    --strategies 'sequential,sink[chunks=2],sink[chunks=8],sink[chunks=32],ape[preset=C200x20]'

  # existing runs, also of other models
  lm_eval --model hf --model_args pretrained=MODEL --tasks TASK --log_samples --output_path runs/hf
  lm-eval-ape compare --from runs/hf board --baseline "hf MODEL"
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags: those of `Options`, and `--dry_run`."""
    parser = command_parser("compare", DESCRIPTION, EPILOG.format(forecast=HELP))
    # As in the harness, these take pairs separated by commas or by spaces.
    pairs = {name: {"nargs": "+"} for name in ("wandb_args", "wandb_config_args", "trackio_args")}
    add_flags(parser, Options, {"sources": {"flag": "--from", "nargs": "+"}, **pairs})
    add_flag(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Compare and print the board.

    Args:
        arguments: What follows `lm-eval-ape compare`.

    Raises:
        ApeError: Something asked for is impossible.
    """
    return carry_out(build_parser(), arguments, Options.read, _compare, _show, dry_run=_dry_run)


def _compare(options: Options, command: list[str]) -> Board | None:
    from lm_eval_ape.comparison.compare import compare

    return compare(options, command, _report)


def _dry_run(options: Options) -> Forecast | None:
    from lm_eval_ape.comparison.dry_run import dry_run

    return dry_run(options)


def _report(folders: Sequence[str]) -> Path:
    from lm_eval_ape.report.page import report

    return report(folders)


def _show(board: Board, options: Options) -> None:
    from rich.console import Console

    from lm_eval_ape.comparison.formats import show

    # A file or a pipe has no width of its own, and rich would take 80.
    show(board, Console(width=None if sys.stdout.isatty() else 180))
    if output := options.output_path:
        print(
            f"The board is in {Path(output) / 'board.md'}, board.csv and board.json; lm-eval-ape report {output} makes "
            "a page of it.",
            file=sys.stderr,
        )
