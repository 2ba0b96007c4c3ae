"""`lm-eval-ape report`: one HTML page of comparisons, calibrations and analyses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lm_eval_ape.settings.flags import command_parser

DESCRIPTION = """\
Make one HTML page of what `lm-eval-ape compare`, `calibrate` and `analyze` have written: the board, sortable; score and
time against the length of the prompt; KL against score; each calibration's KL surface and stability; attention entropy
against chunks and score; every sample with each strategy's answer; every setting, version and command.

The page needs no network and nothing beside it: send it, publish it, print it.
"""
EPILOG = """\
output (--output_path):
  report.html              the page
  figures/*.png, *.svg     its figures, for papers and slides

examples:
  lm-eval-ape report out/board
  lm-eval-ape report out/board out/calibration --output_path public

  # what it reads
  lm-eval-ape compare --model_args pretrained=MODEL --tasks TASK --kl_tokens 8 --output_path out/board
  lm-eval-ape calibrate --model_args pretrained=MODEL --tasks TASK --output_path out/calibration
"""


def build_parser() -> argparse.ArgumentParser:
    """The folders, and where to write."""
    parser = command_parser("report", DESCRIPTION, EPILOG)
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="DIR",
        help="folders that hold board.json, calibration.json or analysis.json, or below them",
    )
    parser.add_argument("--output_path", metavar="DIR", help="folder for the page and its figures (default: first DIR)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Make the page and print its path.

    Args:
        arguments: What follows `lm-eval-ape report`.

    Raises:
        ApeError: There is nothing to show, or a file cannot be read or written.
    """
    parser = build_parser()
    if not arguments:
        parser.print_help()
        return 0
    args = parser.parse_args(arguments)
    print("Reading, drawing and writing; some seconds.", file=sys.stderr)
    from lm_eval_ape.report.page import report

    print(report(args.folders, args.output_path))
    return 0
