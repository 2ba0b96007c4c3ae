"""The options of our commands: fields of a model are the command line's flags, a YAML file's keys, and Python's.

A command's options are a subclass of `Options`; of `HarnessOptions`, which has what every run of the harness's tasks
needs, for commands that run some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from typing_extensions import Self

from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings import option_values as values
from lm_eval_ape.settings.validation import validated


def option(default: Any, text: str, metavar: str | None = None) -> Any:
    """An option's field.

    Args:
        default: What it is if it is not given.
        text: What the help says.
        metavar: What stands for the value in the help; by default the choices, or the field's name.
    """
    return Field(default, description=text, json_schema_extra={"metavar": metavar})


class Options(BaseModel):
    """The options of a command."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)

    COMMAND: ClassVar[str] = ""

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """Check values from flags, a YAML file or Python; None stands for a default.

        Raises:
            ApeError: A name is unknown, a value is impossible, or options do not go together.
        """
        known = {name: value for name, value in given.items() if value is not None or name not in cls.model_fields}
        return validated(cls, known, cls.COMMAND)

    @field_validator("*", mode="before")
    @classmethod
    def _check_writable(cls, value: Any, info: ValidationInfo) -> Any:
        values.check_writable(str(info.field_name), value)
        return value


class HarnessOptions(Options):
    """Which model reads which tasks, and how the harness builds their requests."""

    model_args: values.Arguments = option(
        {}, "the model and how it encodes, as for lm_eval --model ape-hf", "pretrained=MODEL,..."
    )
    tasks: values.Names = option((), "harness tasks", "TASK,...")
    limit: values.Limit | None = option(None, "the first N documents of each task (below 1: that share)", "N")
    output_path: values.Text | None = option(None, "folder for what comes out", "DIR")
    batch_size: values.Count = option(1, "requests generated at a time", "N")
    device: values.Text | None = option(None, "cuda, cuda:1, cpu, ...")
    num_fewshot: values.CountFrom0 | None = option(None, "examples in the prompt", "N")
    apply_chat_template: values.Template = option(False, "use the tokenizer's chat template", "NAME")
    fewshot_as_multiturn: values.Switch | None = option(None, "give examples as turns of a conversation")
    system_instruction: values.Text | None = option(None, "system prompt", "TEXT")
    include_path: values.Names = option((), "folders with tasks of your own", "DIR,...")
    metadata: values.Object = option({}, "options of tasks", '{"longbench_dir":"DIR"}')

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

    @property
    def prompting(self) -> dict[str, Any]:
        """How prompts are written, as arguments of the harness's functions."""
        return {
            "system_instruction": self.system_instruction,
            "apply_chat_template": self.apply_chat_template,
            "fewshot_as_multiturn": self.multiturn,
        }
