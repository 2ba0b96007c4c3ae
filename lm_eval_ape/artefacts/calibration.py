"""What `calibration.json` says, part by part, in the order in which it is written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from lm_eval_ape.artefacts.document import (
    Count,
    Factor,
    LeftOut,
    Part,
    PartError,
    Scalar,
    Share,
    TwoFactors,
    WithPoint,
    check_known,
    check_length,
)
from lm_eval_ape.artefacts.estimates import Difference, Rank, SignalRank
from lm_eval_ape.artefacts.frontier import Frontier
from lm_eval_ape.artefacts.gradient_fit import Gradient
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Point

# A file with T and S by gradient says 2, so that versions that know nothing of them refuse it.
SCHEMA_VERSION, GRADIENT_VERSION = 1, 2


class Model(Part):
    """The model that a calibration is for."""

    pretrained: str
    revision: str
    commit: str | None
    peft: str | None
    delta: str | None
    dtype: str
    parameters: Count
    weights_sha256: str


class _KnownSettings(Part):
    """Settings that every version has written."""

    strategy: str
    scale_mode: str
    shared_prefix: bool
    chunking: str
    chunk_tokens: int | None
    max_chunks: int | None
    separator: str
    prefix: str
    positions: str
    context_field: str


class Task(Part):
    """A task's part in a calibration."""

    task: str
    version: str
    samples: Count
    documents_sha256: str
    prompts_sha256: str


class Objective(Part):
    """What was made small: see `calibration.objective.objective`."""

    num_tokens: Count
    history: Literal["own", "teacher"]
    after_eos: Literal["stop", "continue"]
    positions: Literal["next", "query", "both"] = "next"


class Grid(Part):
    """All points that were measured, and their mean KL over samples in nats."""

    temperatures: Annotated[list[Factor], Field(min_length=1)]
    scales: Annotated[list[Factor], Field(min_length=1)]
    points: list[TwoFactors]
    choosable: list[bool]
    mean_kl: list[float]

    @property
    def means(self) -> dict[Point, float]:
        """Each point's mean KL, in nats."""
        return dict(zip(self.points, self.mean_kl, strict=True))

    @model_validator(mode="after")
    def _fits(self) -> Grid:
        """Each point has what the others have, and those that are always measured are there."""
        check_length("choosable", self.choosable, len(self.points))
        check_length("mean_kl", self.mean_kl, len(self.points))
        if lost := next((point for point in (DEFAULT, NEUTRAL) if point not in self.points), None):
            raise PartError(f"lacks {tuple(lost)}, which is always measured.", "points")
        asked = product(self.temperatures, self.scales)
        if missing := next((pair for pair in asked if pair not in self.means), None):
            raise PartError(f"lacks {missing}, which grid.temperatures and grid.scales have.", "points")
        return self


class Signals(Part):
    """What was measured beside the KL, and what chose.

    Attributes:
        choose_by: The signal that chose, or `entropy`.
        average: How samples were averaged for the choice.
        averages: By signal and kind of average, its value at each point of the grid (see
            `calibration.objective.divergence`).
    """

    choose_by: str
    average: str
    averages: dict[str, dict[str, list[float]]]


class Sample(Part):
    """A sample with its KL at each point of the grid, in nats, and how many positions that is the mean of."""

    task: str
    doc_id: Count
    number: Count
    prompt_sha256: str
    tokens: Count
    chunks: Count
    kl: list[float]
    positions: list[int]


class Chosen(WithPoint):
    """A point with the least mean KL, in nats, and those that are as good."""

    mean_kl: float
    ties: list[TwoFactors]


class Spread(Part):
    """How far the mean KL moves along a line of points, in nats."""

    least: float
    most: float
    range: float


class Choice(Chosen):
    """The choice, beside those of one parameter alone."""

    edges: list[str]
    temperature_only: Chosen
    scale_only: Chosen
    over_temperature: Spread
    over_scale: Spread
    range_ratio: float | None


class Parameter(Part):
    """What resamples choose for T or S, with its 95% interval."""

    mode: float
    low: float
    high: float
    width: float
    stable: bool


class Frequency(Part):
    """The share of resamples that choose a point."""

    point: TwoFactors
    share: Share


class Beats(Part):
    """How much more KL the untuned points have than the choice."""

    default: Difference
    neutral: Difference


class Stability(Part):
    """What resamples of the samples choose."""

    resamples: Count
    seed: int
    temperature: Parameter
    scale: Parameter
    frequencies: list[Frequency]
    beats: Beats


class Entropy(Part):
    """Attention entropies in nats: the sequential model's, and each point's."""

    chosen_by: bool
    teacher: float
    mean_entropy: list[float]
    mean_distance: list[float]
    choice: Chosen
    spearman_with_kl: Rank


class Oracle(WithPoint):
    """The point that labels would choose."""

    score: float


class Labels(Part):
    """What labels say of the points; `spearman` is that of the mean KL, `signals` of all signals."""

    metric: str
    higher_is_better: bool
    documents: Count
    points: list[TwoFactors]
    mean_scores: list[float]
    oracle: Oracle
    spearman: Rank
    signals: list[SignalRank] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> Labels:
        check_length("mean_scores", self.mean_scores, len(self.points))
        return self


class UnseenRow(Part):
    """A choice on rows that it was not made on."""

    name: str
    point: TwoFactors
    mean_kl: float
    more_kl_than_chosen: Difference
    kl: list[float]
    score: float | None
    less_score_than_chosen: Difference | None
    scores: list[float] | None


class Unseen(Part):
    """Choices on rows that they were not made on."""

    tasks: list[Task]
    samples: Count
    left_out: LeftOut
    metric: str | None = None
    """Older files name it beside the labels only."""
    rows: list[UnseenRow]


class Calibration(Part):
    """What `calibration.json` holds."""

    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=GRADIENT_VERSION)]
    created: str
    versions: dict[str, str | None]
    device: str
    model: Model
    settings: Annotated[dict[str, Scalar], AfterValidator(check_known(_KnownSettings))]
    tasks: list[Task]
    requests: dict[str, Any]
    objective: Objective
    grid: Grid
    signals: Signals | None = None
    samples: Annotated[list[Sample], Field(min_length=1)]
    left_out: LeftOut
    choice: Choice
    stability: Stability
    gradient: Gradient | None = None
    entropy: Entropy | None = None
    frontier: Frontier | None = None
    labels: Labels | None
    test: Unseen | None
    seconds: dict[str, float]

    @property
    def result(self) -> Choice | Gradient:
        """What the calibration ended with: the gradient's result where there is one, else the grid's choice."""
        return self.gradient or self.choice

    @property
    def chosen_by(self) -> str:
        """What the choice made small, in words."""
        signals = self.signals
        if signals is None or signals.choose_by == "entropy":
            return "mean KL"
        names = {"kl": "KL", "js": "Jensen-Shannon divergence", "nll": "NLL of the teacher's tokens"}
        return f"{signals.average} {names.get(signals.choose_by, signals.choose_by)}".replace("_", " ")

    @property
    def metric(self) -> str | None:
        """What labels and test rows are scored by, if any are."""
        named = self.test.metric if self.test else None
        return named or (self.labels.metric if self.labels else None)

    @model_validator(mode="after")
    def _fits(self) -> Calibration:
        """What stands in the order of the grid's points is as long, and what was chosen was measured."""
        for number, sample in enumerate(self.samples):
            check_length(f"samples[{number}].kl", sample.kl, len(self.grid.points))
            check_length(f"samples[{number}].positions", sample.positions, len(self.grid.points))
        if self.entropy:
            check_length("entropy.mean_entropy", self.entropy.mean_entropy, len(self.grid.points))
            check_length("entropy.mean_distance", self.entropy.mean_distance, len(self.grid.points))
        for signal, averages in self.signals.averages.items() if self.signals else ():
            for average, found in averages.items():
                check_length(f"signals.averages.{signal}.{average}", found, len(self.grid.points))
        means = self.grid.means
        for name, part in self._choices():
            if means.get(part.point) != part.mean_kl:
                raise PartError(
                    f"is (T, S) = {tuple(part.point)} with a mean KL of {part.mean_kl}, which grid does not have.", name
                )
        if self.labels and not {self.labels.oracle.point} <= set(self.labels.points) <= means.keys():
            raise PartError("has points, or an oracle, which grid does not have.", "labels")
        return self

    def _choices(self) -> Iterator[tuple[str, Chosen]]:
        yield "choice", self.choice
        yield "choice.temperature_only", self.choice.temperature_only
        yield "choice.scale_only", self.choice.scale_only
