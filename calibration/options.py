"""What a calibration can be told: one list for the command line's flags, the keys of a YAML file, and Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from lm_eval_ape.calibration import values
from lm_eval_ape.calibration.objective import AFTER_EOS, HISTORIES
from lm_eval_ape.errors import ApeError, nearest

ON_TOO_LONG = ("skip", "error")


def _about(read: Callable[[str, Any], Any], text: str, metavar: str | None = None) -> dict[str, Any]:
    """How an option is checked, and what its help says."""
    return {"read": read, "help": text, "metavar": metavar}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to calibrate, on what, and what to write. Fields are the flags of `lm-eval-ape calibrate`."""

    model_args: dict[str, Any] = field(
        default_factory=dict,
        metadata=_about(
            values.arguments, "the model and how it encodes, as for lm_eval --model ape-hf", "pretrained=MODEL,..."
        ),
    )
    tasks: tuple[str, ...] = field(
        default=(), metadata=_about(values.names, "harness tasks whose prompts to calibrate on", "TASK,...")
    )
    num_tokens: int = field(
        default=8, metadata=_about(values.count(1), "K: compare the distributions of so many next tokens", "K")
    )
    history: str = field(
        default="own",
        metadata=_about(
            values.choice(*HISTORIES),
            "own: each model continues from its own greedy tokens; teacher: from the teacher's",
            "own|teacher",
        ),
    )
    after_eos: str = field(
        default="stop",
        metadata=_about(
            values.choice(*AFTER_EOS),
            "stop: compare up to where either model ends; continue: always K tokens",
            "stop|continue",
        ),
    )
    temperatures: tuple[float, ...] | None = field(
        default=None, metadata=_about(values.numbers, "values of T", "T,...")
    )
    scales: tuple[float, ...] | None = field(default=None, metadata=_about(values.numbers, "values of S", "S,..."))
    limit: float | None = field(
        default=None, metadata=_about(values.limit, "the first N documents of each task (below 1: that share)", "N")
    )
    samples: dict[str, list[int]] = field(
        default_factory=dict, metadata=_about(values.picked, "numbers of the documents to take", '{"TASK":[0,3]}')
    )
    on_too_long: str = field(
        default="skip",
        metadata=_about(
            values.choice(*ON_TOO_LONG), "what to do with samples longer than the model's window", "skip|error"
        ),
    )
    with_labels: bool = field(
        default=False,
        metadata=_about(values.switch, "score every point through the harness too, and the choices on the test tasks"),
    )
    metric: str | None = field(
        default=None, metadata=_about(values.text, "with labels: the metric (default: each task's first)", "NAME")
    )
    test_tasks: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            values.names,
            "measure the choices on these tasks too (with labels: by default the ..._test twins)",
            "TASK,...",
        ),
    )
    test_limit: float | None = field(
        default=None, metadata=_about(values.limit, "the first N documents of each test task", "N")
    )
    resamples: int = field(default=1000, metadata=_about(values.count(1), "bootstrap resamples", "N"))
    seed: int = field(default=1234, metadata=_about(values.count(0), "seed of the bootstrap", "N"))
    output_path: str | None = field(
        default=None, metadata=_about(values.text, "folder for calibration.json, run_config.yaml and figures", "DIR")
    )
    cache_path: str | None = field(
        default=None,
        metadata=_about(values.text, "folder for what a later run can use again (default: OUTPUT_PATH/cache)", "DIR"),
    )
    max_rows: int | None = field(
        default=None, metadata=_about(values.count(1), "most grid points in one batch (default: all)", "N")
    )
    batch_size: int = field(
        default=1, metadata=_about(values.count(1), "with labels: requests generated at a time", "N")
    )
    device: str | None = field(default=None, metadata=_about(values.text, "cuda, cuda:1, cpu, ..."))
    num_fewshot: int | None = field(default=None, metadata=_about(values.count(0), "examples in the prompt", "N"))
    apply_chat_template: bool | str = field(
        default=False, metadata=_about(values.template, "use the tokenizer's chat template", "NAME")
    )
    fewshot_as_multiturn: bool | None = field(
        default=None, metadata=_about(values.switch, "give examples as turns of a conversation")
    )
    system_instruction: str | None = field(default=None, metadata=_about(values.text, "system prompt", "TEXT"))
    include_path: tuple[str, ...] = field(
        default=(), metadata=_about(values.names, "folders with tasks of your own", "DIR,...")
    )
    metadata: dict[str, Any] = field(
        default_factory=dict, metadata=_about(values.mapping, "options of tasks", '{"longbench_dir":"DIR"}')
    )

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Options:
        """Check values from flags, a YAML file or Python; None stands for a default.

        Raises:
            ApeError: A name is unknown, a value is impossible, or the model or the tasks are missing.
        """
        known = {option.name: option for option in fields(cls)}
        for name in given:
            if name not in known:
                raise ApeError(f"calibrate has no option {name!r}.{nearest(name, known)}")
        checked = {
            name: known[name].metadata["read"](name, value) for name, value in given.items() if value is not None
        }
        options = cls(**checked)
        if "pretrained" not in options.model_args:
            raise ApeError("model_args must name the model: --model_args pretrained=MODEL.")
        if not options.tasks:
            raise ApeError("tasks must name at least one task: --tasks ape_longbench_2wikimqa_calibration.")
        if options.limit is not None and options.samples:
            raise ApeError("limit and samples exclude each other; drop one.")
        if options.metric is not None and not options.with_labels:
            raise ApeError("metric is only read with labels; add --with_labels or drop it.")
        return options

    @property
    def multiturn(self) -> bool:
        """Few-shot examples as turns; by default where there is a chat template, as in the harness."""
        return bool(self.apply_chat_template) if self.fewshot_as_multiturn is None else self.fewshot_as_multiturn


def read_file(path: str) -> dict[str, Any]:
    """Options from a YAML file; `run_configs/calibration/` has examples.

    Raises:
        ApeError: The file cannot be read or holds no mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ApeError(f"The configuration {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ApeError(f"The configuration {path} must hold options as `name: value` lines, but got {content!r}.")
    return content


def merge(file: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags over a file's options; single model arguments and metadata win over the file's, which stay otherwise."""
    merged = {**file, **flags}
    for name, read in (("model_args", values.arguments), ("metadata", values.mapping)):
        if name in file and name in flags:
            merged[name] = {**read(name, file[name]), **read(name, flags[name])}
    return merged
