"""What `board.json` says of runs side by side, part by part, in the order in which it is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, model_validator

from lm_eval_ape.artefacts.document import Count, Number, Part, PartError, Positive, Share, check_interval
from lm_eval_ape.artefacts.run_record import AnswerNats, Identity, Measured, Settings

SCHEMA_VERSION = 1


class Difference(Part):
    """A mean paired difference, in the scores' unit; `comparison.statistics.paired` makes it.

    Attributes:
        mean: Over documents; over tasks, the mean of the tasks' means.
        low: Lower end of its 95% interval; None where a task has a single document.
        high: Upper end.
        p_value: Two-sided, that the runs are equal.
        within_noise: Whether interval or test would let the two runs be equal.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: Share
    within_noise: bool

    @model_validator(mode="after")
    def _fits(self) -> Difference:
        check_interval(self.low, self.high)
        return self


class MeanKL(Part):
    """A mean divergence in nats."""

    mean: float
    stderr: Positive | None
    documents: Count | None = None


class MeanAnswer(Part):
    """A mean log-likelihood of reference answers in nats, and how it compares with the baseline's.

    Attributes:
        mean: Over documents, each the sum over its answer's tokens; over tasks, the mean of the tasks' means.
        stderr: Its standard error; None where a task has a single document.
        tokens: Mean number of an answer's tokens.
        documents: How many there are.
        difference: Paired, from the baseline; None of the baseline itself.
    """

    mean: float
    stderr: Positive | None
    tokens: Positive
    documents: Count
    difference: Difference | None


class Score(Part):
    """A mean score, and how it compares with the baseline's."""

    score: float
    stderr: Positive | None
    difference: Difference | None
    kept: float | None
    kl: MeanKL | None
    answer_nats: MeanAnswer | None = None


class TaskScore(Score):
    """A row's score in a task."""

    left_out: Count | None = None
    reported: dict[str, Any] | None = None


class Average(Score):
    """A row's mean over tasks."""

    tasks: list[str]


class Middle(Part):
    """A quantity of all requests."""

    median: Number
    mean: float
    max: Number | None = None


class KeptTokens(Part):
    """What the stores of encoded chunks were asked for, and what they had."""

    memory_hits: Count | None = None
    disk_hits: Count | None = None
    misses: Count | None = None
    hit_tokens: Count
    miss_tokens: Count


class Costs(Part):
    """What a run cost: see `comparison.costs`."""

    requests: Count
    prefill_seconds: Middle | None
    seconds: Middle | None
    scoring_seconds: Middle | None
    decode_tokens_per_second: float | None
    new_tokens: Middle | None = None
    chunks: Middle | None
    tokens: Middle | None
    dropped_tokens: Count
    recomputed: Middle | None = None
    peak_memory_bytes: Count
    peak_memory_of: str
    kv_cache: KeptTokens | None = None


class Objective(Part):
    """What the divergences of a row are of."""

    num_tokens: Count
    history: str | None = None
    after_eos: str | None = None


class Row(Part):
    """A run."""

    label: str
    model: str
    settings: Settings | None
    config: dict[str, Any]
    provenance: dict[str, Any] | None = None
    command: str | None = None
    versions: dict[str, Any] | None = None
    device: str | None
    identity: Identity | None
    created: str | None = None
    results_file: str | None = None
    kl: Objective | None
    tasks: dict[str, TaskScore]
    average: Average | None
    costs: Costs | None

    @property
    def scores(self) -> list[Score]:
        """In each task, and on average."""
        return [*self.tasks.values(), *([self.average] if self.average else [])]

    @property
    def sequential(self) -> bool:
        """Whether it is the ordinary model, run by ape-hf."""
        return self.settings is not None and self.settings["strategy"] == "sequential"

    @model_validator(mode="after")
    def _fits(self) -> Row:
        if self.kl is None and any(score.kl for score in self.scores):
            raise PartError(f"{self.label!r:.60} has divergences, but no kl.num_tokens.")
        return self


class Task(Part):
    """What is compared in a task, and on how many documents."""

    metric: str
    higher_is_better: bool
    filter: str | None = None
    documents: Count
    version: Any = None
    num_fewshot: Any = None
    config: dict[str, Any] | None = None


class Bucket(Part):
    """Documents whose prompts are about as long."""

    start: Annotated[int, Field(ge=0, alias="from")]
    """Called `from` in the file."""
    below: Count
    documents: Count


class LengthScore(Part):
    """A row's mean score in a bucket."""

    mean: float
    stderr: Positive | None
    difference: Difference | None = None


class Lengths(Part):
    """Scores by the length of the prompt, in `unit`."""

    unit: str
    tasks: list[str]
    buckets: list[Bucket]
    rows: dict[str, list[LengthScore]]

    @model_validator(mode="after")
    def _fits(self) -> Lengths:
        if self.buckets and not self.rows:
            raise PartError("has buckets, but no rows.")
        for label, scores in self.rows.items():
            if len(scores) != len(self.buckets):
                raise PartError("has not one score for each bucket.", f"rows.{label:.60}")
        return self


class Prompt(Part):
    """A prompt's divergences in nats, with the teacher's tokens that they belong to."""

    tokens: list[str]
    nats: list[float]

    @model_validator(mode="after")
    def _fits(self) -> Prompt:
        if len(self.tokens) != len(self.nats):
            raise PartError("has not one divergence for each token.")
        return self


class Answer(Part):
    """What a row said to a document."""

    score: float | None
    metrics: dict[str, Any] | None = None
    prediction: str
    requests: list[Measured] | None = None
    kl: list[Prompt] | None = None
    answer_nats: AnswerNats | None = None


class Sample(Part):
    """A document, and what every row said to it."""

    doc_id: Count
    doc_hash: str | None = None
    occurrence: Count | None = None
    length: Count
    prompt_end: str
    target: str
    runs: dict[str, Answer]


class Statistics(Part):
    """How intervals and p-values were made."""

    resamples: Count
    seed: int
    confidence: Share
    interval: str | None = None
    p_value: str | None = None
    within_noise: str | None = None


class Board(Part):
    """What `board.json` holds."""

    schema_version: Annotated[int, Field(ge=1)]
    created: str
    command: str
    versions: dict[str, str]
    baseline: str | None
    statistics: Statistics
    notes: list[str]
    tasks: dict[str, Task]
    rows: Annotated[list[Row], Field(min_length=1)]
    lengths: Lengths
    samples: dict[str, list[Sample]]

    @property
    def labels(self) -> list[str]:
        """Of all rows."""
        return [row.label for row in self.rows]

    @model_validator(mode="after")
    def _fits(self) -> Board:
        """What a part names, another part has: rows and tasks."""
        labels = self.labels
        if "lm_eval_ape" not in self.versions:
            raise PartError("has no 'lm_eval_ape'.", "versions")
        if (twice := next((label for label in labels if labels.count(label) > 1), None)) is not None:
            raise PartError(f"has two rows that are called {twice!r:.60}.")
        for place, label in self._named_rows():
            if label not in labels:
                raise PartError(f"is of the row {label!r:.60}, which the board does not have.", place)
        for place, task in self._named_tasks():
            if task not in self.tasks:
                raise PartError(f"is of the task {task!r:.60}, which the board does not have.", place)
        if len({tuple(row.average.tasks) if row.average else None for row in self.rows}) > 1:
            raise PartError("has averages that are not over the same tasks.")
        return self

    def _named_rows(self) -> Iterator[tuple[str, str]]:
        """Each row that a part names, with the part's place."""
        if self.baseline is not None:
            yield "baseline", self.baseline
        yield from ((f"lengths.rows.{label:.60}", label) for label in self.lengths.rows)
        for name, samples in self.samples.items():
            for number, sample in enumerate(samples):
                yield from ((f"samples.{name:.60}[{number}]", label) for label in sample.runs)

    def _named_tasks(self) -> Iterator[tuple[str, str]]:
        """Each task that a part names, with the part's place."""
        for number, row in enumerate(self.rows):
            yield from ((f"rows[{number}].tasks", task) for task in row.tasks)
            yield from ((f"rows[{number}].average", task) for task in (row.average.tasks if row.average else ()))
        yield from (("samples", task) for task in self.samples)
