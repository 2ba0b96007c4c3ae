"""What `calibration.json` says, part by part, in the order in which it is written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lm_eval_ape.artefacts.document import (
    Count,
    Factor,
    LeftOut,
    Name,
    Part,
    PartError,
    Positive,
    Scalar,
    Share,
    TwoFactors,
    WithPoint,
    check_interval,
    check_known,
    check_length,
    scalar,
)
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL, Granularity, Point
from lm_eval_ape.attention.factors import NAMES, Factors

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


class Difference(Part):
    """A paired difference of means with its 95% bootstrap interval.

    Attributes:
        positive: Share of resamples in which it is above 0.
    """

    mean: float
    low: float
    high: float
    positive: Share


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


class Rank(Part):
    """Spearman's rank correlation over points with its 95% interval."""

    rho: float | None
    p_value: Share | None
    low: float | None
    high: float | None
    points: Count

    @model_validator(mode="after")
    def _fits(self) -> Rank:
        check_interval(self.low, self.high)
        return self


_Table = Annotated[list[Annotated[list[Factor], Field(min_length=1)]], Field(min_length=1)]


class FactorTables(Part):
    """T and S of each layer and head: see `attention.factors`."""

    temperature: _Table
    scale: _Table
    prefix_temperature: _Table | None = None
    prefix_scale: _Table | None = None

    @property
    def factors(self) -> Factors:
        """The same as a model takes them."""
        return Factors.from_json(self.tables)

    @property
    def tables(self) -> dict[str, list[list[float]]]:
        """Those that are there, by name."""
        found = {name: getattr(self, name) for name in NAMES}
        return {name: table for name, table in found.items() if table is not None}

    @model_validator(mode="after")
    def _fits(self) -> FactorTables:
        """All tables have one shape."""
        shapes = {name: (len(table), {len(row) for row in table}) for name, table in self.tables.items()}
        first = shapes["temperature"]
        if wrong := next((name for name, shape in shapes.items() if shape != first or len(shape[1]) > 1), None):
            raise PartError("must be a table of the shape of all others, layers x heads.", wrong)
        if (self.prefix_temperature is None) != (self.prefix_scale is None):
            raise PartError("has one of prefix_temperature and prefix_scale, which go together.")
        return self


def _penalty(value: Any) -> Any:
    if value is None or isinstance(scalar(value), bool):
        raise PartError(f"must be number or string, but is {value!r:.60}.")
    return value


Penalty = Annotated[int | float | str, BeforeValidator(_penalty)]
"""Strength of a penalty; `inf` is the infinity that JSON lacks."""


class FitPlan(Part):
    """How T and S were fitted: see `calibration.gradient.plan`."""

    granularity: str | None = None
    prefix: bool | None = None
    start: TwoFactors | None = None
    steps: Count | None = None
    learning_rate: float | None = None
    patience: int | None = None
    bounds: Annotated[list[Factor], Field(min_length=2, max_length=2)]
    strengths: list[Penalty] | None = None


class HeldOut(Part):
    """The KL of held-out folds with a penalty, in nats."""

    penalty: Penalty
    mean_kl: float


class LessKL(Part):
    """How much less KL the gradient's result has than other points."""

    start: Difference
    default: Difference
    neutral: Difference


class Level(Part):
    """A fit of one granularity, held against samples that it did not see.

    Attributes:
        step: At which it ends.
        taken: Whether it is what the calibration ended with.
        kl: Of each sample, with T, S, penalty and step that owe nothing to its own KL.
        mean_kl: Its mean.
        start_kl: The mean with T and S of the start.
        less_kl: How much less the first mean is than the second.
        training: At each step, mean KL on the samples that it learns from.
        held_out: Likewise on samples that it does not learn from.
    """

    granularity: Granularity
    penalty: Penalty
    step: Count
    taken: bool
    kl: list[float]
    mean_kl: float
    start_kl: float
    less_kl: Difference
    training: list[float]
    held_out: list[float]

    @property
    def better(self) -> bool:
        """Whether it is better than its start beyond noise."""
        return self.step > 0 and self.less_kl.low > 0

    @model_validator(mode="after")
    def _fits(self) -> Level:
        """Both curves have a value for each step, and what is no better than the start is not taken."""
        check_length("held_out", self.held_out, len(self.training))
        if self.step >= len(self.training):
            raise PartError(f"is {self.step}, which training does not have.", "step")
        if self.taken and not self.better:
            raise PartError("is true of a fit that is not better than its start.", "taken")
        return self


class Gradient(Part):
    """What the gradient found; curves and KL are in nats.

    Attributes:
        stopping: At each step, mean KL on the samples that decide when to stop: the validation samples, or without
            them samples held out from the fit.
        levels: What was held against samples that it did not see, from the coarsest granularity on; older files have
            none. If none of them is taken, T and S are those of the start.
    """

    granularity: Granularity
    attn_temperature: Factor
    attn_scale: Factor
    factors: FactorTables
    sha256: str
    start: TwoFactors
    plan: FitPlan
    penalty: Penalty
    held_out: list[HeldOut]
    step: Count
    training: list[float]
    stopping: list[float]
    fitting: list[int]
    validation: list[int]
    kl: list[float]
    mean_kl: float
    less_kl: LessKL
    levels: list[Level] = Field(default_factory=list)

    @property
    def point(self) -> Point:
        """The only T and S, or those in the middle of all."""
        return Point(self.attn_temperature, self.attn_scale)

    @property
    def taken(self) -> Level | None:
        """The level that the calibration ended with; None if that is the start, and in older files."""
        return next((level for level in self.levels if level.taken), None)

    @property
    def at_start(self) -> bool:
        """Whether all fits were refused."""
        return bool(self.levels) and self.taken is None

    @model_validator(mode="after")
    def _fits(self) -> Gradient:
        """Both curves have a value for each step, the one that was taken among them; factors are as written."""
        check_length("stopping", self.stopping, len(self.training))
        if self.step >= len(self.training):
            raise PartError(f"is {self.step}, which gradient.training does not have.", "step")
        if self.factors.factors.digest != self.sha256:
            raise PartError("are not the numbers whose digest is gradient.sha256: they were changed.", "factors")
        if sum(level.taken for level in self.levels) > 1:
            raise PartError("has more than one that is taken.", "levels")
        if self.taken and self.taken.granularity != self.granularity:
            raise PartError(f"is {self.granularity!r}, but {self.taken.granularity!r} is taken.", "granularity")
        if self.at_start and not (self.factors.factors.single and self.point == self.start):
            raise PartError("has no level that is taken, so T and S must be those of the start.")
        return self


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


class SignalRank(Rank):
    """How a signal goes with the score."""

    signal: str
    average: str


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


class Rule(Part):
    """By which rule a search chose, with what it was given: nats, or a share of the sequential model's prefill."""

    name: Literal["one_standard_error", "accept", "budget"]
    value: Positive | None


class Dropped(Part):
    """When the race left a candidate out, and why (the end of a sentence that begins with its name)."""

    after: Count
    reason: str


class Interval(Part):
    """A 95% interval over resamples of the samples."""

    low: float
    high: float


class Rated(WithPoint):
    """A candidate at its best point.

    Attributes:
        value: The average of what chose, which is the KL in nats unless the signals say otherwise.
        interval: Of `value`.
        mean_kl: The mean KL, in nats.
        more_than_chosen: Paired difference of what chose from the chosen candidate's, on the samples that this one was
            measured on: of means, whatever the average is.
    """

    value: float
    interval: Interval
    mean_kl: float
    more_than_chosen: Difference


class Tried(Part):
    """An encoding that a search tried.

    Attributes:
        name: As it was asked for.
        arguments: Model arguments that make it, beside those that all have in common.
        operations: Floating-point operations a prompt, up to the first new token.
        share: Of the sequential model's operations.
        seconds: What encoding a prompt took, without the query.
        samples: How many it was measured on.
        best: It at its best point; None where it was not measured.
        frontier: Whether no other one is both cheaper and closer.
        share_of_resamples: How often resamples choose it.
        dropped: Whether the race left it out.
        score: Of its best point, with labels.
    """

    name: Name
    arguments: dict[str, Scalar]
    operations: Positive
    share: Positive
    seconds: Positive | None
    samples: Count
    best: Rated | None
    frontier: bool
    share_of_resamples: Share
    dropped: Dropped | None
    score: float | None = None


class NotTried(Part):
    """What a search was asked for and did not try, and why."""

    name: str
    reason: str


class Frontier(Part):
    """What a search over encodings found: of each candidate what it costs and how far it is from the teacher.

    Attributes:
        chosen: Name of the chosen one, whose settings are those of the file.
        sequential_seconds: What the sequential model took to read a prompt.
        measurements: Prompts times candidates that were measured.
        of: As many as there would have been without a race.
        prompts_left_out: How many not all candidates read alike.
    """

    rule: Rule
    race: bool
    sequential_seconds: Positive | None
    measurements: Count
    of: Count
    prompts_left_out: Count
    candidates: Annotated[list[Tried], Field(min_length=1)]
    left_out: list[NotTried]
    chosen: str
    signals: list[SignalRank] = Field(default_factory=list)
    """How signals go with the score over candidates, with labels."""

    @property
    def choice(self) -> Tried:
        """The chosen candidate."""
        return next(one for one in self.candidates if one.name == self.chosen)

    @model_validator(mode="after")
    def _fits(self) -> Frontier:
        if self.chosen not in [one.name for one in self.candidates]:
            raise PartError(f"is {self.chosen!r}, which is no candidate.", "chosen")
        return self


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
