"""Runs and board to Weights & Biases and Trackio, through the harness's own loggers.

Each strategy is a run that holds what `lm_eval --wandb_args` or `--trackio_args` would log of it; a last one holds the
board. All are in one group.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.comparison.formats import comma_separated
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.errors import ApeError

logger = logging.getLogger(__name__)

BOARD = "board"

Report = Callable[[Sequence[str]], Path]
"""Makes a page of what some folders hold, and says where it is."""


class Loggers:
    """The loggers that were asked for; false if there is none.

    Args:
        options: With `wandb_args`, `wandb_config_args` and `trackio_args`.
        report: Makes the report of some folders and returns its file (`report.page.report`), for W&B; None for none.

    Raises:
        ApeError: A package is missing, or the board would have no folder.
    """

    def __init__(self, options: Options, report: Report | None = None) -> None:
        self.options = options
        self.report = report
        self.asked = {name: args for name in ("wandb", "trackio") if (args := getattr(options, f"{name}_args"))}
        for name in self.asked:
            if find_spec(name) is None:
                raise ApeError(f"{name}_args needs the package {name}, which is not installed: pip install {name}.")
        if "wandb" in self.asked and options.output_path is None:
            raise ApeError("wandb_args needs output_path, the folder of the board and report that are logged.")

    def __bool__(self) -> bool:
        return bool(self.asked)

    def log_run(self, label: str, results: Mapping[str, Any], samples: Mapping[str, Any]) -> None:
        """Log a strategy's results and samples.

        Args:
            label: The strategy.
            results: As `simple_evaluate` gives them, without samples.
            samples: By task.
        """
        for name in self.asked:
            self._guarded(name, label, lambda harness: _log(harness, results, samples))

    def log_board(self, board: Board) -> None:
        """Log the board: as scores by task and row, and for W&B also as table, and its files with the report."""
        scores = {
            task: {
                f"{row.label.replace(',', ';')},none": row.tasks[task].score for row in board.rows if task in row.tasks
            }
            for task in board.tasks
        }
        results = {"results": scores, "configs": {}, "config": {"command": board.command, **board.versions}}
        if "trackio" in self.asked:
            self._guarded("trackio", BOARD, lambda harness: _log(harness, results, {}))
        if "wandb" in self.asked:
            self._guarded("wandb", BOARD, lambda harness: self._wandb_board(harness, results, board))

    def _guarded(self, name: str, label: str, log: Callable[[Any], None]) -> None:
        """Log in a run of its own; what fails costs a warning and nothing else, as in the harness."""
        try:
            harness = self._open(name, label)
            try:
                log(harness)
            finally:
                harness.run.finish() if name == "wandb" else harness.finish()
        except Exception as error:
            logger.warning("Logging %s to %s failed: %s: %s", label, name, type(error).__name__, error)

    def _open(self, name: str, label: str) -> Any:
        from lm_eval import loggers

        group = Path(self.options.output_path or BOARD).expanduser().resolve().name
        arguments = {"group": group, **self.asked[name], "name": label}
        if name == "wandb":
            return loggers.WandbLogger(arguments, dict(self.options.wandb_config_args))
        return loggers.TrackioLogger(arguments)

    def _wandb_board(self, harness: Any, results: Mapping[str, Any], board: Board) -> None:
        import wandb

        _log(harness, results, {})
        folder = Path(str(self.options.output_path)).expanduser()
        header, *lines = csv.reader(io.StringIO(comma_separated(board)))
        harness.run.log({BOARD: wandb.Table(columns=header, data=lines)})
        artifact = wandb.Artifact(BOARD, type=BOARD)
        pages = [self.report([str(folder)])] if self.report else []
        for path in [*pages, *(folder / f"{BOARD}.{kind}" for kind in ("json", "md", "csv"))]:
            artifact.add_file(str(path))
        harness.run.log_artifact(artifact)


def _log(harness: Any, results: Mapping[str, Any], samples: Mapping[str, Any]) -> None:
    harness.post_init(dict(results))
    harness.log_eval_result()
    if samples:
        harness.log_eval_samples(dict(samples))
