"""A comparison from its options to its files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from lm_eval_ape.artefacts import board_file
from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.comparison.board import make_board
from lm_eval_ape.comparison.formats import comma_separated, markdown
from lm_eval_ape.comparison.loggers import Loggers, Report
from lm_eval_ape.comparison.measured import MeasuredApeHFLM
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.comparison.running import Strategies
from lm_eval_ape.comparison.runs import Run, distinct, read_folders
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.specs import Spec
from lm_eval_ape.runtime.folder_lock import hold
from lm_eval_ape.storage.files import write_text

logger = logging.getLogger(__name__)


def compare(
    options: Options,
    command: Sequence[str] = (),
    report: Report | None = None,
    lm: MeasuredApeHFLM | None = None,
) -> Board | None:
    """Run the strategies, read the finished runs, and put all of them on one board.

    Args:
        options: What to compare, on what, and where to write.
        command: What was called, for the record.
        report: Makes the report that goes to W&B with the board (`report.page.report`); None for none.
        lm: The model that the options name, if it is loaded already.

    Returns:
        The board (see `board.make_board`); None on every process but the first.

    Raises:
        ApeError: Another run holds the folder, or something asked for is impossible; what can be
            checked without the model is reported before it is loaded.
    """
    with hold(options.output_path, command) if options.output_path else nullcontext():
        return _compare(options, command, report, lm)


def _compare(
    options: Options, command: Sequence[str], report: Report | None, lm: MeasuredApeHFLM | None
) -> Board | None:
    loggers = Loggers(options, report)
    strategies = Strategies(options, loggers) if options.runs else None
    runs = read_folders(options.sources)
    if strategies is not None:
        check_baseline(options, strategies.specs, runs)
        own = strategies.run(lm)
        if not own:
            return None
        runs = distinct([*own, *runs])
    logger.info("Comparing %s", ", ".join(run.label for run in runs))
    board = make_board(
        runs,
        baseline=options.baseline,
        metric=options.metric,
        no_means=strategies.no_means if strategies else None,
        resamples=options.resamples,
        seed=options.seed,
        command=command,
    )
    if options.output_path:
        write(Path(options.output_path).expanduser(), board)
    loggers.log_board(board)
    return board


def check_baseline(options: Options, specs: Sequence[Spec], runs: Sequence[Run]) -> None:
    """Refuse a baseline that is no row.

    Raises:
        ApeError: It names the rows that there are.
    """
    labels = [spec.label for spec in specs] + [run.label for run in runs]
    if options.baseline is not None and options.baseline not in labels:
        raise ApeError(
            f"There is no row {options.baseline!r} to be the baseline; there are {', '.join(map(repr, labels))}."
        )


def write(folder: Path, board: Board) -> None:
    """Write `board.json`, `board.md` and `board.csv`."""
    board_file.write(folder, board)
    write_text(folder / "board.md", markdown(board))
    write_text(folder / "board.csv", comma_separated(board))
