"""The parser of a command, with flags from the fields of its options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from lm_eval_ape.settings.options import Options
from lm_eval_ape.settings.validation import choices, parts


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
    options: type[Options],
    special: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Add a flag for each field; one that is not given is None, so that `options.read` takes the default.

    Args:
        parser: Where to add them.
        options: The model.
        special: By field, arguments of `add_argument` over the usual ones; `flag` is the flag's own name.
    """
    for name, field in options.model_fields.items():
        usual = {"flag": f"--{name}", "dest": name, "default": None, **_kind(name, field)}
        kind = {**usual, **(special or {}).get(name, {})}
        parser.add_argument(kind.pop("flag"), **kind)


def _kind(name: str, field: FieldInfo) -> dict[str, Any]:
    """What argparse gets for a field, by its type."""
    text, default, extra, types = (
        str(field.description),
        field.default,
        field.json_schema_extra,
        [*parts(field.annotation)],
    )
    if isinstance(default, (int, str)) and not isinstance(default, bool):
        text += f" (default: {default})"
    kind: dict[str, Any] = {"help": text.replace("%", "%%")}
    if bool in types and str not in types:
        return {**kind, "action": argparse.BooleanOptionalAction}
    metavar = extra.get("metavar") if isinstance(extra, dict) else None
    kind["metavar"] = metavar or "|".join(choices(field.annotation)) or name.upper()
    return {**kind, "nargs": "?", "const": True} if bool in types else kind
