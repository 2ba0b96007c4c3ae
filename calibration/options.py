"""What a calibration can be told: one list for the command line's flags, the keys of a YAML file, and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lm_eval_ape import option_values as values
from lm_eval_ape.calibration.gradient_options import GradientOptions
from lm_eval_ape.calibration.objective import AFTER_EOS, HISTORIES
from lm_eval_ape.errors import ApeError
from lm_eval_ape.files import reason
from lm_eval_ape.options import about
from lm_eval_ape.strict import from_yaml

ON_TOO_LONG = ("skip", "error")
CHOOSE_BY = ("kl", "entropy")


@dataclass(frozen=True, kw_only=True)
class Options(GradientOptions):
    """What to calibrate, on what, and what to write. Fields are the flags of `lm-eval-ape calibrate`."""

    COMMAND: ClassVar[str] = "calibrate"

    tasks: tuple[str, ...] = field(
        default=(), metadata=about(values.names, "harness tasks whose prompts to calibrate on", "TASK,...")
    )
    num_tokens: int = field(
        default=8, metadata=about(values.count(1), "K: compare the distributions of so many next tokens", "K")
    )
    history: str | None = field(
        default=None,
        metadata=about(
            values.choice(*HISTORIES),
            "own: each model continues from its own greedy tokens; teacher: from the teacher's "
            "(default: own; with a gradient: teacher)",
            "own|teacher",
        ),
    )
    after_eos: str = field(
        default="stop",
        metadata=about(
            values.choice(*AFTER_EOS),
            "stop: compare up to where either model ends; continue: always K tokens",
            "stop|continue",
        ),
    )
    temperatures: tuple[float, ...] | None = field(default=None, metadata=about(values.numbers, "values of T", "T,..."))
    scales: tuple[float, ...] | None = field(default=None, metadata=about(values.numbers, "values of S", "S,..."))
    entropy: bool = field(
        default=False,
        metadata=about(
            values.switch, "report every point's attention entropy too, and which is nearest to the sequential model's"
        ),
    )
    choose_by: str = field(
        default="kl",
        metadata=about(
            values.choice(*CHOOSE_BY),
            "what chooses the point: the KL, or the attention entropy's distance",
            "kl|entropy",
        ),
    )
    samples: dict[str, list[int]] = field(
        default_factory=dict, metadata=about(values.picked, "numbers of the documents to take", '{"TASK":[0,3]}')
    )
    on_too_long: str = field(
        default="skip",
        metadata=about(
            values.choice(*ON_TOO_LONG), "what to do with samples longer than the model's window", "skip|error"
        ),
    )
    with_labels: bool = field(
        default=False,
        metadata=about(values.switch, "score every point through the harness too, and the choices on the test tasks"),
    )
    metric: str | None = field(
        default=None,
        metadata=about(values.text, "with labels: the metric (default: each task's first that is a mean)", "NAME"),
    )
    test_tasks: tuple[str, ...] = field(
        default=(),
        metadata=about(
            values.names,
            "measure the choices on these tasks too (with labels: by default the ..._test twins)",
            "TASK,...",
        ),
    )
    test_limit: float | None = field(
        default=None, metadata=about(values.limit, "the first N documents of each test task", "N")
    )
    resamples: int = field(default=1000, metadata=about(values.count(1), "bootstrap resamples", "N"))
    seed: int = field(
        default=1234,
        metadata=about(values.count(0), "seed of the bootstrap, and of the order in which samples are parted", "N"),
    )
    output_path: str | None = field(
        default=None, metadata=about(values.text, "folder for calibration.json, run_config.yaml and figures", "DIR")
    )
    cache_path: str | None = field(
        default=None,
        metadata=about(values.text, "folder for what a later run can use again (default: OUTPUT_PATH/cache)", "DIR"),
    )
    max_rows: int | None = field(
        default=None, metadata=about(values.count(1), "most grid points in one batch (default: all)", "N")
    )
    batch_size: int = field(
        default=1, metadata=about(values.count(1), "with labels: requests generated at a time", "N")
    )

    def check(self, given: Mapping[str, Any]) -> None:
        """Refuse a calibration without model or tasks, and options that exclude each other."""
        self.check_named("ape_longbench_2wikimqa_calibration")
        if self.limit is not None and self.samples:
            raise ApeError("limit and samples exclude each other; drop one.")
        if self.metric is not None and not self.with_labels:
            raise ApeError("metric is only read with labels; add --with_labels or drop it.")
        if self.measures_entropy and self.method == "gradient":
            raise ApeError(
                "The attention entropy is that of a grid's points, and --method gradient has no grid: use --method "
                "grid or grid+gradient, or drop entropy and choose_by."
            )
        self.check_gradient(given)
        if self.lists_factors and self.output_path is None:
            raise ApeError(
                "T and S of layers, heads or the prefix do not fit into model_args and are loaded from "
                "calibration.json: name a folder for it with --output_path."
            )
        if self.lists_factors and "," in str(self.output_path):
            raise ApeError(
                f"model_args cannot name a path with a comma: give another --output_path than {self.output_path}."
            )

    @property
    def measures_entropy(self) -> bool:
        """Whether the attention entropy of every point is measured."""
        return self.entropy or self.choose_by == "entropy"

    @property
    def lists_factors(self) -> bool:
        """Whether the result is more than one T and S."""
        return self.by_gradient and (self.granularity != "model" or self.prefix_factors)

    @property
    def conditioned_on(self) -> str:
        """The history: as given, or the method's own."""
        return self.history or ("teacher" if self.by_gradient else "own")


def read_file(path: str) -> dict[str, Any]:
    """Options from a YAML file; `run_configs/calibration/` has examples.

    Raises:
        ApeError: The file cannot be read or holds no mapping.
    """
    try:
        content = from_yaml(Path(path).expanduser().read_bytes())
    except (OSError, ValueError) as error:
        raise ApeError(
            f"The configuration {path} cannot be read: {reason(error)}. Mend it, or give another file."
        ) from error
    if not isinstance(content, dict):
        raise ApeError(
            f"The configuration {path} must hold options as `name: value` lines, but got {content!r:.200}: mend it, or "
            "give another file."
        )
    return content


def merge(file: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags over a file's options; single model arguments and metadata win over the file's, which stay otherwise."""
    merged = {**file, **flags}
    for name, read in (("model_args", values.arguments), ("metadata", values.mapping)):
        if name in file and name in flags:
            merged[name] = {**read(name, file[name]), **read(name, flags[name])}
    return merged
