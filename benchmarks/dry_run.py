r"""What `--dry_run` says of a command, beside what the command then takes: seconds, and bytes at the peak.

    python benchmarks/dry_run.py --limit 16

Each of both runs in a process of its own. The random Llama is saved to a folder with the shipped tokenizer; it does not
end an answer early. The shipped model does, so its comparison takes less than the limits that are counted; calibrations
go on after an end of sequence (`--after_eos continue`), as they are counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from flags import parse, parser, positive
from timing import Spread, Table, finish, ratios
from transformers import AutoTokenizer
from workload import SHAPES, make_model

from lm_eval_ape.pocket import pocket_path

PROMPTS = {"chunking": "passages", "max_chunks": 4}
CALIBRATION, TEST = "ape_pocket_twohop_calibration", "ape_pocket_twohop_test"
STRATEGIES = ["sequential", "parallel", "ape", "recompute", "sink+selective"]


def cases(random: str, args: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Each case's command and options."""
    shared = {"limit": args.limit, "device": args.device, "metadata": {"pocket_passages": args.passages}}

    def model(name: str) -> dict[str, Any]:
        return {"pretrained": name, "dtype": args.dtype, **PROMPTS}

    pocket = shared | {"model_args": model("pocket")}
    large = shared | {"model_args": model(random)}
    calibration, test = {"tasks": [CALIBRATION], "num_tokens": 8, "after_eos": "continue"}, {"tasks": [TEST]}
    search = {"search": {"recompute": [0, 0.05, 0.3], "positions": ["shared", "serial"]}, "race": False}
    return {
        "calibrate, shipped model": ("calibrate", pocket | calibration),
        "search, shipped model": ("calibrate", pocket | calibration | search),
        "compare, shipped model": ("compare", pocket | test | {"strategies": STRATEGIES, "kl_tokens": 4}),
        "calibrate, random Llama": ("calibrate", large | calibration),
        "compare, random Llama": ("compare", large | test | {"strategies": STRATEGIES, "answer_nats": True}),
    }


def main() -> None:
    flags = parser(__doc__, repeats=1)
    flags.add_argument("--limit", type=positive, default=16, help="documents (default: %(default)s)")
    flags.add_argument("--passages", type=positive, default=10, help="of each context (default: %(default)s)")
    flags.add_argument("--only", nargs="+", help="some cases alone, by their numbers from 1")
    flags.add_argument("--alone", help="for the benchmark itself: one process's work, as JSON")
    args = parse(flags)
    if args.alone:
        print(json.dumps(work(**json.loads(args.alone))))
        return
    shape = SHAPES[args.shape]
    table = Table(
        f"Forecasts and runs of {args.limit} documents; random Llama: {shape.words()}",
        "case|seconds foretold|seconds taken|ratio|MiB foretold|MiB at the peak|ratio".split("|"),
    )
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        random = Path(folder, "random")
        make_model(shape, "cpu", args.dtype, 8192).save_pretrained(random)
        AutoTokenizer.from_pretrained(pocket_path()).save_pretrained(random)
        for number, (name, (command, options)) in enumerate(cases(str(random), args).items(), start=1):
            if args.only and str(number) not in args.only:
                continue
            told, took = [], []
            for turn in range(args.repeats):
                told.append(alone(args, command, options, dry=True))
                output = Path(folder, f"out-{number}-{turn}")
                took.append(alone(args, command, options | {"output_path": str(output)}, dry=False))
            columns: dict[str, tuple[Spread, Spread, Spread]] = {}
            for what in ("seconds", "peak"):
                foretold, taken = [one[what] for one in told], [one[what] for one in took]
                columns[what] = Spread.of(foretold), Spread.of(taken), ratios(foretold, taken)
            table.add(name, *(one.text() for column in columns.values() for one in column))
            figures.append({"case": name, "foretold": told, "taken": took})
    finish(args, [table], figures)


def alone(args: Any, command: str, options: Mapping[str, Any], *, dry: bool) -> dict[str, float]:
    """Seconds, and the peak in MiB, of a process that does one thing."""
    asked = json.dumps({"command": command, "options": options, "clock": args.clock, "dry": dry})
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    threads = ["--threads", str(args.threads)] if args.threads else []
    done = subprocess.run(
        [sys.executable, __file__, "--device", args.device, *threads, "--alone", asked],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def work(command: str, options: Mapping[str, Any], clock: str, *, dry: bool) -> dict[str, float]:
    """What a forecast says, or what the run takes once the model is loaded."""
    from lm_eval_ape.comparison.memory import PeakMemory

    if clock == "cpu":
        processor_clock()
    memory = PeakMemory.begin(torch.device(str(options["device"])))
    if dry:
        told = foretell(command, {**options, "output_path": "not_made"})
        return {
            "seconds": told["seconds"],
            "peak": told["peak_bytes"] / 2**20,
            "measuring": told["measured"]["seconds"],
        }
    seconds = (
        calibrated(options)
        if command == "calibrate"
        else compared(options, process_time if clock == "cpu" else perf_counter)
    )
    return {"seconds": seconds, "peak": memory.bytes / 2**20}


def processor_clock() -> None:
    """Let forecasts and calibrations count processor seconds."""
    from lm_eval_ape.calibration import dry_run as calibration
    from lm_eval_ape.calibration import run
    from lm_eval_ape.comparison import dry_run as comparison
    from lm_eval_ape.forecast import measuring, requests

    for module in (calibration, run, comparison, measuring):
        vars(module)["perf_counter"] = process_time
    for timed in (calibration, requests):
        vars(timed)["now"] = lambda device: process_time()


def foretell(command: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The forecast."""
    from lm_eval_ape.calibration import dry_run as calibration
    from lm_eval_ape.calibration.options import Options as CalibrationOptions
    from lm_eval_ape.comparison import dry_run as comparison
    from lm_eval_ape.comparison.options import Options

    if command == "calibrate":
        found = calibration.dry_run(CalibrationOptions.read(options))
    else:
        found = comparison.dry_run(Options.read(options))
    assert found is not None
    content: dict[str, Any] = json.loads(found.as_json())
    return content


def calibrated(options: Mapping[str, Any]) -> float:
    """Seconds of a calibration, loading and writing left out."""
    from lm_eval_ape.calibration.options import Options
    from lm_eval_ape.calibration.run import calibrate

    seconds = calibrate(Options.read(options)).seconds
    return sum(seconds.values()) - seconds["load"]


def compared(options: Mapping[str, Any], now: Callable[[], float]) -> float:
    """Seconds of a comparison's strategies, loading left out."""
    from lm_eval_ape.comparison.loggers import Loggers
    from lm_eval_ape.comparison.options import Options
    from lm_eval_ape.comparison.running import Strategies

    given = Options.read(options)
    strategies = Strategies(given, Loggers(given, None))
    lm = strategies.load()
    start = now()
    strategies.run(lm)
    return now() - start


if __name__ == "__main__":
    main()
