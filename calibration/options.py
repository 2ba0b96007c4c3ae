"""The options of a calibration: one list for the command line's flags, the keys of a YAML file, and Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import model_validator
from typing_extensions import Self

from lm_eval_ape.calibration.gradient_options import GradientOptions
from lm_eval_ape.calibration.objective.objective import AfterEos, Average, History, Objective, Positions, Signal
from lm_eval_ape.calibration.search_options import SearchOptions
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings import option_values as values
from lm_eval_ape.settings.options import option
from lm_eval_ape.storage.files import reason
from lm_eval_ape.storage.strict_reading import from_yaml

Samples = Annotated[dict[str, list[int]], values.read_by(values.picked)]


class Options(GradientOptions, SearchOptions):
    """What to calibrate, on what, and what to write. Fields are the flags of `lm-eval-ape calibrate`."""

    COMMAND: ClassVar[str] = "calibrate"

    tasks: values.Names = option((), "harness tasks whose prompts to calibrate on", "TASK,...")
    num_tokens: values.Count = option(8, "K: compare the distributions of so many next tokens", "K")
    history: History | None = option(
        None,
        "own: each model continues from its own greedy tokens; teacher: from the teacher's "
        "(default: own; with a gradient: teacher)",
    )
    after_eos: AfterEos = option("stop", "stop: compare up to where either model ends; continue: always K tokens")
    positions: Positions = option(
        "next",
        "next: compare after K new tokens; query: after each token of the query, which needs no new ones; both",
    )
    temperatures: values.Numbers | None = option(None, "values of T", "T,...")
    scales: values.Numbers | None = option(None, "values of S", "S,...")
    entropy: values.Switch = option(
        False, "report every point's attention entropy too, and which is nearest to the sequential model's"
    )
    choose_by: Signal | Literal["entropy"] = option(
        "kl",
        "what chooses the point: KL(teacher || student), KL(student || teacher), the Jensen-Shannon divergence, the "
        "total variation, how often the greedy tokens differ, the negative log-likelihood of the teacher's tokens, or "
        "the attention entropy's distance",
    )
    average: Average = option(
        "mean", "how samples are averaged for the choice; trimmed_mean leaves a tenth out at each end"
    )
    samples: Samples = option({}, "numbers of the documents to take", '{"TASK":[0,3]}')
    on_too_long: Literal["skip", "error"] = option("skip", "what to do with samples longer than the model's window")
    with_labels: values.Switch = option(
        False, "score every point through the harness too, and the choices on the test tasks"
    )
    metric: values.Text | None = option(
        None,
        "with labels: the metric, or answer_nats for the log-likelihood of the reference answer (default: each task's "
        "first that is a mean)",
        "NAME",
    )
    test_tasks: values.Names = option(
        (), "measure the choices on these tasks too (with labels: by default the ..._test twins)", "TASK,..."
    )
    test_limit: values.Limit | None = option(None, "the first N documents of each test task", "N")
    resamples: values.Count = option(1000, "bootstrap resamples", "N")
    seed: values.CountFrom0 = option(1234, "seed of the bootstrap, and of the order in which samples are parted", "N")
    output_path: values.Text | None = option(None, "folder for calibration.json, run_config.yaml and figures", "DIR")
    cache_path: values.Text | None = option(
        None, "folder for what a later run can use again (default: OUTPUT_PATH/cache)", "DIR"
    )
    max_rows: values.Count | None = option(None, "most grid points in one batch (default: all)", "N")
    batch_size: values.Count = option(1, "with labels: requests generated at a time", "N")

    @model_validator(mode="after")
    def check(self) -> Self:
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
        if self.choose_by == "entropy" and self.searches:
            raise ApeError("choose_by=entropy chooses among points of one encoding; drop it, or the search.")
        if self.choose_by == "entropy" and self.average != "mean":
            raise ApeError(f"average={self.average} is not read with --choose_by entropy; drop one of the two.")
        if self.positions == "query" and "num_tokens" in self.model_fields_set:
            raise ApeError(
                f"num_tokens={self.num_tokens} counts new tokens, and --positions query compares after none; drop it, "
                "or use --positions both."
            )
        self.check_search()
        self.check_gradient()
        if self.by_gradient and self.history == "own":
            raise ApeError(
                "history=own has no gradient: which token is the greedy one changes in jumps with T and S. "
                "Use --history teacher, which is the default with a gradient, or --method grid."
            )
        if self.lists_factors and self.output_path is None:
            raise ApeError(
                "T and S of layers, heads or the prefix do not fit into model_args and are loaded from "
                "calibration.json: name a folder for it with --output_path."
            )
        if self.lists_factors and "," in str(self.output_path):
            raise ApeError(
                f"model_args cannot name a path with a comma: give another --output_path than {self.output_path}."
            )
        return self

    @property
    def measures_entropy(self) -> bool:
        """Whether the attention entropy of every point is measured."""
        return self.entropy or self.choose_by == "entropy"

    @property
    def lists_factors(self) -> bool:
        """Whether the result is more than one T and S."""
        return self.by_gradient and (self.granularity != "model" or self.prefix_factors)

    @property
    def objective(self) -> Objective:
        """What is made small; without a history that is given, the method's own."""
        history = self.history or ("teacher" if self.by_gradient else "own")
        # Of new tokens, the query's positions have that of the first one alone.
        num_tokens = 1 if self.positions == "query" else self.num_tokens
        return Objective(num_tokens, history, self.after_eos, self.positions)


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
