"""What `calibration.json` says of T and S of layers and heads, found by gradient descent."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from lm_eval_ape.artefacts.document import Count, Factor, Part, PartError, TwoFactors, check_length, scalar
from lm_eval_ape.artefacts.estimates import Difference
from lm_eval_ape.artefacts.points import Granularity, Point
from lm_eval_ape.attention.factors import NAMES, Factors

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
