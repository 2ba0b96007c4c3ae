"""`lm-eval-ape demo`: what each encoding strategy does to the model that the package ships, offline."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_eval_ape.option_values import count
from lm_eval_ape.pocket import POCKET

if TYPE_CHECKING:
    from rich.console import Console

STRATEGIES = ("sequential", "parallel", "sink", "ape")
TASKS = ("ape_pocket_onehop_test", "ape_pocket_twohop_test")
EPILOG = """\
The same evaluation of one strategy with the harness's own command line:
  lm_eval --model ape-hf --model_args pretrained=pocket,strategy=ape,chunking=passages --tasks ape_pocket_twohop_test
"""


class Line(NamedTuple):
    """One strategy's results: for each task the mean score and its standard error, in [0, 1], and seconds in all."""

    strategy: str
    scores: list[tuple[float, float]]
    seconds: float


def main(arguments: Sequence[str]) -> int:
    """Evaluate the shipped model under every strategy and print one table.

    Args:
        arguments: What follows `lm-eval-ape demo`.
    """
    parser = argparse.ArgumentParser(
        prog="lm-eval-ape demo",
        description="Compare encoding strategies on the shipped model and its test questions, through the harness.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--limit", type=int, default=168, help="questions of each task (default: all %(default)s)")
    parser.add_argument("--passages", type=int, default=10, help="passages of each context (default: %(default)s)")
    parser.add_argument("--chunks", type=int, default=2, help="chunks that they are joined into (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="questions at a time (default: %(default)s)")
    args = parser.parse_args(arguments)
    for name, value in vars(args).items():
        count(1)(name, value)
    # Nothing here comes from the hub; without this the harness would ask it for the model's commit.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from rich.console import Console

    console = Console()
    show(evaluate(args), args, console)
    calibrate(args, console)
    return 0


def evaluate(args: argparse.Namespace) -> list[Line]:
    """Run every strategy on the same questions, one load of the model.

    Args:
        args: The command's options.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lm_eval_ape.model import ApeHFLM
    from lm_eval_ape.pocket import pocket_path
    from lm_eval_ape.tasks import TASKS_DIR

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(
        include_path=str(TASKS_DIR), include_defaults=False, metadata={"pocket_passages": args.passages}
    )
    model = AutoModelForCausalLM.from_pretrained(pocket_path())
    tokenizer = AutoTokenizer.from_pretrained(pocket_path())
    lines = []
    for strategy in STRATEGIES:
        lm = ApeHFLM(
            model,
            tokenizer=tokenizer,
            batch_size=args.batch_size,
            strategy=strategy,
            chunking="passages",
            max_chunks=args.chunks,
        )
        began = time.perf_counter()
        results: dict[str, Any] = simple_evaluate(
            model=lm, tasks=list(TASKS), task_manager=manager, limit=args.limit, log_samples=False
        )["results"]
        seconds = time.perf_counter() - began
        scores = [(results[task]["score,none"], results[task]["score_stderr,none"]) for task in TASKS]
        lines.append(Line(strategy, scores, seconds))
    return lines


def show(lines: Sequence[Line], args: argparse.Namespace, console: Console) -> None:
    """Print the table of all strategies."""
    from rich.table import Table

    console.print(f"{args.limit} questions a task over {args.passages} passages in {args.chunks} chunks")
    table = Table("strategy", caption="QA F1 x 100 ± standard error; seconds for both tasks", caption_justify="left")
    for task in TASKS:
        table.add_column(task.removeprefix("ape_pocket_").removesuffix("_test"), justify="right")
    table.add_column("seconds", justify="right")
    for line in lines:
        cells = [f"{100 * score:.1f} ± {100 * error:.1f}" for score, error in line.scores]
        table.add_row(line.strategy, *cells, f"{line.seconds:.0f}")
    console.print(table)


def calibrate(args: argparse.Namespace, console: Console) -> None:
    """Choose (T, S) without labels on other questions of the second kind, and print the choice and its rivals."""
    from lm_eval_ape.calibration.options import Options
    from lm_eval_ape.calibration.run import calibrate as run

    options = Options(
        model_args={"pretrained": POCKET, "chunking": "passages", "max_chunks": args.chunks},
        tasks=("ape_pocket_twohop_calibration",),
        metadata={"pocket_passages": args.passages},
    )
    content = run(options)
    choice, points = content["choice"], content["grid"]["points"]
    edge = f" (on the grid's edge: {', '.join(choice['edges'])})" if choice["edges"] else ""
    console.print(
        f"Calibrated without labels on {len(content['samples'])} two-hop questions, {len(points)} points (T, S): "
        f"attn_temperature={choice['attn_temperature']},attn_scale={choice['attn_scale']}{edge} is closest to the "
        f"sequential model, mean KL {choice['mean_kl']:.3f} nats over {options.num_tokens} tokens",
        highlight=False,
    )
