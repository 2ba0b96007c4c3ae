"""Divergences of many points on many samples: split among processes, resumed where a killed run stopped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate.utils.memory import should_reduce_batch_size
from numpy.typing import NDArray
from tqdm import tqdm

from lm_eval_ape.artefacts.identity import digest
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.grid.candidates import Candidate, key_of, read_key
from lm_eval_ape.calibration.grid.scoring import Score, Scorer
from lm_eval_ape.calibration.objective.keys import score_key
from lm_eval_ape.calibration.objective.objective import SIGNALS, Objective, Signal
from lm_eval_ape.calibration.objective.teacher import Teacher, TeacherStore
from lm_eval_ape.encoding.kv_store.store import KVStore
from lm_eval_ape.engine.non_finite import explained
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.model_facts import model_key
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.runtime.clock import now
from lm_eval_ape.storage.journal import Journal

# Of a prompt's tokens, the share that may come from the store where what encoding took is of any worth: a prefix.
FOUND_AT_MOST = 0.05


class Measured(NamedTuple):
    """Scores of points on samples.

    Attributes:
        means: Means over positions of all `SIGNALS`, `(signals, samples, points)`.
        positions: How many positions each is the mean of, `(samples, points)`.
    """

    means: Floats
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Sequence[Sequence[Score]]) -> Measured:
        """From each sample's scores."""
        means = np.array([[score.means for score in row] for row in scores])
        return cls(np.moveaxis(means, -1, 0), np.array([[score.positions for score in row] for row in scores]))

    def signal(self, name: Signal) -> Floats:
        """One signal, `(samples, points)`."""
        found: Floats = self.means[SIGNALS.index(name)]
        return found

    @property
    def kl(self) -> Floats:
        """Mean divergences in nats, `(samples, points)`."""
        return self.signal("kl")


class Meter:
    """Measures points by an objective and keeps every result.

    Args:
        lm: The model.
        objective: What is measured.
        max_rows: Most points in one batch.
        cache: Folder for teachers and results; None keeps nothing.
    """

    def __init__(self, lm: ServedModel, objective: Objective, *, max_rows: int | None, cache: Path | None) -> None:
        self.lm = lm
        self.objective = objective
        self.model = model_key(lm.engine)
        self.scorer = Scorer(lm, objective, max_rows)
        self.teachers = TeacherStore(cache and cache / "teacher", self.model)
        self.journal = Journal(cache, "signals", lm.processes.rank)
        # Apart, as they are never the same twice.
        self.clock = Journal(cache, "seconds", lm.processes.rank)
        self.seconds: dict[str, float] = {one["key"]: one["seconds"] for one in self.clock.records()}
        self.known: dict[str, dict[Point | str, Score]] = defaultdict(dict)
        for record in self.journal.records():
            points = map(read_key, record["points"])
            scores = (Score(tuple(map(tuple, values))) for values in record["signals"])
            self.known[record["key"]].update(zip(points, scores, strict=True))

    def measure(self, samples: Sequence[Sample], points: Sequence[Candidate]) -> Measured:
        """Measure all points on all samples (see `scores`)."""
        return Measured.of(self.scores(samples, points))

    def scores(self, samples: Sequence[Sample], points: Sequence[Candidate]) -> list[list[Score]]:
        """Score all points on all samples; every process gets the whole result.

        Returns:
            For each sample its scores, in the points' order.

        Raises:
            ApeError: Logits are not finite, or memory does not suffice for a sample.
        """
        own = self.lm.processes.own(len(samples))
        rows: list[tuple[int, list[Score]]] = []
        with tqdm(total=len(own) * len(points), unit="point", disable=self.lm.processes.rank != 0) as progress:
            for number, index in enumerate(own, start=1):
                progress.set_description(f"Sample {number} of {len(own)}, {len(points)} points each")
                rows.append((index, self.sample(samples[index], points, progress.update)))
        return self.lm.processes.put_together(rows)

    def sample(
        self, sample: Sample, points: Sequence[Candidate], on_scored: Callable[[int], Any] = lambda count: None
    ) -> list[Score]:
        """Score all points on one sample.

        Args:
            sample: The sample.
            points: The points.
            on_scored: Called with the number of points just scored, or known already.

        Raises:
            ApeError: Logits are not finite, or memory does not suffice.
        """
        key = self._key(sample)
        known = self.known[key]
        missing = [point for point in points if key_of(point) not in known]
        on_scored(len(points) - len(missing))
        if missing:
            seconds, scores = self._score(sample, missing, on_scored)
            if seconds is not None:
                self._note(key, seconds)
            keys = list(map(key_of, missing))
            known.update(zip(keys, scores, strict=True))
            values = [score.values for score in scores]
            self.journal.append({"key": key, "points": keys, "signals": values})
        return [known[key_of(point)] for point in points]

    def encoding_seconds(self, sample: Sample) -> float | None:
        """What encoding a sample took under the present settings, recomputed tokens included.

        None if that is not known, or if the chunks had been kept.
        """
        return self.seconds.get(self._key(sample))

    def teacher_seconds(self, sample: Sample) -> float | None:
        """What the sequential model took to read a sample's prompt; None if that is not known."""
        return self.seconds.get(self._teacher_key(sample))

    def teacher(self, sample: Sample) -> Teacher:
        """A sample's teacher, from disk if it is there."""
        prompt, scorer = sample.prompt, self.scorer
        return self.teachers.get(
            self.lm,
            prompt.ids,
            self.objective.num_tokens,
            scorer.ends,
            str(sample),
            query=scorer.query_positions(prompt),
            on_read=partial(self._note, self._teacher_key(sample)),
        )

    def _note(self, key: str, seconds: float) -> None:
        if key not in self.seconds:
            self.seconds[key] = seconds
            self.clock.append({"key": key, "seconds": seconds})

    def _teacher_key(self, sample: Sample) -> str:
        return digest([self.model, "teacher", sample.prompt.ids])

    def _key(self, sample: Sample) -> str:
        return score_key(self.model, self.lm.engine.settings, self.objective, self.scorer.ends, sample)

    def _score(
        self, sample: Sample, points: Sequence[Candidate], on_scored: Callable[[int], Any]
    ) -> tuple[float | None, list[Score]]:
        """What encoding took, in seconds (None where it was found), and each point's score."""
        engine, prompt, name = self.lm.engine, sample.prompt, str(sample)

        def score() -> tuple[float | None, list[Score]]:
            teacher = self.teacher(sample)
            kept = _tokens_found(engine.store)
            start = now(engine.device)
            encoded = engine.encode(prompt)
            seconds = now(engine.device) - start
            found = _tokens_found(engine.store) - kept
            timed = seconds if found <= FOUND_AT_MOST * len(prompt.ids) else None
            return timed, self.scorer.score(encoded, prompt, teacher, points, sample=name, on_scored=on_scored)

        try:
            return explained(self.lm, score)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            raise ApeError(
                f"{name}: memory does not suffice to read its {len(prompt.ids)} tokens once; free some, choose shorter "
                "samples (max_length=... in model_args leaves longer ones out) or load the model in a smaller dtype."
            ) from error


def _tokens_found(store: KVStore | None) -> int:
    """Of how many tokens keys and values have been found so far."""
    return store.counts.hit_tokens if store else 0
