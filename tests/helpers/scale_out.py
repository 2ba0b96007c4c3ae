"""What `test_processes.py` runs in one process and in several, and compares: `scale_out.py CHECKPOINT TASKS OUTPUT`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

TASKS = ("toy_answer", "toy_choice", "toy_text", "toy_fewshot", "toy_single")


def evaluate(checkpoint: str, tasks: str, settings: dict[str, Any], **given: Any) -> dict[str, Any] | None:
    """All kinds of requests, one of the tasks with few-shot examples, one with a single document."""
    args = {"pretrained": checkpoint, "dtype": "float64", "chunking": "passages", "no_context": "sequential"}
    args |= {"device": "cpu", **settings}
    manager = TaskManager(include_path=tasks, include_defaults=False)
    return simple_evaluate(
        model="ape-hf", model_args=args, tasks=list(TASKS), task_manager=manager, log_samples=True, **given
    )


def commands(checkpoint: str, tasks: str, output: Path) -> list[list[str]]:
    """Every command that shares its work."""
    model = f"pretrained={checkpoint},dtype=float64,chunking=passages"
    shared = ["--model_args", model, "--include_path", tasks, "--device", "cpu"]
    grid = [*shared, "--tasks", "toy_choice", "--temperatures", "0.8,1.0", "--scales", "0.7,1.0", "--resamples", "50"]
    fit = [*shared, "--tasks", "toy_choice", "--method", "gradient", "--granularity", "head", "--steps", "2"]
    search = [*shared, "--tasks", "toy_choice", "--candidates", "sink,recompute[recompute=0.5]", "--num_tokens", "2"]
    search += ["--search", "positions=serial", "--resamples", "50", "--output_path", f"{output}/search"]
    strategies = ["--strategies", "sequential,ape", "--resamples", "99"]
    grid += ["--entropy", "--with_labels", "--test_tasks", "toy_single", "--output_path", f"{output}/grid"]
    fit += ["--folds", "2", "--output_path", f"{output}/fit"]
    board = [*shared, "--tasks", "toy_answer", *strategies, "--kl_tokens", "2", "--answer_nats"]
    board += ["--output_path", f"{output}/board"]
    attention = [*shared, "--tasks", "toy_answer", *strategies, "--chunks", "2", "--no-scores"]
    attention += ["--output_path", f"{output}/analysis"]
    calibrations = [["calibrate", *given] for given in (grid, fit, search)]
    return [*calibrations, ["compare", *board], ["analyze", *attention]]


def run_commands(checkpoint: str, tasks: str, output: Path) -> None:
    """Run them all, without their figures, which take longer than all of the work."""
    from lm_eval_ape.cli import main as command

    with mock.patch("lm_eval_ape.calibration.figures.draw"), mock.patch("lm_eval_ape.analysis.figures.draw"):
        for arguments in commands(checkpoint, tasks, output):
            assert command([*arguments, "--verbose"]) == 0


def main(checkpoint: str, tasks: str, folder: str) -> None:
    """Run all of it; the first process writes what it got."""
    torch.set_num_threads(1)
    output = Path(folder)
    runs: dict[str, tuple[str, dict[str, Any]]] = {
        "ape": ("ape", {"use_cache": str(output / "responses")}),
        "sequential": ("sequential", {}),
        "batched": ("ape", {"batch_size": 3}),
        "recompute": ("recompute", {}),
    }
    for name, (strategy, given) in runs.items():
        args = {"request_log": str(output / "requests.jsonl")} if name == "ape" else {}
        results = evaluate(checkpoint, tasks, {"strategy": strategy, **args}, **given)
        if results is not None:
            part = {key: results[key] for key in ("results", "samples")}
            (output / f"{name}.{os.getpid()}.json").write_text(json.dumps(part, default=str))
    run_commands(checkpoint, tasks, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
