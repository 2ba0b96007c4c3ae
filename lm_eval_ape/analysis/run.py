"""An analysis from its options to its files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lm_eval_ape.analysis.document import make_document
from lm_eval_ape.analysis.measure import Observer, labelled
from lm_eval_ape.analysis.options import DEFAULT_STRATEGIES, Options
from lm_eval_ape.analysis.sweep import cases
from lm_eval_ape.analysis.tables import comma_separated, markdown
from lm_eval_ape.artefacts import analysis_file
from lm_eval_ape.artefacts.analysis import Analysis
from lm_eval_ape.comparison.board import make_board
from lm_eval_ape.comparison.compare import write as write_board
from lm_eval_ape.comparison.loggers import Loggers
from lm_eval_ape.comparison.measured import MeasuredApeHFLM
from lm_eval_ape.comparison.running import Strategies
from lm_eval_ape.harness.model_facts import device_name, model_facts
from lm_eval_ape.runtime.folder_lock import hold
from lm_eval_ape.storage.files import write_text

logger = logging.getLogger(__name__)

BOARD = "board"


def analyze(options: Options, command: Sequence[str] = (), lm: MeasuredApeHFLM | None = None) -> Analysis | None:
    """Measure attention and score of a model under several strategies and numbers of chunks, and correlate the two.

    Args:
        options: What to analyse, on what, and where to write.
        command: What was called, for the record.
        lm: The model that the options name, if it is loaded already.

    Returns:
        The content of `analysis.json`; None on every process but the first.

    Raises:
        ApeError: Another run holds the folder, or something asked for is impossible; what can be
            checked without the model is reported before it is loaded.
    """
    output = Path(str(options.output_path)).expanduser()
    with hold(output, command), hold(output / BOARD, command):
        return _analyze(options, output, command, lm)


def _analyze(options: Options, output: Path, command: Sequence[str], lm: MeasuredApeHFLM | None) -> Analysis | None:
    found = cases(options, options.strategies or tuple(DEFAULT_STRATEGIES.split(",")))
    labels = tuple(case.spec.label for case in found)
    compared = options.comparison.model_copy(update={"strategies": labels, "output_path": str(output / BOARD)})
    strategies = Strategies(compared, Loggers(compared), scored=options.scores)
    lm = lm or strategies.load()
    board = None
    if options.scores:
        runs = strategies.run(lm)
        if runs:
            board = make_board(
                runs,
                metric=options.metric,
                no_means=strategies.no_means,
                resamples=999,
                seed=options.seed,
                command=command,
            )
            write_board(output / BOARD, board)
    observer = Observer(lm, options, strategies.tasks, output / "cache")
    observed = [(case, observer.observe(case, what)) for case, what in labelled(found)]
    if lm.rank != 0:
        return None
    content = make_document(options, observed, board, facts=model_facts(lm), device=device_name(lm), command=command)
    _write(output, content)
    return content


def _write(output: Path, content: Analysis) -> None:
    analysis_file.write(output, content)
    write_text(output / "analysis.md", markdown(content))
    write_text(output / "analysis.csv", comma_separated(content))
    try:
        from lm_eval_ape.analysis.figures import draw
    except ImportError as error:
        logger.warning("No figures: they need matplotlib (%s). Everything else is in %s.", error, output)
    else:
        draw(content, output / "figures")
