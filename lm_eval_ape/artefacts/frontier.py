"""What `calibration.json` says of a search over encodings: what each costs, how far it is, and which one was chosen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lm_eval_ape.artefacts.document import Count, Name, Part, PartError, Positive, Scalar, Share, WithPoint
from lm_eval_ape.artefacts.estimates import Difference, SignalRank


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
        seconds: What encoding a prompt took, without the query; None where its chunks had been kept, or it is not
            known.
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
