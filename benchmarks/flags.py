"""The flags that benchmarks have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from workload import SHAPES


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, but is {text!r}")
    return int(text)


def parser(
    description: str | None,
    *,
    repeats: int = 3,
    tokens: Sequence[int] = (),
    chunks: int | Sequence[int] = 4,
    new: int | None = None,
) -> argparse.ArgumentParser:
    """The flags that all benchmarks have, and those of a prompt.

    Args:
        description: What the benchmark says of itself.
        repeats: Timed rounds by default.
        tokens: Context lengths by default; none where prompts are not made by length.
        chunks: Numbers of chunks by default, or the one number that can be set.
        new: Tokens to generate by default; None where none are generated.
    """
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    flags.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "float64"),
        default="float32",
        help="weights' precision (default: %(default)s)",
    )
    flags.add_argument("--shape", choices=list(SHAPES), default="50m", help="the model's (default: %(default)s)")
    flags.add_argument("--repeats", type=positive, default=repeats, help="timed rounds (default: %(default)s)")
    flags.add_argument("--threads", type=positive, help="CPU threads (default: PyTorch's own choice)")
    flags.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: processor seconds, for a busy machine, with --threads 1",
    )
    flags.add_argument("--json", type=Path, help="also write the figures to this file")
    if tokens:
        flags.add_argument("--tokens", type=positive, nargs="+", default=list(tokens), help="context lengths")
        flags.add_argument("--query", type=positive, default=64, help="tokens of the query (default: %(default)s)")
        if isinstance(chunks, int):
            flags.add_argument("--chunks", type=positive, default=chunks, help="(default: %(default)s)")
        else:
            flags.add_argument("--chunks", type=positive, nargs="+", default=list(chunks), help="numbers of chunks")
    if new is not None:
        flags.add_argument("--new", type=positive, default=new, help="tokens to generate (default: %(default)s)")
    return flags


def parse(flags: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line and set the number of threads; what is impossible ends the program with a sentence."""
    args = flags.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        flags.error("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
    if "tokens" in args:
        most, least = max(args.chunks) if isinstance(args.chunks, list) else args.chunks, min(args.tokens)
        if least < most:
            flags.error(f"--tokens {least} make no {most} chunks; give at least one token a chunk")
    if args.threads:
        torch.set_num_threads(args.threads)
    return args
