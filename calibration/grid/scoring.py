"""KL of many (T, S) points on one prompt: one encoding, and the points as rows of one batch over its shared keys.

Keys and values of the chunks do not depend on (T, S), so they are made once; each point is a row with its own T and S
and its own short tail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lm_eval_ape.attention.segments import EncodedPrompt
from lm_eval_ape.calibration.grid.candidates import Candidate, factors_of
from lm_eval_ape.calibration.objective.divergence import log_probabilities, signals
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.calibration.objective.teacher import Teacher
from lm_eval_ape.engine.decoding import check_finite, end_tokens
from lm_eval_ape.engine.engine import Tail
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.errors import ApeError
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.runtime.out_of_memory import Room

LOGIT_BYTES = 2**31
"""Most bytes of a batch's logits: with many positions there are fewer points in a batch."""


class Score(NamedTuple):
    """How far one point is from the teacher on one prompt.

    Attributes:
        values: Of each of `SIGNALS`, its value at each position that counts.
    """

    values: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, positions: Sequence[Sequence[float]]) -> Score:
        """From the signals of each position."""
        return cls(tuple(zip(*positions, strict=True)))

    @property
    def divergences(self) -> tuple[float, ...]:
        """The KL at each position that counts, in nats."""
        return self.values[0]

    @property
    def kl(self) -> float:
        """Mean KL over the positions that count."""
        return fmean(self.divergences)

    @property
    def means(self) -> tuple[float, ...]:
        """Each signal's mean over the positions that count."""
        return tuple(map(fmean, self.values))

    @property
    def positions(self) -> int:
        """How many positions count."""
        return len(self.divergences)


class History(Protocol):
    """What a point has read when its distributions are compared with the teacher's."""

    def wanted(self, teacher: Teacher) -> int:
        """For how many of a pass's last tokens logits are wanted at most."""

    def scores(
        self, tail: Tail, query: Sequence[int], teacher: Teacher, names: Sequence[str], sample: str
    ) -> list[Score]:
        """Score the rows of a tail.

        Args:
            tail: One row a point.
            query: The prompt's query.
            teacher: What the points are compared with; with the distributions after the query's tokens where those
                count.
            names: The points in words.
            sample: Where the prompt comes from, for errors.
        """


class OwnHistory:
    """Each point continues from its own greedy tokens, as the teacher did from its own (Eq. 3).

    Args:
        ends: Tokens that end a sequence, after which nothing counts.
    """

    def __init__(self, ends: Sequence[int]) -> None:
        self.ends = ends

    def wanted(self, teacher: Teacher) -> int:
        """One new token at a time; of the query those that count."""
        return len(teacher.query) + 1

    @torch.no_grad()
    def scores(
        self, tail: Tail, query: Sequence[int], teacher: Teacher, names: Sequence[str], sample: str
    ) -> list[Score]:
        """Score the rows of a tail (see `History`)."""
        device = tail.engine.device
        ends = torch.tensor(self.ends, dtype=torch.long, device=device)
        ids: Tensor | Sequence[int] = query
        found: list[Tensor] = []
        positions = torch.full((tail.rows,), len(teacher.query), dtype=torch.long, device=device)
        running = torch.ones(tail.rows, dtype=torch.bool, device=device)
        for step, expected in enumerate(teacher.log_probs, start=1):
            before = teacher.query if step == 1 else teacher.query[:0]
            logits = tail.read(ids, keep=len(before) + 1)
            check_finite(logits, names, step, sample)
            found += _compared([*before, expected], logits)
            positions += running
            tokens = logits[:, -1].argmax(-1)
            running &= ~torch.isin(tokens, ends)
            if not running.any():
                break
            ids = tokens.unsqueeze(-1)
        rows = zip(torch.stack(found, 1).tolist(), positions.tolist(), strict=True)
        return [Score.of(row[:count]) for row, count in rows]


class TeacherHistory:
    """All points read the teacher's tokens, so that one pass gives the distributions of all positions."""

    def wanted(self, teacher: Teacher) -> int:
        """All of the teacher's."""
        return len(teacher.query) + len(teacher.tokens)

    @torch.no_grad()
    def scores(
        self, tail: Tail, query: Sequence[int], teacher: Teacher, names: Sequence[str], sample: str
    ) -> list[Score]:
        """Score the rows of a tail (see `History`)."""
        ids = [*query, *teacher.tokens[:-1].tolist()]
        logits = tail.read(ids, keep=self.wanted(teacher), query=len(query))
        check_finite(logits, names, 1, sample)
        found = _compared([*teacher.query, *teacher.log_probs], logits)
        return [Score.of(row) for row in torch.stack(found, 1).tolist()]


def _compared(expected: Sequence[Tensor], logits: Tensor) -> list[Tensor]:
    """All signals at each position, `(rows, signals)`.

    One position after the other: distributions of all of them would need as much memory as their logits, many times.
    """
    each = zip(expected, logits.unbind(1), strict=True)
    return [signals(own, log_probabilities(logit)) for own, logit in each]


class Scorer:
    """Scores points on prompts by an objective.

    Args:
        lm: The model; how it encodes and merges is read from its settings, T and S are not.
        objective: What is measured.
        max_rows: Most points in one batch; it is halved, for good, whenever memory does not suffice.
    """

    def __init__(self, lm: ServedModel, objective: Objective, max_rows: int | None = None) -> None:
        self.lm = lm
        self.objective = objective
        self.ends = end_tokens(lm) if objective.after_eos == "stop" else ()
        self.history: History = OwnHistory(self.ends) if objective.history == "own" else TeacherHistory()
        self.room = Room(max_rows, "points")

    def query_positions(self, prompt: Prompt) -> int:
        """After how many of a prompt's last tokens distributions count."""
        return len(prompt.query) if self.objective.reads_query else 1

    def score(
        self,
        encoded: EncodedPrompt,
        prompt: Prompt,
        teacher: Teacher,
        points: Sequence[Candidate],
        *,
        sample: str,
        on_scored: Callable[[int], None] = lambda count: None,
    ) -> list[Score]:
        """Score every point on an encoded prompt.

        Args:
            encoded: The prompt, encoded.
            prompt: The prompt, with at least one chunk.
            teacher: Its teacher, cut to the objective's K, with the query's distributions where they count.
            points: The points, at least one.
            sample: Where the prompt comes from, for errors.
            on_scored: Called with the number of points just scored.

        Raises:
            ApeError: A point's logits are not finite, or memory does not suffice for a single point.
        """
        engine, wanted = self.lm.engine, self.history.wanted(teacher)

        def work(part: slice) -> list[Score]:
            factors = [factors_of(point) for point in points[part]]
            names = [f"the point {point}" for point in points[part]]
            with engine.tail(encoded, factors, wanted=wanted, alike=engine.settings.selection is None) as tail:
                scores = self.history.scores(tail, prompt.query, teacher, names, sample)
            on_scored(len(scores))
            return scores

        def refusal() -> ApeError:
            return ApeError(
                f"{sample}: memory does not suffice for one (T, S) point over its {len(prompt.ids)} tokens; free "
                "some, or calibrate on shorter samples or with a smaller dtype."
            )

        logit_bytes = wanted * teacher.log_probs.shape[-1] * teacher.log_probs.element_size()
        most = max(1, LOGIT_BYTES // logit_bytes)
        pieces = self.room.pieces(work, len(points), most=most, what=sample, refusal=refusal)
        return [score for piece in pieces for score in piece]
