"""`lm-eval-ape run`: the harness's `lm_eval run` after an explicit registration."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lm_eval_ape.errors import ApeError
from lm_eval_ape.hook import register

_UNKNOWN = "Tasks not found"


def main(arguments: Sequence[str]) -> int:
    """Hand the arguments to the harness's own command line; its default model becomes `ape-hf`.

    Args:
        arguments: What follows `lm-eval-ape run`.

    Raises:
        ApeError: A task is unknown.
    """
    register()
    from lm_eval.__main__ import cli_evaluate

    given = list(arguments)
    names = {argument.split("=", 1)[0] for argument in given}
    if given and not names & {"--model", "-M", "--config", "-C", "--help", "-h"}:
        given = ["--model", "ape-hf", *given]
    sys.argv = ["lm-eval-ape", "run", *given]
    try:
        cli_evaluate()
    except ValueError as error:
        # The harness has no exception of its own for a user's mistakes; others may be mistakes of its code.
        if not str(error).startswith(_UNKNOWN):
            raise
        raise ApeError(
            f"{error}. `lm_eval ls tasks` lists them; tasks of your own are found with --include_path."
        ) from error
    return 0
