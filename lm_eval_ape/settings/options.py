"""What our commands can be told: fields of a dataclass are the command line's flags, a YAML file's keys, and Python's.

A command's options are a subclass of `HarnessOptions`, which has what every run of the harness's tasks needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from typing_extensions import Self

from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.settings import option_values as values


def about(read: Callable[[str, Any], Any], text: str, metavar: str | None = None) -> dict[str, Any]:
    """Metadata of an option's field.

    Args:
        read: Checks a value as a flag, a file or Python gives it, and brings it to one form.
        text: What the help says.
        metavar: What stands for the value in the help.
    """
    return {"read": read, "help": text, "metavar": metavar}


@dataclass(frozen=True, kw_only=True)
class HarnessOptions:
    """Which model reads which tasks, and how the harness builds their requests."""

    COMMAND: ClassVar[str] = ""

    model_args: dict[str, Any] = field(
        default_factory=dict,
        metadata=about(
            values.arguments, "the model and how it encodes, as for lm_eval --model ape-hf", "pretrained=MODEL,..."
        ),
    )
    tasks: tuple[str, ...] = field(default=(), metadata=about(values.names, "harness tasks", "TASK,..."))
    limit: float | None = field(
        default=None, metadata=about(values.limit, "the first N documents of each task (below 1: that share)", "N")
    )
    output_path: str | None = field(default=None, metadata=about(values.text, "folder for what comes out", "DIR"))
    batch_size: int = field(default=1, metadata=about(values.count(1), "requests generated at a time", "N"))
    device: str | None = field(default=None, metadata=about(values.text, "cuda, cuda:1, cpu, ..."))
    num_fewshot: int | None = field(default=None, metadata=about(values.count(0), "examples in the prompt", "N"))
    apply_chat_template: bool | str = field(
        default=False, metadata=about(values.template, "use the tokenizer's chat template", "NAME")
    )
    fewshot_as_multiturn: bool | None = field(
        default=None, metadata=about(values.switch, "give examples as turns of a conversation")
    )
    system_instruction: str | None = field(default=None, metadata=about(values.text, "system prompt", "TEXT"))
    include_path: tuple[str, ...] = field(
        default=(), metadata=about(values.names, "folders with tasks of your own", "DIR,...")
    )
    metadata: dict[str, Any] = field(
        default_factory=dict, metadata=about(values.mapping, "options of tasks", '{"longbench_dir":"DIR"}')
    )

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """Check values from flags, a YAML file or Python; None stands for a default.

        Raises:
            ApeError: A name is unknown, a value is impossible, or options do not go together.
        """
        known = {option.name: option for option in fields(cls)}
        for name in given:
            if name not in known:
                raise ApeError(f"{cls.COMMAND} has no option {name!r:.60}.{nearest(str(name), known)}")
            values.check_writable(str(name), given[name])
        checked = {
            name: known[name].metadata["read"](name, value) for name, value in given.items() if value is not None
        }
        options = cls(**checked)
        options.check(checked)
        return options

    def check(self, given: Mapping[str, Any]) -> None:
        """Refuse options that do not go together.

        Args:
            given: Those that were given, checked one by one.

        Raises:
            ApeError: With the sentence.
        """

    def check_named(self, example: str) -> None:
        """Refuse options without a model or a task, and a model with arguments that are flags.

        Args:
            example: A task that the error may name.

        Raises:
            ApeError: One is missing, or given twice.
        """
        if "pretrained" not in self.model_args:
            raise ApeError("model_args must name the model: --model_args pretrained=MODEL.")
        if doubled := next((name for name in ("device", "batch_size") if name in self.model_args), None):
            raise ApeError(f"model_args has {doubled}, which has a flag of its own: --{doubled}.")
        if not self.tasks:
            raise ApeError(f"tasks must name at least one task: --tasks {example}.")

    @property
    def multiturn(self) -> bool:
        """Few-shot examples as turns; by default where there is a chat template, as in the harness."""
        return bool(self.apply_chat_template) if self.fewshot_as_multiturn is None else self.fewshot_as_multiturn
