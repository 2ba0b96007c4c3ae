"""`lm-eval-ape demo`: what each encoding strategy does to a small model, offline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from lm_eval_ape.cli import progress
from lm_eval_ape.cli.demo_plans import Plan, pocket, smollm2
from lm_eval_ape.errors import ApeError
from lm_eval_ape.pocket import POCKET
from lm_eval_ape.settings import option_values as values
from lm_eval_ape.settings.flags import add_flags, command_parser
from lm_eval_ape.settings.options import Options, option

if TYPE_CHECKING:
    from rich.console import Console

    from lm_eval_ape.artefacts.board import Board, TaskScore
    from lm_eval_ape.artefacts.calibration import Calibration

DESCRIPTION = """\
Calibrate a model, compare encoding strategies on test questions through the harness, and make a report of both: the
shipped model in two minutes, or SmolLM2-135M-Instruct in a quarter of an hour on two cores.
"""
EPILOG = """\
examples:
  lm-eval-ape demo

  # a real model, once it has been fetched, on texts that need no data: Python's manual, key-value pairs, needles
  lm-eval-ape fetch smollm2
  lm-eval-ape demo --model smollm2

  # or on TREC and BANKING77: a folder with trec/train.jsonl, trec/test.jsonl and the same of banking77
  lm-eval-ape demo --model smollm2 --fewshot_dir DIR

the same evaluation of one strategy with the harness's own command line:
  lm_eval --model ape-hf --model_args pretrained=pocket,strategy=ape,chunking=passages --tasks ape_pocket_twohop_test
"""


class Demo(Options):
    """Fields are the flags of `lm-eval-ape demo`."""

    COMMAND: ClassVar[str] = "demo"

    model: Literal["pocket", "smollm2"] = option(POCKET, "the shipped model, or the one that `fetch` fetches")
    limit: values.Count | None = option(None, "questions of each task (default: 168; of smollm2 6)", "N")
    passages: values.Count | None = option(None, "pocket: passages of each context (default: 10)", "N")
    chunks: values.Count | None = option(None, "chunks that contexts are read in (default: 2; of smollm2 4)", "N")
    batch_size: values.Count | None = option(None, "questions at a time (default: 8; of smollm2 4)", "N")
    fewshot_dir: values.Text | None = option(None, "smollm2: folder with TREC and BANKING77", "DIR")
    output_path: values.Text = option("out/demo", "folder for all results", "DIR")

    @model_validator(mode="after")
    def _check_together(self) -> Demo:
        idle = "fewshot_dir" if self.model == POCKET else "passages"
        if getattr(self, idle) is not None:
            other = "smollm2" if self.model == POCKET else POCKET
            raise ApeError(f"--{idle} goes with --model {other}; drop it, or give that model.")
        return self

    def plan(self) -> Plan:
        """What is shown, with what was asked for in place of the model's defaults."""
        plan = pocket(self.passages or 10) if self.model == POCKET else smollm2(self.fewshot_dir)
        return plan._replace(
            limit=self.limit or plan.limit,
            chunks=self.chunks or plan.chunks,
            batch_size=self.batch_size or plan.batch_size,
        )


def main(arguments: Sequence[str]) -> int:
    """Calibrate and compare the shipped model, print one table, and make a report.

    Args:
        arguments: What follows `lm-eval-ape demo`.
    """
    parser = command_parser("demo", DESCRIPTION, EPILOG)
    add_flags(parser, Demo)
    progress.add_flags(parser)
    flags = vars(parser.parse_args(arguments))
    display = flags.pop("display")
    args = Demo.read(flags)
    # Nothing here comes from the hub; without this the harness would ask it for the model's commit.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from rich.console import Console

    from lm_eval_ape.checkpoints.names import located
    from lm_eval_ape.report.page import report

    console = Console()
    folder, plan = Path(args.output_path), args.plan()
    located(args.model)
    command = ["lm-eval-ape", "demo", *arguments]
    with progress.shown(display) as told:
        told.title("1 of 2: T and S without labels")
        calibration = calibrate(plan, folder / "calibration", command)
        told.title(f"2 of 2: {len(plan.strategies)} strategies on {', '.join(plan.tasks.values())}")
        board = compare(plan, folder / "board", command)
    if board is None:
        return 0
    page = report([str(folder)])
    show(board, plan, console)
    tell(calibration, console)
    console.print(f"The report is in {page}, the board and the calibration beside it.", soft_wrap=True)
    return 0


def _options(plan: Plan, folder: Path) -> dict[str, Any]:
    # Chunks of whole passages are joined; other contexts are cut evenly.
    cut = {"max_chunks" if "chunking" in plan.model_args else "chunks": plan.chunks}
    return {
        "model_args": {**plan.model_args, **cut},
        "metadata": dict(plan.metadata),
        "output_path": str(folder),
    }


def compare(plan: Plan, folder: Path, command: Sequence[str]) -> Board | None:
    """Run every strategy on the same questions and measure its KL from the sequential model.

    Args:
        plan: What is shown.
        folder: Where to write.
        command: What was called, for the record.

    Returns:
        The board; None on every process but the first.
    """
    from lm_eval_ape.comparison.compare import compare as run
    from lm_eval_ape.comparison.options import Options as ComparisonOptions

    given = {
        **{"tasks": list(plan.tasks), "strategies": plan.strategies, "limit": plan.limit},
        **{"batch_size": plan.batch_size, "kl_tokens": plan.kl_tokens, "kl_limit": plan.kl_limit},
    }
    return run(ComparisonOptions.read({**_options(plan, folder), **given}), command)


def show(board: Board, plan: Plan, console: Console) -> None:
    """Print the table of all strategies."""
    from rich.table import Table
    from rich.text import Text

    from lm_eval_ape.comparison.answer import answer

    console.print(plan.words.format(limit=plan.limit, chunks=plan.chunks))
    metrics = {board.tasks[task].metric: board.tasks[task] for task in plan.tasks}
    words = ", ".join(f"{name}{' (less is better)' * (not one.higher_is_better)}" for name, one in metrics.items())
    caption = (
        f"{words}, x 100 where it is a share, ± standard error; KL from sequential (nats), {plan.kl_tokens} tokens of "
        f"the first {plan.kl_limit} questions; seconds for all tasks"
    )
    table = Table("strategy", caption=caption, caption_justify="left")
    for header in (*plan.tasks.values(), "seconds"):
        table.add_column(header, justify="right")
    for row in board.rows:
        cells = [_cell(row.tasks[task], share=board.tasks[task].higher_is_better) for task in plan.tasks]
        cost = row.costs
        seconds = f"{cost.requests * cost.seconds.mean:.0f}" if cost and cost.seconds else "-"
        # As text: brackets of a setting are no markup.
        table.add_row(Text(row.label), *cells, seconds)
    console.print(table)
    console.print(answer(board), markup=False, highlight=False, soft_wrap=True)


def _cell(score: TaskScore, *, share: bool) -> str:
    """The score, and the KL on a line of its own: three tasks fit beside one another."""
    times, digits = (100, 1) if share else (1, 3)
    shown = f"{times * score.score:.{digits}f} ± {times * (score.stderr or 0):.{digits}f}"
    return f"{shown}\nKL {score.kl.mean:.3f}" if score.kl else shown


def calibrate(plan: Plan, folder: Path, command: Sequence[str]) -> Calibration:
    """Choose (T, S) without labels on other questions.

    Args:
        plan: What is shown.
        folder: Where to write.
        command: What was called, for another run that finds the folder held.
    """
    from lm_eval_ape.calibration.options import Options as CalibrationOptions
    from lm_eval_ape.calibration.run import calibrate as run

    given = {"tasks": [plan.calibration], "limit": plan.samples}
    return run(CalibrationOptions.read({**_options(plan, folder), **given}), command)


def tell(content: Calibration, console: Console) -> None:
    """Print a calibration's choice in a sentence."""
    choice, points = content.choice, content.grid.points
    edge = f" (on the grid's edge: {', '.join(choice.edges)})" if choice.edges else ""
    console.print(
        f"Calibrated without labels on {len(content.samples)} other prompts, {len(points)} points (T, S): "
        f"attn_temperature={choice.attn_temperature},attn_scale={choice.attn_scale}{edge} is closest to the "
        f"sequential model, mean KL {choice.mean_kl:.3f} nats over {content.objective.num_tokens} tokens",
        highlight=False,
    )
