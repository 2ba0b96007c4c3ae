"""What a comparison can be told: one list for the command line's flags and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lm_eval_ape import option_values as values
from lm_eval_ape.errors import ApeError
from lm_eval_ape.options import HarnessOptions, about

DEFAULT_STRATEGIES = "sequential,parallel,sink,ape"
_RUNNING = ("tasks", "strategies", "limit", "num_fewshot", "gen_kwargs", "device", "kl_tokens", "kl_limit")


def read_strategies(name: str, value: Any) -> tuple[str, ...]:
    """Specs of strategies; commas in their brackets do not separate them."""
    if not isinstance(value, str):
        return values.names(name, value)
    from lm_eval_ape.comparison.specs import split_specs

    return split_specs(value)


def strategies_option(default: str) -> Any:
    """The field that names strategies.

    Args:
        default: What is taken if none is named, for the help.
    """
    text = f"NAME, NAME[setting=value,...] or NAME@calibration.json (default: {default})"
    return field(default=(), metadata=about(read_strategies, text, "SPEC,..."))


@dataclass(frozen=True, kw_only=True)
class StrategyOptions(HarnessOptions):
    """How several strategies of one model are run and scored."""

    model_args: dict[str, Any] = field(
        default_factory=dict,
        metadata=about(
            values.arguments,
            "the model, as for lm_eval --model ape-hf; all strategies share it",
            "pretrained=MODEL,...",
        ),
    )
    metric: str | None = field(
        default=None,
        metadata=about(
            values.text, "what is scored (default: each task's first metric that is a mean over documents)", "NAME"
        ),
    )
    gen_kwargs: dict[str, Any] = field(
        default_factory=dict,
        metadata=about(values.arguments, "generation settings over the tasks' own", "KEY=VALUE,..."),
    )


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """What to compare, on what, and where to write. Fields are the flags of `lm-eval-ape compare`."""

    COMMAND: ClassVar[str] = "compare"

    strategies: tuple[str, ...] = strategies_option(DEFAULT_STRATEGIES)
    sources: tuple[str, ...] = field(
        default=(),
        metadata=about(
            values.names,
            "folders of finished runs (lm_eval --log_samples, or of this command) to put on the board",
            "DIR",
        ),
    )
    baseline: str | None = field(
        default=None,
        metadata=about(values.text, "row that the others are compared with (default: sequential)", "NAME"),
    )
    output_path: str | None = field(
        default=None, metadata=about(values.text, "folder for the runs and board.md, board.csv, board.json", "DIR")
    )
    resamples: int = field(
        default=9999, metadata=about(values.count(99), "bootstrap resamples, and sign flips of the test", "N")
    )
    seed: int = field(default=1234, metadata=about(values.count(0), "seed of both", "N"))
    kl_tokens: int = field(
        default=0,
        metadata=about(
            values.count(0), "measure each strategy's KL from the sequential model over so many next tokens", "K"
        ),
    )
    kl_limit: int | None = field(
        default=None,
        metadata=about(values.count(1), "measure the KL of the first N documents of each task alone", "N"),
    )
    wandb_args: dict[str, Any] = field(
        default_factory=dict,
        metadata=about(
            values.arguments,
            "log each strategy's run and the board to Weights & Biases, with arguments of wandb.init",
            "KEY=VALUE,...",
        ),
    )
    wandb_config_args: dict[str, Any] = field(
        default_factory=dict, metadata=about(values.arguments, "further configuration of those runs", "KEY=VALUE,...")
    )
    trackio_args: dict[str, Any] = field(
        default_factory=dict,
        metadata=about(values.arguments, "log the same to Trackio, with arguments of trackio.init", "KEY=VALUE,..."),
    )

    def check(self, given: Mapping[str, Any]) -> None:
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
        elif idle := next((name for name in _RUNNING if name in given), None):
            raise ApeError(f"{idle} says how to run strategies, but no model is named; add --model_args or drop it.")

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
