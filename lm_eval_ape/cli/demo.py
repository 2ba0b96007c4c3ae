"""`lm-eval-ape demo`: what each encoding strategy does to the model that the package ships, offline."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lm_eval_ape.pocket import POCKET
from lm_eval_ape.settings import option_values as values
from lm_eval_ape.settings.flags import add_flags, command_parser
from lm_eval_ape.settings.options import Options, option

if TYPE_CHECKING:
    from rich.console import Console

    from lm_eval_ape.artefacts.board import Board
    from lm_eval_ape.artefacts.calibration import Calibration

STRATEGIES = ("sequential", "parallel", "sink", "ape", "recompute")
TASKS = ("ape_pocket_onehop_test", "ape_pocket_twohop_test")
KL_TOKENS, KL_LIMIT = 8, 32
DESCRIPTION = """\
Calibrate the shipped model, compare encoding strategies on its test questions through the harness, and make a report of
both.
"""
EPILOG = """\
The same evaluation of one strategy with the harness's own command line:
  lm_eval --model ape-hf --model_args pretrained=pocket,strategy=ape,chunking=passages --tasks ape_pocket_twohop_test
"""


class Demo(Options):
    """Fields are the flags of `lm-eval-ape demo`."""

    COMMAND: ClassVar[str] = "demo"

    limit: values.Count = option(168, "questions of each task; the default is all", "N")
    passages: values.Count = option(10, "passages of each context", "N")
    chunks: values.Count = option(2, "chunks that they are joined into", "N")
    batch_size: values.Count = option(8, "questions at a time", "N")
    output_path: values.Text = option("out/demo", "folder for all results", "DIR")


def main(arguments: Sequence[str]) -> int:
    """Calibrate and compare the shipped model, print one table, and make a report.

    Args:
        arguments: What follows `lm-eval-ape demo`.
    """
    parser = command_parser("demo", DESCRIPTION, EPILOG)
    add_flags(parser, Demo)
    args = Demo.read(vars(parser.parse_args(arguments)))
    # Nothing here comes from the hub; without this the harness would ask it for the model's commit.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from rich.console import Console

    from lm_eval_ape.report.page import report

    console = Console()
    folder = Path(args.output_path)
    command = ["lm-eval-ape", "demo", *arguments]
    calibration = calibrate(args, folder / "calibration", command)
    board = compare(args, folder / "board", command)
    if board is None:
        return 0
    page = report([str(folder)])
    show(board, args, console)
    tell(calibration, console)
    console.print(f"The report is in {page}, the board and the calibration beside it.", soft_wrap=True)
    return 0


def _options(args: Demo, folder: Path) -> dict[str, Any]:
    return {
        "model_args": {"pretrained": POCKET, "chunking": "passages", "max_chunks": args.chunks},
        "metadata": {"pocket_passages": args.passages},
        "output_path": str(folder),
    }


def compare(args: Demo, folder: Path, command: Sequence[str]) -> Board | None:
    """Run every strategy on the same questions and measure its KL from the sequential model.

    Args:
        args: The command's options.
        folder: Where to write.
        command: What was called, for the record.

    Returns:
        The board; None on every process but the first.
    """
    from lm_eval_ape.comparison.compare import compare as run
    from lm_eval_ape.comparison.options import Options as ComparisonOptions

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    given = {"tasks": TASKS, "strategies": STRATEGIES, "limit": args.limit, "batch_size": args.batch_size}
    options = ComparisonOptions.read({**_options(args, folder), **given, "kl_tokens": KL_TOKENS, "kl_limit": KL_LIMIT})
    return run(options, command)


def show(board: Board, args: Demo, console: Console) -> None:
    """Print the table of all strategies."""
    from rich.table import Table

    console.print(f"{args.limit} questions a task over {args.passages} passages in {args.chunks} chunks")
    caption = (
        f"QA F1 x 100 ± standard error; KL from sequential (nats), {KL_TOKENS} tokens of the first {KL_LIMIT} "
        "questions; seconds for both tasks"
    )
    table = Table("strategy", caption=caption, caption_justify="left")
    names = {task: task.removeprefix("ape_pocket_").removesuffix("_test") for task in TASKS}
    for header in (*names.values(), *(f"KL {name}" for name in names.values()), "seconds"):
        table.add_column(header, justify="right")
    for row in board.rows:
        scores = [row.tasks[task] for task in TASKS]
        cells = [f"{100 * score.score:.1f} ± {100 * (score.stderr or 0):.1f}" for score in scores]
        cells += [f"{score.kl.mean:.3f}" if score.kl else "-" for score in scores]
        cost = row.costs
        seconds = f"{cost.requests * cost.seconds.mean:.0f}" if cost and cost.seconds else "-"
        table.add_row(row.label, *cells, seconds)
    console.print(table)


def calibrate(args: Demo, folder: Path, command: Sequence[str]) -> Calibration:
    """Choose (T, S) without labels on other questions of the second kind.

    Args:
        args: The command's options.
        folder: Where to write.
        command: What was called, for another run that finds the folder held.
    """
    from lm_eval_ape.calibration.options import Options as CalibrationOptions
    from lm_eval_ape.calibration.run import calibrate as run

    return run(CalibrationOptions.read({**_options(args, folder), "tasks": ["ape_pocket_twohop_calibration"]}), command)


def tell(content: Calibration, console: Console) -> None:
    """Print a calibration's choice in a sentence."""
    choice, points = content.choice, content.grid.points
    edge = f" (on the grid's edge: {', '.join(choice.edges)})" if choice.edges else ""
    console.print(
        f"Calibrated without labels on {len(content.samples)} two-hop questions, {len(points)} points (T, S): "
        f"attn_temperature={choice.attn_temperature},attn_scale={choice.attn_scale}{edge} is closest to the "
        f"sequential model, mean KL {choice.mean_kl:.3f} nats over {content.objective.num_tokens} tokens",
        highlight=False,
    )
