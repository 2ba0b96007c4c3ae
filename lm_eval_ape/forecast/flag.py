"""The flag that asks for a forecast."""

from __future__ import annotations

import argparse

HELP = """\
forecast (--dry_run):
  Tells on stderr how many prompts and tokens would be read, the operations, the memory and the time, and on stdout, as
  the last line, the same as JSON: prompts, tokens, operations, kv_bytes, peak_bytes, seconds, parts. No weight is read
  and nothing is written. The time is measured on this device, on random weights of the model's shape, so ask where the
  run will be: a minute of the same GPU is enough.
"""


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--dry_run`."""
    text = "tell what would be read, and the time and memory that takes, without reading a weight or writing a file"
    parser.add_argument("--dry_run", action="store_true", help=text)
