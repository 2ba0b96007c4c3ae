"""A calibration from its options to its results."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

from lm_eval.api.task import Task

from lm_eval_ape.artefacts import calibration_file
from lm_eval_ape.artefacts.calibration import GRADIENT_VERSION, SCHEMA_VERSION, Model
from lm_eval_ape.artefacts.calibration import Calibration as Content
from lm_eval_ape.artefacts.calibration import Objective as Made
from lm_eval_ape.artefacts.calibration import Task as TaskPart
from lm_eval_ape.artefacts.identity import versions
from lm_eval_ape.artefacts.points import DEFAULT, NEUTRAL
from lm_eval_ape.calibration import document
from lm_eval_ape.calibration.checks import Checks
from lm_eval_ape.calibration.entropy import EntropyMeter, choose_by_entropy, entropy_part
from lm_eval_ape.calibration.gradient.descent import descend, gradient_part
from lm_eval_ape.calibration.grid.candidates import Candidate
from lm_eval_ape.calibration.grid.choice import Table, choose_all
from lm_eval_ape.calibration.grid.grid import Grid, make_grid
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.grid.stability import resample
from lm_eval_ape.calibration.labels import find_metric
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.calibration.options import Options
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.arguments import split_arguments
from lm_eval_ape.harness.catalogue import Catalogue
from lm_eval_ape.harness.metrics import Metric
from lm_eval_ape.harness.model_facts import device_name, model_facts
from lm_eval_ape.harness.samples import gather, task_digest
from lm_eval_ape.runtime.folder_lock import hold
from lm_eval_ape.storage.files import make_folder

logger = logging.getLogger(__name__)


def calibrate(options: Options, command: Sequence[str] = (), lm: ApeHFLM | None = None) -> Content:
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
        self.objective = Objective(options.num_tokens, options.conditioned_on, options.after_eos)
        # Without a grid, only the point that the gradient starts from.
        axes = (
            [(value,) for value in DEFAULT] if options.method == "gradient" else [options.temperatures, options.scales]
        )
        self.grid: Grid = make_grid(*axes, num_tokens=options.num_tokens)
        _check_arguments(options)
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

    def run(self, lm: ApeHFLM | None = None) -> Content:
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

    def _run(self, lm: ApeHFLM | None) -> Content:
        options = self.options
        with self._timed("load"):
            extra = {"batch_size": options.batch_size, "device": options.device}
            self.lm = lm or ApeHFLM.create_from_arg_obj(options.model_args, extra)
            self.facts = model_facts(self.lm)
            self.meter = Meter(self.lm, self.objective, max_rows=options.max_rows, cache=self.cache)
        with self._timed("calibrate"):
            gathered = gather(
                self.lm,
                self.tasks,
                options,
                num_tokens=options.num_tokens,
                on_too_long=options.on_too_long,
                limit=options.limit,
                picked=options.samples,
            )
            measured = self.meter.measure(gathered.samples, self.grid.reported)
        table = Table(self.grid, self.grid.reported, measured.kl)
        choices = choose_all(table)
        weights = resample(len(gathered.samples), options.resamples, options.seed)
        entropies = None
        with self._timed("entropy"):
            if options.measures_entropy:
                entropies = EntropyMeter(self.lm, options.max_rows, self.cache).measure(gathered.samples, table.points)
        by_entropy, judged = choose_by_entropy(table, entropies) if entropies else None, table
        if entropies and by_entropy and options.choose_by == "entropy":
            choices, judged = choices._replace(chosen=by_entropy), table._replace(kl=entropies.distances)
        digests = [task_digest(task, gathered.samples) for task in self.tasks.values()]
        named: dict[str, Candidate] = {**choices.named}
        if by_entropy:
            named["entropy"] = by_entropy.point
        descent = None
        with self._timed("gradient"):
            if options.by_gradient:
                start = choices.chosen.point
                samples = gathered.samples
                descent = descend(self.lm, options, samples, start=start, meter=self.meter, cache=self.cache)
                named = {"chosen": descent.candidate, "start": start, "default": DEFAULT, "neutral": NEUTRAL}
        checks = Checks(self.lm, options, grid=self.grid, meter=self.meter, metric=self.metric, cache=self.cache)
        labels = None
        with self._timed("labels"):
            if self.metric and options.method != "gradient":
                labels = checks.labels(table, gathered, self.tasks, digests)
                named["label_tuned"] = labels.oracle.point
        with self._timed("test"):
            test = checks.test(named, self.test_tasks) if self.test_tasks else None
        found: dict[str, Any] = {}
        if descent:
            found["gradient"] = gradient_part(descent, table, weights)
        if entropies and by_entropy:
            chosen_by = judged is not table
            found["entropy"] = entropy_part(table, entropies, by_entropy, weights, chosen_by=chosen_by)
        content = Content(
            schema_version=GRADIENT_VERSION if descent else SCHEMA_VERSION,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            versions=dict(versions()),
            device=device_name(self.lm),
            model=Model(**self.facts),
            settings=calibration_file.calibrated_settings(self.lm.settings),
            tasks=[TaskPart(**one) for one in digests],
            requests=document.requests_part(options),
            objective=Made(**asdict(self.objective)),
            grid=document.grid_part(table),
            samples=document.samples_part(gathered.samples, measured),
            left_out=document.left_out_part(gathered),
            choice=document.choice_part(table, choices),
            stability=document.stability_part(table, judged, choices.chosen.point, weights, options.seed),
            **found,
            labels=labels,
            test=test,
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
        )
        if self.output and self.lm.rank == 0:
            self._write(self.output, content)
        return content

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


def _check_arguments(options: Options) -> None:
    arguments = options.model_args
    if fixed := [name for name in ("attn_temperature", "attn_scale", "calibration") if name in arguments]:
        raise ApeError(f"model_args has {fixed[0]}, which is what a calibration finds; drop it.")
    settings, _ = split_arguments(arguments)
    if not settings.parallel:
        raise ApeError(
            f"strategy={settings.strategy} reads the context with ordinary attention, so T and S change nothing; "
            "calibrate strategy=ape."
        )
    if options.by_gradient and settings.selection:
        raise ApeError(
            f"top_chunks={settings.top_chunks} lets each query choose among the chunks, and a choice has no gradient; "
            "use --method grid, or calibrate without top_chunks."
        )
