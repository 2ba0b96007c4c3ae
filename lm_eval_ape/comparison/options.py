"""What a comparison can be told: one list for the command line's flags and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lm_eval_ape.calibration import values
from lm_eval_ape.errors import ApeError, nearest

DEFAULT_STRATEGIES = "sequential,parallel,sink,ape"
_RUNNING = ("tasks", "strategies", "limit", "num_fewshot", "gen_kwargs", "device")


def _specs(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, str):
        return values.names(name, value)
    from lm_eval_ape.comparison.specs import split_specs

    return split_specs(value)


def _about(read: Any, text: str, metavar: str | None = None) -> dict[str, Any]:
    """How an option is checked, and what its help says."""
    return {"read": read, "help": text, "metavar": metavar}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to compare, on what, and where to write. Fields are the flags of `lm-eval-ape compare`."""

    model_args: dict[str, Any] = field(
        default_factory=dict,
        metadata=_about(
            values.arguments,
            "the model, as for lm_eval --model ape-hf; all strategies share it",
            "pretrained=MODEL,...",
        ),
    )
    tasks: tuple[str, ...] = field(default=(), metadata=_about(values.names, "harness tasks to run", "TASK,..."))
    strategies: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            _specs,
            f"NAME, NAME[setting=value,...] or NAME@calibration.json (default: {DEFAULT_STRATEGIES})",
            "SPEC,...",
        ),
    )
    sources: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            values.names,
            "folders of finished runs (lm_eval --log_samples, or of this command) to put on the board",
            "DIR",
        ),
    )
    baseline: str | None = field(
        default=None,
        metadata=_about(values.text, "row that the others are compared with (default: sequential)", "NAME"),
    )
    metric: str | None = field(
        default=None, metadata=_about(values.text, "what is scored (default: each task's first metric)", "NAME")
    )
    limit: float | None = field(
        default=None, metadata=_about(values.limit, "the first N documents of each task (below 1: that share)", "N")
    )
    output_path: str | None = field(
        default=None, metadata=_about(values.text, "folder for the runs and board.md, board.csv, board.json", "DIR")
    )
    resamples: int = field(
        default=9999, metadata=_about(values.count(99), "bootstrap resamples, and sign flips of the test", "N")
    )
    seed: int = field(default=1234, metadata=_about(values.count(0), "seed of both", "N"))
    batch_size: int = field(default=1, metadata=_about(values.count(1), "requests generated at a time", "N"))
    device: str | None = field(default=None, metadata=_about(values.text, "cuda, cuda:1, cpu, ..."))
    num_fewshot: int | None = field(default=None, metadata=_about(values.count(0), "examples in the prompt", "N"))
    apply_chat_template: bool | str = field(
        default=False, metadata=_about(values.template, "use the tokenizer's chat template", "NAME")
    )
    fewshot_as_multiturn: bool | None = field(
        default=None, metadata=_about(values.switch, "give examples as turns of a conversation")
    )
    system_instruction: str | None = field(default=None, metadata=_about(values.text, "system prompt", "TEXT"))
    gen_kwargs: dict[str, Any] = field(
        default_factory=dict,
        metadata=_about(values.arguments, "generation settings over the tasks' own", "KEY=VALUE,..."),
    )
    include_path: tuple[str, ...] = field(
        default=(), metadata=_about(values.names, "folders with tasks of your own", "DIR,...")
    )
    metadata: dict[str, Any] = field(
        default_factory=dict, metadata=_about(values.mapping, "options of tasks", '{"longbench_dir":"DIR"}')
    )

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Options:
        """Check values from flags or Python; None stands for a default.

        Raises:
            ApeError: A name is unknown, a value is impossible, or it is not said what to compare.
        """
        known = {option.name: option for option in fields(cls)}
        for name in given:
            if name not in known:
                raise ApeError(f"compare has no option {name!r}.{nearest(name, known)}")
        options = cls(
            **{name: known[name].metadata["read"](name, value) for name, value in given.items() if value is not None}
        )
        if options.runs:
            options._check_runs()
        elif not options.sources:
            raise ApeError(
                "There is nothing to compare: name a model and tasks (--model_args pretrained=MODEL --tasks TASK), or "
                "folders of finished runs (--from DIR)."
            )
        elif idle := next((name for name in _RUNNING if name in given and given[name] is not None), None):
            raise ApeError(f"{idle} says how to run strategies, but no model is named; add --model_args or drop it.")
        return options

    def _check_runs(self) -> None:
        if "pretrained" not in self.model_args:
            raise ApeError("model_args must name the model: --model_args pretrained=MODEL.")
        if doubled := next((name for name in ("device", "batch_size") if name in self.model_args), None):
            raise ApeError(f"model_args has {doubled}, which has a flag of its own: --{doubled}.")
        if not self.tasks:
            raise ApeError("tasks must name at least one task: --tasks ape_longbench_2wikimqa_test.")
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

    @property
    def multiturn(self) -> bool:
        """Few-shot examples as turns; by default where there is a chat template, as in the harness."""
        return bool(self.apply_chat_template) if self.fewshot_as_multiturn is None else self.fewshot_as_multiturn
