"""A second signal that needs no label: how far a point's attention entropy is from the sequential model's.

Zhang et al., "Attention entropy is a key factor" (2024), find that parallel encoding raises the entropy of the query's
attention and that scores fall as it rises. Beside the KL, which compares what a model says, this compares how it reads.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from lm_eval_ape.artefacts import calibration as parts
from lm_eval_ape.artefacts import estimates
from lm_eval_ape.artefacts.identity import digest, read_settings
from lm_eval_ape.artefacts.points import NEUTRAL, Point
from lm_eval_ape.attention.factors import Factors
from lm_eval_ape.attention.row_statistics import RowProbe
from lm_eval_ape.attention.segments import EncodedPrompt
from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.grid.choice import Chosen, Table, choose
from lm_eval_ape.calibration.grid.tuning import rank
from lm_eval_ape.engine.decoding import check_finite
from lm_eval_ape.engine.non_finite import explained
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.model_facts import model_key
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.runtime.out_of_memory import Room
from lm_eval_ape.storage.journal import Journal

logger = logging.getLogger(__name__)

# The sequential model, as an oracle's keys and values: the same prompt, its context kept apart from its query.
_SEQUENTIAL: Mapping[str, Any] = {"keys_from": "sequential", "values_from": "sequential", "top_chunks": None}


class Entropies(NamedTuple):
    """Mean entropy of the query tokens' attention rows over layers, heads and tokens, in nats.

    Attributes:
        teacher: Of the sequential model, `(samples,)`.
        points: `(samples, points)`.
    """

    teacher: Floats
    points: Floats

    @property
    def distances(self) -> Floats:
        """How far each point is from the teacher, `(samples, points)`."""
        return np.abs(self.points - self.teacher[:, None])


class EntropyMeter:
    """Measures the attention entropy of points on samples and keeps every result.

    Args:
        lm: The model.
        max_rows: Most points in one batch.
        cache: Folder for results; None keeps nothing.
    """

    def __init__(self, lm: ServedModel, max_rows: int | None, cache: Path | None) -> None:
        self.lm = lm
        self.room = Room(max_rows, "points")
        self.model = model_key(lm.engine)
        self.journal = Journal(cache, "entropy", lm.processes.rank)
        self.known: dict[str, dict[Point | None, float]] = {}
        for record in self.journal.records():
            points = [None if point is None else Point(*point) for point in record["points"]]
            self.known.setdefault(record["key"], {}).update(zip(points, record["entropies"], strict=True))

    def measure(self, samples: Sequence[Sample], points: Sequence[Point]) -> Entropies:
        """Measure all points and the teacher on all samples; every process gets the whole result."""
        own = self.lm.processes.own(len(samples))
        progress = tqdm(
            own, f"Attention entropy, {len(points)} points", unit="sample", disable=self.lm.processes.rank != 0
        )
        rows = [(index, self._sample(samples[index], points)) for index in progress]
        values = np.array(self.lm.processes.put_together(rows))
        return Entropies(values[:, 0], values[:, 1:])

    def _sample(self, sample: Sample, points: Sequence[Point]) -> list[float]:
        prompt = sample.prompt
        key = digest([self.model, read_settings(self.lm.engine.settings), prompt.prefix, prompt.chunks, prompt.query])
        known = self.known.setdefault(key, {})
        missing: list[Point | None] = [point for point in (None, *points) if point not in known]
        if missing:
            found = self._entropies(sample, missing)
            known.update(zip(missing, found, strict=True))
            self.journal.append({"key": key, "points": missing, "entropies": found})
        return [known[point] for point in (None, *points)]

    def _entropies(self, sample: Sample, points: Sequence[Point | None]) -> list[float]:
        """In the points' order; None is the teacher."""
        real = [point for point in points if point is not None]
        found: dict[Point | None, float] = {}
        if len(real) < len(points):
            with self.lm.under(self.lm.engine.settings.with_(**_SEQUENTIAL)):
                found[None] = explained(self.lm, lambda: self._read(sample, [NEUTRAL]))[0]
        if real:
            found.update(zip(real, explained(self.lm, lambda: self._read(sample, real)), strict=True))
        return [found[point] for point in points]

    def _read(self, sample: Sample, points: Sequence[Point]) -> list[float]:
        """One pass over the query, a row a point; in smaller batches as far as memory asks for it.

        Raises:
            ApeError: Memory does not suffice for a single point.
        """
        encoded = self.lm.engine.encode(sample.prompt)

        def refusal() -> ApeError:
            return ApeError(
                f"{sample}: memory does not suffice to look at the attention of one (T, S) point over its "
                f"{len(sample.prompt.ids)} tokens; free some, calibrate on shorter samples, or drop --entropy."
            )

        pieces = self.room.pieces(
            lambda part: self._batch(sample, encoded, points[part]), len(points), what=str(sample), refusal=refusal
        )
        return [entropy for piece in pieces for entropy in piece]

    @torch.no_grad()
    def _batch(self, sample: Sample, encoded: EncodedPrompt, points: Sequence[Point]) -> list[float]:
        probe = RowProbe()
        with self.lm.engine.tail(encoded, [Factors.of(*point) for point in points], probe=probe) as tail:
            logits = tail.read(sample.prompt.query, keep=1)
        check_finite(logits, [f"the point {point}" for point in points], 1, str(sample))
        entropies: list[float] = probe.stacked(0, "entropy").double().mean((0, 2, 3)).tolist()
        return entropies


def choose_by_entropy(table: Table, entropies: Entropies) -> Chosen:
    """The grid point whose entropy is nearest to the teacher's, mean over samples; ties as for the KL.

    Args:
        table: The divergences of the same samples and points.
        entropies: Of `table.points`.
    """
    return choose(table._replace(judged=entropies.distances, average="mean"), table.grid.points)


def entropy_part(
    table: Table, entropies: Entropies, chosen: Chosen, weights: Floats, *, chosen_by: bool
) -> parts.Entropy:
    """The part `entropy` of `calibration.json`.

    Args:
        table: The divergences.
        entropies: Of `table.points`.
        chosen: What `choose_by_entropy` gave.
        weights: Resamples of the samples (see `stability.resample`).
        chosen_by: Whether the calibration takes this choice, not the KL's.
    """
    columns = table.columns(table.grid.points)
    ranked = rank(table.kl[:, columns], entropies.distances[:, columns], weights)
    return parts.Entropy(
        chosen_by=chosen_by,
        teacher=float(entropies.teacher.mean()),
        mean_entropy=entropies.points.mean(0).tolist(),
        mean_distance=entropies.distances.mean(0).tolist(),
        choice=parts.Chosen(
            attn_temperature=chosen.point.temperature,
            attn_scale=chosen.point.scale,
            mean_kl=chosen.mean_kl,
            ties=list(chosen.ties),
        ),
        spearman_with_kl=estimates.Rank(**ranked._asdict()),
    )
