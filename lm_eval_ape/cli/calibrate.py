"""`lm-eval-ape calibrate`: the right (T, S) without a label."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm_eval_ape.calibration.flags import add_calibration_flags
from lm_eval_ape.calibration.options import Options, merge, read_file
from lm_eval_ape.cli.work import carry_out
from lm_eval_ape.forecast.flag import HELP, add_flag
from lm_eval_ape.settings.flags import command_parser

if TYPE_CHECKING:
    from lm_eval_ape.forecast.forecast import Forecast

DESCRIPTION = """\
Find the attention temperature T and scale S whose next-token distributions are closest, in KL divergence, to those of
the sequential model on the very same prompts. No label is read.

For each sample the sequential model (the teacher) continues the prompt by K greedy tokens. The chunks are encoded once;
then all (T, S) points of the grid are scored as one batch, and the point with the least mean KL is chosen. A bootstrap
over samples tells how sure that is.

With --search or --candidates, whole encodings are searched through, each with a small grid of (T, S) of its own: of all
ways to encode the cheapest that is close enough is chosen. What is worse beyond doubt stops being measured.

With --method gradient, T and S of each layer or head are learned instead, by gradient descent on the same divergence:
the chunks' keys and values stay as they are and only the query's pass is differentiated. Every sample is held out from
one of several fits; held-out samples say when to stop and how strongly to hold the heads together. What is not better
than the start on held-out samples beyond noise is refused: then T and S of layers, of the model, or the start itself
are the result.

With --entropy the attention entropy of every point is reported beside its KL, as a second signal without labels: the
point nearest to the sequential model's entropy is named, and taken with --choose_by entropy. It costs more than the KL.

The last line on stdout is the choice as --model_args takes it; all else goes to stderr. A run that was killed goes on
where it stopped when it is started again with the same --output_path.
"""
EPILOG = """\
grids:
  Without --temperatures and --scales, 0.6,0.7,0.8,0.9,1.0 of each for K=1 (25 points) and
  0.6,0.7,0.8,0.85,0.9,0.95,1.0 of each for K>1 (49 points). (0.9, 0.9), (1, 1) and the lines T at S=0.9 and S at T=0.9
  are always measured; beside the grid they cannot be chosen.

search (--search, --candidates; all flags whose text starts with "search:"):
  Every candidate, with every combination of the values to try, is measured on the same prompts against the same
  teacher. What does not go together is listed and left out before the model is loaded. The cost of an encoding is what
  it takes up to the first new token, counted in operations, as a share of the sequential model's. By default the
  cheapest encoding is chosen whose mean KL is within one standard error of the least; with --accept the cheapest within
  so many nats, with --budget the closest of those that cost at most that share. Without --temperatures and --scales,
  each encoding is measured at 0.9 and 1.0 of each. The last line then has the encoding's settings too, and
  calibration=OUTPUT_PATH and ape@OUTPUT_PATH take them up.

gradient (--method gradient, grid+gradient; all flags whose text starts with "gradient:"):
  Both models read the teacher's tokens (--history teacher). --granularity head tries T and S of the model and of each
  layer too. Of those that are better than the start on held-out samples (95% bootstrap interval of the paired
  difference above 0) the one with the least held-out KL is the result; if there is none, the start is. What was refused
  is reported with its figures, and stands in calibration.json. More than one T and S cannot stand in model_args: the
  last line is then calibration=OUTPUT_PATH, for --model_args, for compare as ape@OUTPUT_PATH, and in run_config.yaml.

output (--output_path):
  calibration.json  the choice, every sample's KL, every statistic, and what made them
  run_config.yaml   for lm_eval run --config
  *.png, *.svg      cost and KL of each encoding, the KL surface, the resamples' choices, KL against score, T and S by
                    layer and head, the training curve (with matplotlib)
  cache/            teachers and results; a larger grid, another history or a smaller K computes only what is new

{forecast}
examples:
  lm-eval-ape calibrate --model_args pretrained=MODEL --tasks ape_longbench_2wikimqa_calibration --output_path out
  lm_eval run --config out/run_config.yaml
  lm_eval --model ape-hf --model_args pretrained=MODEL,calibration=out --tasks ape_longbench_2wikimqa_test

  # into a script
  ARGS=$(lm-eval-ape calibrate --model_args pretrained=MODEL --tasks TASK --num_tokens 1 --limit 32 | tail -1)

  # with the label-tuned oracle, and all choices on the ..._test rows
  lm-eval-ape calibrate --model_args pretrained=MODEL --tasks ape_longbench_2wikimqa_calibration --with_labels

  # the paper's calibration; flags win over the file
  lm-eval-ape calibrate --config FILE.yaml --model_args pretrained=MODEL

  # the cheapest way to encode that is close enough
  lm-eval-ape calibrate --model_args pretrained=MODEL --tasks TASK --candidates parallel,sink,cacheblend,infoflow \
    --search positions=shared,serial --search chunks=2,4,8 --accept 0.05 --output_path out
  lm_eval --model ape-hf --model_args pretrained=MODEL,calibration=out --tasks TASK_test

  # T and S of each head, learned from the grid's choice on
  lm-eval-ape calibrate --model_args pretrained=MODEL --tasks TASK --limit 32 --method grid+gradient \
    --granularity head --output_path out
  lm-eval-ape compare --model_args pretrained=MODEL --tasks TASK_test --strategies sequential,ape,ape@out \
    --output_path board

  # how long, before asking Slurm for it: half as much again, in minutes
  ARGS="--model_args pretrained=MODEL --tasks TASK --output_path out"
  SECONDS_NEEDED=$(srun --gpus=1 --time=10 lm-eval-ape calibrate $ARGS --dry_run | tail -1 | jq .seconds)
  sbatch --gpus=1 --time=$(jq -n "$SECONDS_NEEDED / 40 + 5 | ceil") --wrap "lm-eval-ape calibrate $ARGS"

  # two processes
  torchrun --nproc-per-node 2 -m lm_eval_ape calibrate --model_args pretrained=MODEL --tasks TASK --output_path out
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags: those of `Options`, `--config` and `--dry_run`."""
    parser = command_parser("calibrate", DESCRIPTION, EPILOG.format(forecast=HELP))
    add_calibration_flags(parser)
    add_flag(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Calibrate and print the choice.

    Args:
        arguments: What follows `lm-eval-ape calibrate`.

    Raises:
        ApeError: Something asked for is impossible.
    """
    return carry_out(build_parser(), arguments, _read, _calibrate, lambda line, options: print(line), dry_run=_dry_run)


def _read(flags: dict[str, Any]) -> Options:
    """Options from flags, over those of the file that `--config` names."""
    given = {name: value for name, value in flags.items() if value is not None}
    config = given.pop("config", None)
    return Options.read(merge(read_file(config) if config else {}, given))


def _calibrate(options: Options, command: list[str]) -> str | None:
    """The choice as a line; None on every process but the first."""
    from lm_eval_ape.calibration import document, tables
    from lm_eval_ape.calibration.run import Calibration

    calibration = Calibration(options, command)
    content = calibration.run()
    if calibration.lm.rank != 0:
        return None
    tables.show(content)
    return document.model_args_line(content, str(options.output_path))


def _dry_run(options: Options) -> Forecast | None:
    from lm_eval_ape.calibration.dry_run import dry_run

    return dry_run(options)
