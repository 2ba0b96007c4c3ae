"""The command `lm-eval-ape`."""

from __future__ import annotations


def main() -> None:
    raise SystemExit(0)
