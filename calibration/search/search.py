"""A search from its encodings to its choice: every encoding on every sample, as far as the race goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
from lm_eval.api.task import Task
from tqdm import tqdm

from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.grid.choice import Table
from lm_eval_ape.calibration.grid.grid import Grid
from lm_eval_ape.calibration.grid.measure import Measured, Meter
from lm_eval_ape.calibration.grid.scoring import Score
from lm_eval_ape.calibration.grid.stability import resample
from lm_eval_ape.calibration.objective.objective import Average, Signal
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.search.cut import cut
from lm_eval_ape.calibration.search.encodings import Encoding, LeftOut, Space
from lm_eval_ape.calibration.search.race import Dropped, race
from lm_eval_ape.calibration.search.rule import Rival, Rule
from lm_eval_ape.engine.operations import ModelShape, PromptOperations
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.harness_model import HarnessModel
from lm_eval_ape.harness.samples import Gathered


class Cost(NamedTuple):
    """What an encoding costs, up to the first new token.

    Attributes:
        operations: Floating-point operations a prompt, counted (see `engine.operations`).
        share: Of the sequential model's.
        seconds: What encoding a prompt took, recomputed tokens included and the query not; None if not known.
    """

    operations: float
    share: float
    seconds: float | None


class Row(NamedTuple):
    """An encoding on a sample.

    Attributes:
        scores: Of each point.
        seconds: What encoding took; None if not known.
    """

    scores: list[Score]
    seconds: float | None


class Tried(NamedTuple):
    """An encoding as far as it was measured.

    Attributes:
        encoding: It.
        cost: What it costs.
        numbers: Of the samples that it was measured on, ascending.
        measured: All signals of all points on them.
        dropped: When and why the race left it out; None if it did not.
    """

    encoding: Encoding
    cost: Cost
    numbers: list[int]
    measured: Measured
    dropped: Dropped | None

    def table(self, grid: Grid, signal: Signal, average: Average) -> Table:
        """What the best point is chosen from."""
        measured = self.measured
        return Table(grid, grid.reported, measured.kl, measured.signal(signal), average)


class Found(NamedTuple):
    """What a search found.

    Attributes:
        tried: All encodings that the model can do, in the order in which they were asked for.
        left_out: What was asked for and not tried.
        gathered: The samples as the chosen encoding cuts them.
        not_common: How many prompts were left out because not all encodings read them alike.
        chosen: Number of the chosen one among `tried`; None where none is close enough.
        teacher_seconds: What the sequential model took to read a prompt, mean over samples; None if not known.
        shares: Of each of `tried`, the share of resamples that choose it.
    """

    tried: list[Tried]
    left_out: list[LeftOut]
    gathered: Gathered
    not_common: int
    chosen: int | None
    teacher_seconds: float | None
    shares: list[float]


class Search:
    """Searches through encodings.

    Args:
        lm: The model.
        options: How prompts are built and what chooses.
        space: The encodings.
        tasks: The tasks whose prompts are read.
        grid: The points that each encoding is measured at.
        meter: Measures signals.
        rule: By which the choice is made.
    """

    def __init__(
        self,
        lm: HarnessModel,
        options: Options,
        space: Space,
        *,
        tasks: Mapping[str, Task],
        grid: Grid,
        meter: Meter,
        rule: Rule,
    ) -> None:
        self.lm = lm
        self.options = options
        self.tasks = tasks
        self.grid = grid
        self.meter = meter
        self.rule = rule
        self.teacher_seconds: dict[int, float | None] = {}
        self.encodings, self.gathered, self.left_out, self.not_common = cut(lm, options, space, tasks)

    def run(self) -> Found:
        """Measure and choose.

        Raises:
            ApeError: Nothing is within the budget, logits are not finite, or memory does not suffice.
        """
        encodings, samples = self.encodings, self.gathered[0].samples
        order = np.random.default_rng(self.options.seed).permutation(len(samples)).tolist()
        costs = self._costs()
        self._check_budget([cost.share for cost in costs])
        signal: Signal = self.options.choose_by if self.options.choose_by != "entropy" else "kl"
        rows: list[list[Row]] = [[] for _ in encodings]
        # Points that can be chosen come first among those that are reported.
        choosable = len(self.grid.points)
        quiet = self.lm.rank != 0
        with tqdm(total=len(samples) * len(encodings), unit="prompt", disable=quiet) as progress:

            def measure(live: Sequence[int], part: range) -> dict[int, Floats]:
                left = len(samples) - part.start
                progress.total = progress.n + len(live) * left
                progress.set_description(f"{len(live)} of {len(encodings)} encodings, {left} prompts left")
                found = self._round(live, [order[place] for place in part], progress)
                for number, own in found.items():
                    rows[number] += own
                return {number: _measured(own).signal(signal)[:, :choosable] for number, own in found.items()}

            raced = race([cost.share for cost in costs], len(samples), measure, self.rule, racing=self.options.race)
        tried = [
            _tried(encoding, cost, order, own, raced.dropped.get(number))
            for number, (encoding, cost, own) in enumerate(zip(encodings, costs, rows, strict=True))
        ]
        live = [number for number in range(len(tried)) if number not in raced.dropped]
        rivals = [Rival(tried[number].cost.share, raced.values[number]) for number in live]
        weights = resample(len(samples), self.options.resamples, self.options.seed)
        picked = self.rule.pick(rivals, weights)
        counts = np.bincount(self.rule.picks(rivals, weights) + 1, minlength=len(live) + 1)[1:]
        shares = [0.0] * len(tried)
        for number, count in zip(live, counts.tolist(), strict=True):
            shares[number] = count / len(weights)
        chosen = None if picked is None else live[picked]
        seconds = _mean(self.teacher_seconds.values())
        gathered = self.gathered[chosen or 0]
        return Found(tried, self.left_out, gathered, self.not_common, chosen, seconds, shares)

    def _check_budget(self, shares: Sequence[float]) -> None:
        """Refuse a budget that nothing fits into, before anything is measured."""
        budget, least = self.rule.budget, min(shares)
        if budget is not None and least > budget:
            raise ApeError(
                f"No encoding costs at most {budget:g} of the sequential model's prefill: the cheapest is "
                f"{self.encodings[shares.index(least)].name} with {least:.3f}. Raise --budget, or search among cheaper "
                "ones."
            )

    def _costs(self) -> list[Cost]:
        shape = ModelShape.of(self.lm.model)
        costs = []
        for encoding, gathered in zip(self.encodings, self.gathered, strict=True):
            counts = [PromptOperations.of(shape, sample.prompt) for sample in gathered.samples]
            own = sum(count.prefill(encoding.settings) for count in counts)
            costs.append(Cost(own / len(counts), own / sum(count.sequential for count in counts), None))
        return costs

    def _round(self, live: Sequence[int], numbers: Sequence[int], progress: tqdm[NoReturn]) -> dict[int, list[Row]]:
        """Some encodings on some samples, in the samples' order.

        Sample by sample, so that a teacher is asked once for all encodings.
        """
        rows = []
        for place in self.lm.processes.own(len(numbers)):
            row = []
            for number in live:
                sample = self.gathered[number].samples[numbers[place]]
                with self.lm.under(self.encodings[number].settings):
                    scores = self.meter.sample(sample, self.grid.reported)
                    row.append(Row(scores, self.meter.encoding_seconds(sample)))
                progress.update()
            rows.append((place, (row, self.meter.teacher_seconds(sample))))
        together = self.lm.processes.put_together(rows)
        self.teacher_seconds |= {numbers[place]: spent for place, (_, spent) in enumerate(together)}
        return {number: [row[column] for row, _ in together] for column, number in enumerate(live)}


def _tried(encoding: Encoding, cost: Cost, order: Sequence[int], rows: Sequence[Row], dropped: Dropped | None) -> Tried:
    """An encoding with its rows, which came in the race's order."""
    numbers = order[: len(rows)]
    if not rows:
        nothing = Measured(np.empty((0, 0, 0)), np.empty((0, 0), dtype=np.int64))
        return Tried(encoding, cost, [], nothing, dropped)
    by_number = dict(zip(numbers, rows, strict=True))
    ascending = sorted(numbers)
    cost = cost._replace(seconds=_mean([row.seconds for row in rows]))
    return Tried(encoding, cost, ascending, _measured([by_number[number] for number in ascending]), dropped)


def _mean(seconds: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [one for one in seconds if one is not None]
    return float(np.mean(known)) if known else None


def _measured(rows: Sequence[Row]) -> Measured:
    return Measured.of([row.scores for row in rows])
