"""The flags of a calibration: those of its options, and `--config`."""

from __future__ import annotations

import argparse

from lm_eval_ape.calibration.options import Options
from lm_eval_ape.settings.flags import add_flags


def add_calibration_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and a flag for each field of `Options`."""
    parser.add_argument("--config", metavar="FILE", help="YAML file with these options, without the dashes")
    add_flags(parser, Options, {"search": {"action": "append"}})
