"""What `calibrate`, `compare` and `analyze` have in common: options from flags, the work, and its output."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lm_eval_ape.cli.progress import add_flags, shown
from lm_eval_ape.settings.options import Options

if TYPE_CHECKING:
    from lm_eval_ape.forecast.forecast import Forecast

Asked = TypeVar("Asked", bound=Options)
Found = TypeVar("Found")


def carry_out(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str],
    read: Callable[[dict[str, Any]], Asked],
    work: Callable[[Asked, list[str]], Found | None],
    show: Callable[[Found, Asked], None],
    *,
    dry_run: Callable[[Asked], Forecast | None] | None = None,
) -> int:
    """Read the options, work, and print what was found; without arguments, print the help.

    Args:
        parser: Of the command.
        arguments: What follows its name.
        read: Makes options of the flags, None standing for those that were not given.
        work: Does it, given the options and the whole command; gives None on every process but the first.
        show: Prints what was found.
        dry_run: Tells what the work takes, where the command has a flag that asks for it; None on every process but
            the first.

    Raises:
        ApeError: Something asked for is impossible.
    """
    add_flags(parser)
    if not arguments:
        parser.print_help()
        return 0
    flags = vars(parser.parse_args(arguments))
    display = flags.pop("display")
    foretold = dry_run if flags.pop("dry_run", False) else None
    options = read(flags)
    if foretold:
        return _foretell(lambda: foretold(options), display)
    with shown(display):
        found = work(options, [*parser.prog.split(), *arguments])
    if found is not None:
        show(found, options)
    return 0


def _foretell(work: Callable[[], Forecast | None], display: str | None) -> int:
    """Print a forecast: the table on stderr, the line for scripts on stdout."""
    with shown(display):
        found = work()
    if found is not None:
        from lm_eval_ape.forecast.table import show

        show(found)
        print(found.as_json())
    return 0
