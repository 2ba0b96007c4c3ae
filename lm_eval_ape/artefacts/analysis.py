"""What `analysis.json` says of attention and scores, part by part, in the order in which it is written."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from lm_eval_ape.artefacts.document import Count, Part, PartError, Positive, Share, Table, check_interval

SCHEMA_VERSION = 1
ALL = "all"
"""Name of the group of all cases among the correlations."""


class Model(Part):
    """The model whose attention was looked at; more is kept as `harness.model_facts` gave it."""

    pretrained: str


Norms = Annotated[list[Annotated[list[float | None], Field(min_length=1)]], Field(min_length=1)]
"""Mean norms of keys by layer and place; None where no key is."""


class Mass(Part):
    """Share of attention rows on each part of the prompt."""

    prefix: float
    context: float
    query: float

    @property
    def all(self) -> tuple[float, float, float]:
        """In the order of `attention.row_statistics.ROLES`."""
        return self.prefix, self.context, self.query


class MassTables(Part):
    """The same by layer and head."""

    prefix: Table
    context: Table
    query: Table


class ByHead(Part):
    """Means over documents by layer and head."""

    entropy: Table
    logit: Table
    mass: MassTables

    @property
    def shape(self) -> list[int]:
        """Heads of each layer."""
        return [len(row) for row in self.entropy]

    @model_validator(mode="after")
    def _fits(self) -> ByHead:
        tables = [self.entropy, self.logit, self.mass.prefix, self.mass.context, self.mass.query]
        if len(set(self.shape)) > 1 or any([len(row) for row in table] != self.shape for table in tables):
            raise PartError("has tables of different numbers of layers or heads.")
        return self


class Score(Part):
    """A mean score with its standard error."""

    score: float
    stderr: Positive | None


class Recomputed(Part):
    """Where recomputed tokens stand, and what they change of the entropy, means over documents.

    Shares are of the tokens of each chunk, and at each range of offsets from their chunk's start; None where none is.
    """

    by_chunk: list[Share]
    by_offset: list[Share | None]
    entropy_without: float
    entropy_difference: float
    entropy_difference_stderr: Positive | None


class Look(Part):
    """What attention looks like in a case, over a task's documents: entropies in nats."""

    documents: Count
    mean_chunks: float
    query_tokens: float | None = None
    entropy: float
    entropy_stderr: Positive | None
    logit: float
    mass: Mass
    by_head: ByHead
    key_norms: dict[str, Norms]
    recomputed: Recomputed | None = None
    score: Score | None

    @model_validator(mode="after")
    def _fits(self) -> Look:
        if "context" not in self.key_norms:
            raise PartError("has no 'context'.", "key_norms")
        if all(value is None for row in self.key_norms["context"] for value in row):
            raise PartError("has no number.", "key_norms.context")
        return self


class Case(Part):
    """A strategy with a number of chunks; None where it is not cut evenly."""

    label: str
    family: str
    chunks: Annotated[int, Field(ge=1)] | None
    settings: dict[str, Any]
    tasks: dict[str, Look]


class Correlation(Part):
    """A correlation over settings: see `analysis.correlation`."""

    value: float | None
    p_value: Share | None
    low: float | None
    high: float | None
    settings: Count

    @model_validator(mode="after")
    def _fits(self) -> Correlation:
        if self.value is not None and self.p_value is None:
            raise PartError("has no p-value.")
        check_interval(self.low, self.high)
        return self


class Correlations(Part):
    """Those of a task, by group of cases and kind."""

    documents: Count
    groups: dict[str, dict[str, Correlation]]

    @model_validator(mode="after")
    def _fits(self) -> Correlations:
        if "pearson" not in self.groups.get(ALL, {}):
            raise PartError(f"has no {ALL}.pearson.", "groups")
        return self


class Rho(Part):
    """Spearman's correlation over heads."""

    rho: float | None
    p_value: Share | None

    @model_validator(mode="after")
    def _fits(self) -> Rho:
        if self.rho is not None and self.p_value is None:
            raise PartError("has no p-value.")
        return self


class GoesWith(Part):
    """What a head's way from where the gradient started goes with."""

    entropy: Rho
    logit: Rho
    context: Rho

    @property
    def all(self) -> tuple[Rho, Rho, Rho]:
        """With entropy, mean absolute logit, and the share of the context."""
        return self.entropy, self.logit, self.context


class Heads(Part):
    """How far a calibration moved each layer or head, and what that goes with in each task."""

    label: str
    granularity: str
    distance: Table
    goes_with: dict[str, GoesWith]


class Statistics(Part):
    """How intervals were made."""

    resamples: Count
    seed: int


class Analysis(Part):
    """What `analysis.json` holds."""

    schema_version: int
    created: str
    command: str
    versions: dict[str, str]
    model: Model
    device: str
    tasks: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """As the board has them; nothing of each where nothing was scored."""
    offsets: list[Count]
    statistics: Statistics | None = None
    cases: Annotated[list[Case], Field(min_length=1)]
    heads: list[Heads]
    correlations: dict[str, Correlations]

    @model_validator(mode="after")
    def _fits(self) -> Analysis:
        """Every case has every task, with tables of the same layers and heads; correlations are of scores."""
        if "lm_eval_ape" not in self.versions:
            raise PartError("has no 'lm_eval_ape'.", "versions")
        for number, case in enumerate(self.cases):
            where = f"cases[{number}]"
            if (missing := next((task for task in self.tasks if task not in case.tasks), None)) is not None:
                raise PartError(f"has nothing of the task {missing!r:.60}.", where)
            for task in self.tasks:
                self._check_look(case.tasks[task], f"{where}.tasks.{task:.60}")
        if (unknown := next((task for task in self.correlations if task not in self.tasks), None)) is not None:
            raise PartError("is of no task that the analysis has.", f"correlations.{unknown:.60}")
        return self

    def _check_look(self, look: Look, where: str) -> None:
        if look.by_head.shape != self.cases[0].tasks[next(iter(self.tasks))].by_head.shape:
            raise PartError("has tables of different numbers of layers or heads.", f"{where}.by_head")
        places = len(self.offsets) + 1
        if any(len(row) != places for row in look.key_norms["context"]):
            raise PartError(f"must have {places} places, as offsets says.", f"{where}.key_norms.context")
        if look.recomputed and len(look.recomputed.by_offset) != places:
            raise PartError(f"must have {places} places, as offsets says.", f"{where}.recomputed.by_offset")
        if self.correlations and look.score is None:
            raise PartError("has no score, but the analysis has correlations with it.", where)
