"""A calibration from its options to its results."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from lm_eval.api.task import Task

from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.artefacts.calibration import GRADIENT_VERSION, SCHEMA_VERSION, Labels, Model, Unseen
from lm_eval_ape.artefacts.calibration import Calibration as Content
from lm_eval_ape.artefacts.calibration import Objective as Made
from lm_eval_ape.artefacts.calibration import Task as TaskPart
from lm_eval_ape.artefacts.frontier import Frontier
from lm_eval_ape.artefacts.identity import versions
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL
from lm_eval_ape.calibration import document
from lm_eval_ape.calibration.checks import Checks
from lm_eval_ape.calibration.entropy import Entropies, EntropyMeter, choose_by_entropy, entropy_part
from lm_eval_ape.calibration.gradient.descent import Descent, descend, gradient_part
from lm_eval_ape.calibration.grid.average import Floats
from lm_eval_ape.calibration.grid.candidates import Candidate
from lm_eval_ape.calibration.grid.choice import Choices, Chosen, Table, choose_all
from lm_eval_ape.calibration.grid.grid import Grid, make_grid
from lm_eval_ape.calibration.grid.measure import Measured, Meter
from lm_eval_ape.calibration.grid.stability import resample
from lm_eval_ape.calibration.labels import find_metric
from lm_eval_ape.calibration.objective.objective import Signal
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.calibration.search.document import frontier_part, refusal
from lm_eval_ape.calibration.search.encodings import Space, check_gradient, space
from lm_eval_ape.calibration.search.rule import Rule
from lm_eval_ape.calibration.search.search import Found, Search
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.arguments import split_arguments
from lm_eval_ape.harness.catalogue import Catalogue
from lm_eval_ape.harness.harness_model import HarnessModel, load
from lm_eval_ape.harness.metrics import Metric
from lm_eval_ape.harness.model_facts import device_name, model_facts
from lm_eval_ape.harness.samples import Gathered, gather, task_digest
from lm_eval_ape.runtime.folder_lock import hold
from lm_eval_ape.storage.files import make_folder

logger = logging.getLogger(__name__)


def calibrate(options: Options, command: Sequence[str] = (), lm: HarnessModel | None = None) -> Content:
    """Choose T and S for a model and tasks without a label, and say how sure the choice is.

    Args:
        options: What to calibrate, on what, and what to write.
        command: What was called, for another run that finds the folders held.
        lm: The model that the options name, if it is loaded already.

    Returns:
        The content of `calibration.json`.

    Raises:
        ApeError: Another run holds a folder, or something asked for is impossible; what can be checked without the
            model is checked before it is loaded.
    """
    return Calibration(options, command).run(lm)


class MeasuredGrid(NamedTuple):
    """A grid measured on samples, and what was chosen from it.

    Attributes:
        gathered: The samples.
        measured: Divergences of every point on every sample.
        table: What the choice was made from: the divergences and, if something else chose, that too.
        choices: What was chosen.
        weights: Resamples of the samples.
        entropies: Attention entropies, if they were asked for.
        nearest: The point whose entropy is nearest to the teacher's.
    """

    gathered: Gathered
    measured: Measured
    table: Table
    choices: Choices
    weights: Floats
    entropies: Entropies | None = None
    nearest: Chosen | None = None


class Calibration:
    """One calibration.

    Args:
        options: What to calibrate, on what, and what to write.
        command: What was called, for another run that finds the folders held.

    Raises:
        ApeError: An option is impossible or a task unknown.
    """

    def __init__(self, options: Options, command: Sequence[str] = ()) -> None:
        self.options = options
        self.command = command
        self.seconds: dict[str, float] = {}
        self.objective = options.objective
        # Without a grid, only the point that the gradient starts from.
        axes = (
            [(value,) for value in DEFAULT] if options.method == "gradient" else [options.temperatures, options.scales]
        )
        self.grid: Grid = make_grid(*axes, num_tokens=options.num_tokens, searches=options.searches)
        _check_arguments(options)
        self.space: Space | None = None
        if options.searches:
            asked = options.model_args, options.candidates, options.search
            self.space = space(*asked, by_gradient=options.by_gradient)
        self.rule = Rule(options.accept, options.budget, options.average)
        self.output = make_folder(options.output_path) if options.output_path else None
        self.cache = self.output and self.output / "cache"
        if options.cache_path:
            self.cache = make_folder(options.cache_path)
        catalogue = Catalogue(options)
        self.tasks = catalogue.load(options.tasks)
        twins = catalogue.twins(self.tasks)
        test = options.test_tasks or (twins if options.with_labels else ())
        self.test_tasks: dict[str, Task] = catalogue.load(test) if test else {}
        self.metric: Metric | None = None
        if options.with_labels:
            self.metric = find_metric({**self.tasks, **self.test_tasks}, options.metric)
        self.config_tasks = list(self.test_tasks) or twins or list(self.tasks)

    def run(self, lm: HarnessModel | None = None) -> Content:
        """Load the model, measure, choose, and write what was asked for.

        Args:
            lm: The model, if it is loaded already.

        Raises:
            ApeError: Another run holds the folder or the cache, or something asked for is impossible.
        """
        folders = {folder.resolve(): folder for folder in (self.output, self.cache) if folder}
        with ExitStack() as held:
            for folder in folders.values():
                held.enter_context(hold(folder, self.command))
            return self._run(lm)

    def _run(self, lm: HarnessModel | None) -> Content:
        with self._timed("load"):
            asked = self.options
            self.lm = lm or load(asked.model_args, batch_size=asked.batch_size, device=asked.device)
            self.facts = model_facts(self.lm)
            self.meter = Meter(self.lm, self.objective, max_rows=self.options.max_rows, cache=self.cache)
        if self.space is None:
            return self._calibrate(None)
        with self._timed("search"):
            found = self._search(self.space)
        with self.lm.under(found.tried[found.chosen or 0].encoding.settings):
            return self._calibrate(found)

    def _search(self, space: Space) -> Found:
        """Search through the encodings.

        Raises:
            ApeError: The rule finds none; what was measured is kept.
        """
        search = Search(
            self.lm,
            self.options,
            space,
            tasks=self.tasks,
            grid=self.grid,
            meter=self.meter,
            rule=self.rule,
        )
        found = search.run()
        if found.chosen is None:
            raise ApeError(refusal(found, self.options, self.grid, self.signal))
        return found

    @property
    def signal(self) -> Signal:
        """What the choice makes small, if it is not the attention entropy's distance."""
        return "kl" if self.options.choose_by == "entropy" else self.options.choose_by

    def _calibrate(self, search: Found | None) -> Content:
        """Choose T and S under the model's present settings, and check and write what was found.

        Args:
            search: What chose the settings; None without a search.
        """
        with self._timed("calibrate"):
            grid = self._measure_grid(search and search.gathered)
        with self._timed("entropy"):
            grid = self._by_entropy(grid)
        with self._timed("gradient"):
            descent = self._descend(grid)
        checks = Checks(self.lm, self.options, grid=self.grid, meter=self.meter, metric=self.metric, cache=self.cache)
        digests = [task_digest(task, grid.gathered.samples) for task in self.tasks.values()]
        labels = None
        with self._timed("labels"):
            if self.metric and self.options.method != "gradient":
                labels = checks.labels(grid.measured, grid.gathered, self.tasks, digests)
        with self._timed("test"):
            named = _named(grid, descent, labels)
            test = checks.test(named, self.test_tasks) if self.test_tasks else None
        frontier = search and self._frontier(search, checks, digests)
        content = self._content(grid, descent, digests, frontier=frontier, labels=labels, test=test)
        if self.output and self.lm.rank == 0:
            self._write(self.output, content)
        return content

    def _frontier(self, search: Found, checks: Checks, digests: Sequence[Mapping[str, Any]]) -> Frontier:
        """The search's part, its candidates scored where labels are read."""
        part = frontier_part(search, self.options, self.grid, self.rule, self.signal)
        return checks.frontier(part, search, self.tasks, digests) if self.metric else part

    def _measure_grid(self, gathered: Gathered | None) -> MeasuredGrid:
        """Measure every point on the prompts, which are gathered if they are not yet."""
        options = self.options
        gathered = gathered or gather(
            self.lm,
            self.tasks,
            options,
            num_tokens=self.objective.num_tokens,
            on_too_long=options.on_too_long,
            limit=options.limit,
            picked=options.samples,
        )
        measured = self.meter.measure(gathered.samples, self.grid.reported)
        judged = measured.signal(self.signal)
        table = Table(self.grid, self.grid.reported, measured.kl, judged, options.average)
        weights = resample(len(gathered.samples), options.resamples, options.seed)
        return MeasuredGrid(gathered, measured, table, choose_all(table), weights)

    def _by_entropy(self, grid: MeasuredGrid) -> MeasuredGrid:
        """The grid with attention entropies, if they are asked for, and perhaps chosen by them."""
        if not self.options.measures_entropy:
            return grid
        meter = EntropyMeter(self.lm, self.options.max_rows, self.cache)
        entropies = meter.measure(grid.gathered.samples, grid.table.points)
        grid = grid._replace(entropies=entropies, nearest=choose_by_entropy(grid.table, entropies))
        if grid.nearest and self.options.choose_by == "entropy":
            chosen = grid.choices._replace(chosen=grid.nearest)
            grid = grid._replace(choices=chosen, table=grid.table._replace(judged=entropies.distances))
        return grid

    def _descend(self, grid: MeasuredGrid) -> Descent | None:
        """T and S by gradient descent from the grid's choice, if that is asked for."""
        if not self.options.by_gradient:
            return None
        start, samples = grid.choices.chosen.point, grid.gathered.samples
        return descend(
            self.lm,
            self.options,
            samples,
            start=start,
            weights=grid.weights,
            meter=self.meter,
            cache=self.cache,
        )

    def _content(
        self,
        grid: MeasuredGrid,
        descent: Descent | None,
        digests: Sequence[Mapping[str, Any]],
        *,
        frontier: Frontier | None,
        labels: Labels | None,
        test: Unseen | None,
    ) -> Content:
        """All that was found, as `calibration.json` has it."""
        found: dict[str, Any] = {"frontier": frontier} if frontier else {}
        if descent:
            found["gradient"] = gradient_part(descent, grid.table, grid.weights)
        if grid.entropies and grid.nearest:
            by_entropy = self.options.choose_by == "entropy"
            found["entropy"] = entropy_part(
                grid.table, grid.entropies, grid.nearest, grid.weights, chosen_by=by_entropy
            )
        chosen = grid.choices.chosen.point
        return Content(
            schema_version=GRADIENT_VERSION if descent else SCHEMA_VERSION,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            versions=dict(versions()),
            device=device_name(self.lm),
            model=Model(**self.facts),
            settings=calibration_file.calibrated_settings(self.lm.settings),
            tasks=[TaskPart(**one) for one in digests],
            requests=document.requests_part(self.options),
            objective=Made(**asdict(self.objective)),
            grid=document.grid_part(grid.table),
            signals=document.signals_part(grid.measured, grid.table, self.options.choose_by),
            samples=document.samples_part(grid.gathered.samples, grid.measured),
            left_out=document.left_out_part(grid.gathered),
            choice=document.choice_part(grid.table, grid.choices),
            stability=document.stability_part(grid.table, chosen, grid.weights, self.options.seed),
            **found,
            labels=labels,
            test=test,
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
        )

    def _write(self, output: Path, content: Content) -> None:
        provenance = {
            "mean_kl": content.result.mean_kl,
            **asdict(self.objective),
            "samples": len(content.samples),
            "tasks": list(self.tasks),
            "weights_sha256": content.model.weights_sha256,
        }
        chosen = document.chosen_arguments(content, str(output.resolve()))
        calibration_file.write(
            output, content, document.run_config(self.options, chosen, self.config_tasks, provenance)
        )
        try:
            from lm_eval_ape.calibration.figures import draw
        except ImportError as error:
            logger.warning("No figures: they need matplotlib (%s). Everything else is in %s.", error, output)
        else:
            draw(content, output)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.seconds[name] = perf_counter() - start


def _named(grid: MeasuredGrid, descent: Descent | None, labels: Labels | None) -> dict[str, Candidate]:
    """The choices that are measured on other rows, by name."""
    named: dict[str, Candidate] = {**grid.choices.named}
    if grid.nearest:
        named["entropy"] = grid.nearest.point
    if descent:
        start = grid.choices.chosen.point
        refused = {} if descent.refused is None else {"refused": descent.refused}
        named = {"chosen": descent.candidate, **refused, "start": start, "default": DEFAULT, "neutral": NEUTRAL}
    if labels:
        named["label_tuned"] = labels.oracle.point
    return named


def _check_arguments(options: Options) -> None:
    arguments = options.model_args
    if fixed := [name for name in ("attn_temperature", "attn_scale", "calibration") if name in arguments]:
        raise ApeError(f"model_args has {fixed[0]}, which is what a calibration finds; drop it.")
    settings, _ = split_arguments(arguments)
    if not settings.parallel and not options.candidates:
        raise ApeError(
            f"strategy={settings.strategy} reads the context with ordinary attention, so T and S change nothing; "
            "calibrate strategy=ape."
        )
    if options.by_gradient and not options.searches:
        check_gradient(settings)
