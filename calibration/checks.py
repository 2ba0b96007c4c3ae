"""What a choice is checked against: labels, and rows that it was not made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.task import Task
from tqdm import tqdm

from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.artefacts.calibration import Labels, Unseen, UnseenRow
from lm_eval_ape.artefacts.calibration import Task as TaskPart
from lm_eval_ape.artefacts.frontier import Frontier
from lm_eval_ape.calibration import document
from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.grid.candidates import Candidate, middle
from lm_eval_ape.calibration.grid.grid import Grid
from lm_eval_ape.calibration.grid.measure import Measured, Meter
from lm_eval_ape.calibration.grid.stability import difference, resample
from lm_eval_ape.calibration.grid.tuning import Rank, oracle, rank
from lm_eval_ape.calibration.labels import Document, aligned, with_score
from lm_eval_ape.calibration.labels import Labels as Scorer
from lm_eval_ape.calibration.objective.keys import label_key
from lm_eval_ape.calibration.objective.objective import AVERAGES, SIGNALS, Average, Signal
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.search.search import Found
from lm_eval_ape.harness.harness_model import HarnessModel
from lm_eval_ape.harness.metrics import Metric
from lm_eval_ape.harness.samples import Gathered, Sample, gather, task_digest
from lm_eval_ape.storage.journal import Journal

_NO_SCORE: dict[str, Any] = {"score": None, "less_score_than_chosen": None, "scores": None}


class Checks:
    """Checks choices.

    Args:
        lm: The model.
        options: How requests are built, and the bootstrap.
        grid: The points that labels are to score.
        meter: Measures divergences.
        metric: What labels are scored by; None where no label is to be read.
        cache: Folder that keeps scores; None keeps nothing.
    """

    def __init__(
        self, lm: HarnessModel, options: Options, *, grid: Grid, meter: Meter, metric: Metric | None, cache: Path | None
    ) -> None:
        self.lm = lm
        self.options = options
        self.grid = grid
        self.meter = meter
        self.metric = metric
        self.cache = cache

    def labels(
        self,
        measured: Measured,
        gathered: Gathered,
        tasks: Mapping[str, Task],
        digests: Sequence[Mapping[str, Any]],
    ) -> Labels:
        """Score every point of the grid on the calibration rows.

        Args:
            measured: The signals of all reported points, the grid's first.
            gathered: The samples that they are of.
            tasks: The samples' tasks.
            digests: What identifies the tasks.

        Returns:
            The part `labels` of `calibration.json`.
        """
        assert self.metric is not None
        options, points = self.options, self.grid.points
        scores, metric = self._scores(tasks, points, digests, options.limit, options.samples)
        known, signals = _by_document(gathered.samples, measured.means[:, :, : len(points)])
        documents = with_score(scores, known)
        signals = signals[:, [known.index(document) for document in documents]]
        values = aligned(scores, points, documents)
        means = dict(zip(points, values.mean(0).tolist(), strict=True))
        weights = resample(len(documents), options.resamples, options.seed)
        ranks = _ranks(signals, values, weights)
        return document.labels_part(metric, means, len(documents), oracle(means, metric), ranks)

    def frontier(
        self,
        part: Frontier,
        search: Found,
        tasks: Mapping[str, Task],
        digests: Sequence[Mapping[str, Any]],
    ) -> Frontier:
        """Score a search's candidates, each at its best point, and say which signal goes with the score over them.

        Those that the race left out are not scored.

        Args:
            part: What the search found.
            search: The same, with all that was measured.
            tasks: The samples' tasks.
            digests: What identifies the tasks.

        Returns:
            The part with scores.
        """
        options = self.options
        scores: dict[str, dict[Document, float]] = {}
        signals: dict[str, Floats] = {}
        for own, tried in zip(part.candidates, search.tried, strict=True):
            if own.best and not own.dropped:
                with self.lm.under(tried.encoding.settings):
                    found, _ = self._scores(tasks, [own.best.point], digests, options.limit, options.samples)
                scores[own.name] = found[own.best.point]
                signals[own.name] = tried.measured.means[:, :, self.grid.reported.index(own.best.point)]
        known, values = _by_document(search.gathered.samples, np.stack(list(signals.values()), axis=-1))
        documents = with_score(scores, known)
        values = values[:, [known.index(document) for document in documents]]
        scored = aligned(scores, scores, documents)
        weights = resample(len(documents), options.resamples, options.seed)
        means = dict(zip(scores, scored.mean(0).tolist(), strict=True))
        ranks = _ranks(values, scored, weights) if len(scores) > 1 else {}
        return part.model_copy(
            update={
                "candidates": [one.model_copy(update={"score": means.get(one.name)}) for one in part.candidates],
                "signals": document.signal_ranks(ranks),
            }
        )

    def test(self, named: Mapping[str, Candidate], tasks: Mapping[str, Task]) -> Unseen:
        """Measure choices on rows that they were not made on.

        Args:
            named: The choices, by name; one is `chosen`.
            tasks: The tasks that hold the rows.

        Returns:
            The part `test` of `calibration.json`.
        """
        options = self.options
        gathered = gather(
            self.lm,
            tasks,
            options,
            num_tokens=self.meter.objective.num_tokens,
            on_too_long=options.on_too_long,
            limit=options.test_limit,
        )
        points = tuple(dict.fromkeys(named.values()))
        kl = dict(zip(points, self.meter.measure(gathered.samples, points).kl.T, strict=True))
        digests = [task_digest(task, gathered.samples) for task in tasks.values()]
        weights = resample(len(gathered.samples), options.resamples, options.seed)
        chosen = named["chosen"]
        more_kl = {name: difference(kl[point], kl[chosen], weights) for name, point in named.items()}
        metric, scored = None, dict.fromkeys(named, _NO_SCORE)
        if self.metric:
            scores, metric = self._scores(tasks, points, digests, options.test_limit, {})
            documents = with_score(scores, scores[chosen])
            values = dict(zip(points, aligned(scores, points, documents).T, strict=True))
            weights = resample(len(documents), options.resamples, options.seed)
            for name, point in named.items():
                less = difference(values[chosen], values[point], weights)
                scored[name] = {
                    "score": float(values[point].mean()),
                    "less_score_than_chosen": less,
                    "scores": values[point].tolist(),
                }
        rows = [
            UnseenRow(
                name=name,
                point=middle(point),
                mean_kl=float(kl[point].mean()),
                more_kl_than_chosen=more_kl[name],
                kl=kl[point].tolist(),
                **scored[name],
            )
            for name, point in named.items()
        ]
        return Unseen(
            tasks=[TaskPart(**one) for one in digests],
            samples=len(gathered.samples),
            left_out=document.left_out_part(gathered),
            metric=metric and metric.name,
            rows=rows,
        )

    def _scores(
        self,
        tasks: Mapping[str, Task],
        points: Sequence[Candidate],
        digests: Sequence[Mapping[str, Any]],
        limit: float | None,
        picked: Mapping[str, list[int]],
    ) -> tuple[dict[Candidate, dict[Document, float]], Metric]:
        """Each point's scores, and the metric that they are of."""
        assert self.metric is not None
        generation = {name: task.get_config("generation_kwargs") for name, task in tasks.items()}
        asked = {"limit": limit, "picked": picked, "metric": self.metric.name, "generation": generation}
        settings = calibration_file.calibrated_settings(self.lm.settings)
        key = label_key(self.meter.model, settings, digests, asked)
        scorer = Scorer(self.lm, self.options, self.metric, Journal(self.cache, "scores", self.lm.rank))
        progress = tqdm(points, "Scoring with labels", unit="point", disable=self.lm.rank != 0)
        scores = {point: scorer.score(point, tasks, key, limit=limit, picked=picked) for point in progress}
        return scores, scorer.scored


def _ranks(signals: Floats, scores: Floats, weights: Floats) -> dict[tuple[Signal, Average], Rank]:
    """How each signal goes with the score.

    Args:
        signals: `(signals, documents, points)`.
        scores: `(documents, points)`.
        weights: Resamples of the documents.
    """
    return {
        (signal, how): rank(own, scores, weights, how)
        for signal, own in zip(SIGNALS, signals, strict=True)
        for how in AVERAGES
    }


def _by_document(samples: Sequence[Sample], signals: Floats) -> tuple[list[Document], Floats]:
    """Mean signals of each document over its prompts, `(signals, documents, points)`."""
    rows: dict[Document, list[int]] = {}
    for number, sample in enumerate(samples):
        rows.setdefault((sample.task, sample.doc_id), []).append(number)
    return list(rows), np.stack([signals[:, own].mean(1) for own in rows.values()], axis=1)
