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
from lm_eval_ape.calibration.objective.divergence import forward_kl, log_probabilities
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.calibration.objective.teacher import Teacher
from lm_eval_ape.engine.decoding import check_finite, end_tokens
from lm_eval_ape.engine.engine import Tail
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.errors import ApeError
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.runtime.out_of_memory import Room


class Score(NamedTuple):
    """How far one point is from the teacher on one prompt.

    Attributes:
        divergences: In nats, at each position that counts; at most K.
    """

    divergences: tuple[float, ...]

    @property
    def kl(self) -> float:
        """Mean divergence over the positions that count."""
        return fmean(self.divergences)

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
            teacher: What the points are compared with.
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
        """One token at a time."""
        return 1

    @torch.no_grad()
    def scores(
        self, tail: Tail, query: Sequence[int], teacher: Teacher, names: Sequence[str], sample: str
    ) -> list[Score]:
        """Score the rows of a tail (see `History`)."""
        device = tail.engine.device
        ends = torch.tensor(self.ends, dtype=torch.long, device=device)
        ids: Tensor | Sequence[int] = query
        divergences: list[Tensor] = []
        positions = torch.zeros(tail.rows, dtype=torch.long, device=device)
        running = torch.ones(tail.rows, dtype=torch.bool, device=device)
        for step, expected in enumerate(teacher.log_probs, start=1):
            logits = tail.read(ids, keep=1)
            check_finite(logits, names, step, sample)
            divergences.append(forward_kl(expected, log_probabilities(logits[:, 0])))
            positions += running
            tokens = logits[:, 0].argmax(-1)
            running &= ~torch.isin(tokens, ends)
            if not running.any():
                break
            ids = tokens.unsqueeze(-1)
        rows = zip(torch.stack(divergences, -1).tolist(), positions.tolist(), strict=True)
        return [Score(tuple(row[:count])) for row, count in rows]


class TeacherHistory:
    """All points read the teacher's tokens, so that one pass gives the distributions of all positions."""

    def wanted(self, teacher: Teacher) -> int:
        """All of the teacher's."""
        return len(teacher.tokens)

    @torch.no_grad()
    def scores(
        self, tail: Tail, query: Sequence[int], teacher: Teacher, names: Sequence[str], sample: str
    ) -> list[Score]:
        """Score the rows of a tail (see `History`)."""
        steps = len(teacher.tokens)
        logits = tail.read([*query, *teacher.tokens[: steps - 1].tolist()], keep=steps, query=len(query))
        check_finite(logits, names, 1, sample)
        # One token after the other: distributions of all of them would need as much memory as their logits, twice.
        each = zip(teacher.log_probs, logits.unbind(1), strict=True)
        divergences = torch.stack([forward_kl(own, log_probabilities(logit)) for own, logit in each], dim=-1)
        return [Score(tuple(row)) for row in divergences.tolist()]


class Scorer:
    """Scores points on prompts by an objective.

    Args:
        lm: The model; how it encodes and merges is read from its settings, T and S are not.
        objective: What is measured.
        max_rows: Most points in one batch; it is halved, for good, whenever memory does not suffice.
    """

    def __init__(self, lm: ServedModel, objective: Objective, max_rows: int | None = None) -> None:
        self.lm = lm
        self.ends = end_tokens(lm) if objective.after_eos == "stop" else ()
        self.history: History = OwnHistory(self.ends) if objective.history == "own" else TeacherHistory()
        self.room = Room(max_rows, "points")

    def score(
        self,
        prompt: Prompt,
        teacher: Teacher,
        points: Sequence[Candidate],
        sample: str,
        on_scored: Callable[[int], None] = lambda count: None,
    ) -> list[Score]:
        """Score every point on a prompt.

        Args:
            prompt: The prompt, with at least one chunk.
            teacher: Its teacher, cut to the objective's K.
            points: The points, at least one.
            sample: Where the prompt comes from, for errors.
            on_scored: Called with the number of points just scored.

        Raises:
            ApeError: A point's logits are not finite, or memory does not suffice for a single point.
        """
        encoded = self.lm.engine.encode(prompt)
        return self.score_encoded(encoded, prompt, teacher, points, sample=sample, on_scored=on_scored)

    def score_encoded(
        self,
        encoded: EncodedPrompt,
        prompt: Prompt,
        teacher: Teacher,
        points: Sequence[Candidate],
        *,
        sample: str,
        on_scored: Callable[[int], None] = lambda count: None,
    ) -> list[Score]:
        """Score every point on a prompt that is encoded already (see `score`)."""
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

        pieces = self.room.pieces(work, len(points), what=sample, refusal=refusal)
        return [score for piece in pieces for score in piece]
