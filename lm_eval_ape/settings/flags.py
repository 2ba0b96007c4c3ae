"""The parser of a command, with flags from the fields of its options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from lm_eval_ape.settings.options import HarnessOptions


def command_parser(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser of `lm-eval-ape NAME` whose help is shown as it was written."""
    return argparse.ArgumentParser(
        prog=f"lm-eval-ape {name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_flags(
    parser: argparse.ArgumentParser,
    options: type[HarnessOptions],
    special: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Add a flag for each field; one that is not given is None, so that `options.read` takes the default.

    Args:
        parser: Where to add them.
        options: The dataclass.
        special: By field, arguments of `add_argument` over the usual ones; `flag` is the flag's own name.
    """
    for option in fields(options):
        usual = {"flag": f"--{option.name}", "dest": option.name, "default": None, **_kind(option)}
        kind = {**usual, **(special or {}).get(option.name, {})}
        parser.add_argument(kind.pop("flag"), **kind)


def _kind(option: Field[Any]) -> dict[str, Any]:
    text, default = option.metadata["help"], option.default
    if default is not MISSING and isinstance(default, (int, str)) and not isinstance(default, bool):
        text += f" (default: {default})"
    kind = {"help": text.replace("%", "%%")}
    if option.type in ("bool", "bool | None"):
        return {**kind, "action": argparse.BooleanOptionalAction}
    kind["metavar"] = option.metadata["metavar"] or option.name.upper()
    return {**kind, "nargs": "?", "const": True} if option.type == "bool | str" else kind
