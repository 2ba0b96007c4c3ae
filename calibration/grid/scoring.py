"""KL of many (T, S) points on one prompt: one encoding, and the points as rows of one batch over its shared keys.

Keys and values of the chunks do not depend on (T, S), so they are made once; each point is a row with its own T and S
and its own short tail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from lm_eval_ape.attention.factors import reading_factors
from lm_eval_ape.attention.segmented_attention import reading_segments
from lm_eval_ape.attention.segments import Reader, Reading, SegmentedCache
from lm_eval_ape.attention.token_passes import passes
from lm_eval_ape.calibration.grid.candidates import Candidate, factors_of
from lm_eval_ape.calibration.objective.divergence import forward_kl, log_probabilities
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.calibration.objective.teacher import Teacher
from lm_eval_ape.encoding.encode import encode, input_device
from lm_eval_ape.engine.decoding import check_finite, end_tokens, last_logits
from lm_eval_ape.engine.out_of_memory import half, in_pieces
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.prompts.prompt import Prompt

logger = logging.getLogger(__name__)


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


class Scorer:
    """Scores points on prompts by an objective.

    Args:
        lm: The model; how it encodes and merges is read from its settings, T and S are not.
        objective: What is measured.
        max_rows: Most points in one batch; it is halved, for good, whenever memory does not suffice.
    """

    def __init__(self, lm: ApeHFLM, objective: Objective, max_rows: int | None = None) -> None:
        self.lm = lm
        self.objective = objective
        self.max_rows = max_rows
        self.ends = end_tokens(lm) if objective.after_eos == "stop" else ()

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
        return self.score_reader(self.read(prompt), prompt, teacher, points, sample=sample, on_scored=on_scored)

    def read(self, prompt: Prompt) -> Reader:
        """Encode a prompt's prefix and chunks, which serve every point."""
        with self.lm.autocast():
            return encode(self.lm.model, prompt, self.lm.settings, used=self.lm.used, store=self.lm.store)

    def score_reader(
        self,
        reader: Reader,
        prompt: Prompt,
        teacher: Teacher,
        points: Sequence[Candidate],
        *,
        sample: str,
        on_scored: Callable[[int], None] = lambda count: None,
    ) -> list[Score]:
        """Score every point on a prompt that `read` has encoded (see `score`)."""
        measure = self._own if self.objective.history == "own" else self._teacher

        def work(part: slice) -> list[Score]:
            with reading_segments(self.lm.model):
                scores = measure(prompt, reader, teacher, points[part], sample)
            on_scored(len(scores))
            return scores

        def make_room(rows: int, error: RuntimeError) -> None:
            if rows == 1:
                raise ApeError(
                    f"{sample}: memory does not suffice for one (T, S) point over its {len(prompt.ids)} tokens; free "
                    "some, or calibrate on shorter samples or with a smaller dtype."
                ) from error
            self.max_rows = half(rows)
            logger.warning("%s: memory is short; going on with %d points at a time.", sample, self.max_rows)

        pieces = in_pieces(work, len(points), lambda: self.max_rows, make_room)
        return [score for piece in pieces for score in piece]

    def _own(
        self, prompt: Prompt, reader: Reader, teacher: Teacher, points: Sequence[Candidate], sample: str
    ) -> list[Score]:
        """Each point continues from its own greedy tokens, as the teacher did from its own (Eq. 3)."""
        device = input_device(self.lm.model)
        cache, names = self._cache(reader, points, wanted=1), [f"the point {point}" for point in points]
        ends = torch.tensor(self.ends, dtype=torch.long, device=device)
        ids = torch.tensor([prompt.query], device=device).expand(len(points), -1)
        start = reader.start
        divergences: list[Tensor] = []
        positions = torch.zeros(len(points), dtype=torch.long, device=device)
        running = torch.ones(len(points), dtype=torch.bool, device=device)
        for step, expected in enumerate(teacher.log_probs, start=1):
            logits = last_logits(self.lm, ids, start, cache, keep=1)
            check_finite(logits, names, step, sample)
            divergences.append(forward_kl(expected, log_probabilities(logits[:, 0])))
            positions += running
            tokens = logits[:, 0].argmax(-1)
            running &= ~torch.isin(tokens, ends)
            if not running.any():
                break
            start += ids.shape[1]
            ids = tokens.unsqueeze(-1)
        rows = zip(torch.stack(divergences, -1).tolist(), positions.tolist(), strict=True)
        return [Score(tuple(row[:count])) for row, count in rows]

    def _teacher(
        self, prompt: Prompt, reader: Reader, teacher: Teacher, points: Sequence[Candidate], sample: str
    ) -> list[Score]:
        """All points read the teacher's tokens, so one pass gives the distributions of all positions."""
        device = input_device(self.lm.model)
        steps = len(teacher.tokens)
        ids = torch.tensor([[*prompt.query, *teacher.tokens[: steps - 1].tolist()]], device=device)
        cache = self._cache(reader, points, wanted=steps)
        query = len(prompt.query)
        parts = [
            last_logits(
                self.lm,
                ids[:, part].expand(len(points), -1),
                reader.start + part.start,
                cache,
                keep=part.stop - max(part.start, query - 1),
            )
            for part in passes(ids.shape[1], query, self.lm.settings.selection)
        ]
        logits = torch.cat(parts, dim=1)
        check_finite(logits, [f"the point {point}" for point in points], 1, sample)
        # One token after the other: distributions of all of them would need as much memory as their logits, twice.
        each = zip(teacher.log_probs, logits.unbind(1), strict=True)
        divergences = torch.stack([forward_kl(own, log_probabilities(logit)) for own, logit in each], dim=-1)
        return [Score(tuple(row)) for row in divergences.tolist()]

    def _cache(self, reader: Reader, points: Sequence[Candidate], *, wanted: int) -> SegmentedCache:
        """A cache of one row a point, each with its own T and S.

        Args:
            reader: What all points read.
            points: The points.
            wanted: For how many of a pass's last tokens logits are wanted at most.
        """
        settings, device = self.lm.settings, input_device(self.lm.model)
        reading = Reading(
            (replace(reader, rows=len(points)),),
            **reading_factors([factors_of(point) for point in points], device, self.lm.model.dtype)._asdict(),
            scale_mode=settings.scale_mode,
            backend=settings.attn_backend,
            selection=settings.selection,
            alike=settings.selection is None,
            used=self.lm.used,
        )
        layers = self.lm.model.config.get_text_config().num_hidden_layers
        # Where tokens choose chunks together, every token has a say in every layer.
        return SegmentedCache(reading, layers, wanted=None if settings.selection else wanted)
