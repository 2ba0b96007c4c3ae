"""`lm-eval-ape card`: Markdown for a model card of a calibrated setting."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_ape.settings.flags import command_parser

DESCRIPTION = """\
Print Markdown for the model card of a calibrated setting: the (T, S), on what and how they were chosen, their KL beside
that of the untuned points, how stable the choice is, scores from a board, the arguments to use, and what all this does
not show. Where the board has results on data sets of the Hugging Face hub, a metadata block (model-index) precedes it.
"""
EPILOG = """\
examples:
  lm-eval-ape card out/calibration
  lm-eval-ape card out/calibration --board out/board > README.md
"""


def main(arguments: Sequence[str]) -> int:
    """Print the card.

    Args:
        arguments: What follows `lm-eval-ape card`.

    Raises:
        ApeError: A file cannot be read, or the board has no row of this setting.
    """
    parser = command_parser("card", DESCRIPTION, EPILOG)
    parser.add_argument("calibration", metavar="CALIBRATION", help="calibration.json, or its folder")
    parser.add_argument("--board", metavar="DIR", help="folder of a board.json with a row of this setting")
    if not arguments:
        parser.print_help()
        return 0
    args = parser.parse_args(arguments)
    from pathlib import Path

    from lm_eval_ape.artefacts import board_file, calibration_file
    from lm_eval_ape.report.model_card import card

    board = None
    if args.board:
        path = Path(args.board).expanduser()
        board = board_file.read(path / board_file.FILE_NAME if path.is_dir() else path)
    print(card(calibration_file.read(args.calibration), board), end="")
    return 0
