"""The options of a comparison: one list for the command line's flags and Python."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator
from typing_extensions import Self

from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings import option_values as values
from lm_eval_ape.settings.options import HarnessOptions, option

DEFAULT_STRATEGIES = "sequential,parallel,sink,ape"
_RUNNING = (
    "tasks",
    "strategies",
    "limit",
    "num_fewshot",
    "gen_kwargs",
    "device",
    "kl_tokens",
    "kl_limit",
    "answer_nats",
)


def strategies_option(default: str) -> Any:
    """The field that names strategies.

    Args:
        default: What is taken if none is named, for the help.
    """
    return option((), f"NAME, NAME[setting=value,...] or NAME@calibration.json (default: {default})", "SPEC,...")


class StrategyOptions(HarnessOptions):
    """How several strategies of one model are run and scored."""

    model_args: values.Arguments = option(
        {}, "the model, as for lm_eval --model ape-hf; all strategies share it", "pretrained=MODEL,..."
    )
    metric: values.Text | None = option(
        None, "what is scored (default: each task's first metric that is a mean over documents)", "NAME"
    )
    gen_kwargs: values.Arguments = option({}, "generation settings over the tasks' own", "KEY=VALUE,...")


class Options(StrategyOptions):
    """Strategies, tasks and output of a comparison. Fields are the flags of `lm-eval-ape compare`."""

    COMMAND: ClassVar[str] = "compare"

    strategies: values.Specs = strategies_option(DEFAULT_STRATEGIES)
    sources: values.Names = option(
        (), "folders of finished runs (lm_eval --log_samples, or of this command) to put on the board", "DIR"
    )
    baseline: values.Text | None = option(None, "row that the others are compared with (default: sequential)", "NAME")
    output_path: values.Text | None = option(None, "folder for the runs and board.md, board.csv, board.json", "DIR")
    resamples: values.CountFrom99 = option(9999, "bootstrap resamples, and sign flips of the test", "N")
    seed: values.CountFrom0 = option(1234, "seed of both", "N")
    kl_tokens: values.CountFrom0 = option(
        0, "measure each strategy's KL from the sequential model over so many next tokens", "K"
    )
    kl_limit: values.Count | None = option(None, "measure the KL of the first N documents of each task alone", "N")
    answer_nats: values.Switch = option(
        False, "measure the log-likelihood of each document's reference answer under each strategy, in nats"
    )
    wandb_args: values.Arguments = option(
        {}, "log each strategy's run and the board to Weights & Biases, with arguments of wandb.init", "KEY=VALUE,..."
    )
    wandb_config_args: values.Arguments = option({}, "further configuration of those runs", "KEY=VALUE,...")
    trackio_args: values.Arguments = option(
        {}, "log the same to Trackio, with arguments of trackio.init", "KEY=VALUE,..."
    )

    @model_validator(mode="after")
    def check(self) -> Self:
        """Refuse a comparison of nothing, and options about runs where nothing is run."""
        if self.wandb_config_args and not self.wandb_args:
            raise ApeError("wandb_config_args goes with wandb_args: --wandb_args project=NAME.")
        if self.kl_limit and not self.kl_tokens:
            raise ApeError("kl_limit says of how many documents to measure the KL; add --kl_tokens 8 or drop it.")
        if self.runs:
            self._check_runs()
        elif not self.sources:
            raise ApeError(
                "There is nothing to compare: name a model and tasks (--model_args pretrained=MODEL --tasks TASK), or "
                "folders of finished runs (--from DIR)."
            )
        elif idle := next((name for name in _RUNNING if name in self.model_fields_set), None):
            raise ApeError(f"{idle} says how to run strategies, but no model is named; add --model_args or drop it.")
        return self

    def _check_runs(self) -> None:
        self.check_named("ape_longbench_2wikimqa_test")
        if self.output_path is None:
            raise ApeError("output_path must name a folder for the runs, so that none is lost: --output_path board.")

    @property
    def runs(self) -> bool:
        """Whether strategies are run, not only read."""
        return bool(self.model_args)

    @property
    def specs(self) -> tuple[str, ...]:
        """The strategies to run."""
        return self.strategies or tuple(DEFAULT_STRATEGIES.split(","))
