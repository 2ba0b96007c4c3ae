"""`lm-eval-ape run`: the harness's `lm_eval run` after an explicit registration."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lm_eval_ape.hook import register


def main(arguments: Sequence[str]) -> int:
    """Hand the arguments to the harness's own command line; its default model becomes `ape-hf`.

    Args:
        arguments: What follows `lm-eval-ape run`.
    """
    register()
    from lm_eval.__main__ import cli_evaluate

    given = list(arguments)
    names = {argument.split("=", 1)[0] for argument in given}
    if given and not names & {"--model", "-M", "--config", "-C", "--help", "-h"}:
        given = ["--model", "ape-hf", *given]
    sys.argv = ["lm-eval-ape", "run", *given]
    cli_evaluate()
    return 0
