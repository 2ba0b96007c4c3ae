"""Every strategy on the same requests, one load of the model; finished ones are not run again."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval import simple_evaluate
from lm_eval.api.task import Task
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from lm_eval_ape.artefacts.identity import check_weights
from lm_eval_ape.artefacts.run_record import KeptChunks, Record, Request, write_record
from lm_eval_ape.comparison import folder
from lm_eval_ape.comparison.answers import StrategyAnswers
from lm_eval_ape.comparison.command import command
from lm_eval_ape.comparison.identity import identity, shared_identity
from lm_eval_ape.comparison.kl import StrategyKL
from lm_eval_ape.comparison.loggers import Loggers
from lm_eval_ape.comparison.measured import MeasuredApeHFLM
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.comparison.runs import Run, read_run
from lm_eval_ape.engine import support
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.catalogue import Catalogue
from lm_eval_ape.harness.mean_metrics import mean_metric
from lm_eval_ape.harness.reference_answers import without_answers
from lm_eval_ape.harness.specs import Spec, describe, read_specs
from lm_eval_ape.runtime.processes import OtherProcessError
from lm_eval_ape.storage.files import make_folder

logger = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """A strategy whose finished run is wanted, with its folder and everything the outcome depends on."""

    spec: Spec
    place: Path
    identity: dict[str, Any]


class Asked(NamedTuple):
    """What a comparison asks for, checked without a folder and without a weight.

    Attributes:
        specs: The strategies.
        tasks: The tasks, loaded.
        no_means: Each task's metrics that come before the one that it is compared on, and are no means.
    """

    specs: list[Spec]
    tasks: dict[str, Task]
    no_means: dict[str, list[str]]


def ask(options: Options, *, scored: bool = True) -> Asked:
    """Read and check what options ask for.

    Args:
        options: The model, the tasks and the strategies.
        scored: Whether runs are to be compared, for which each task needs a metric that is a mean over documents.

    Raises:
        ApeError: A spec, a task or the metric is impossible.
    """
    specs = read_specs(options.specs, options.model_args)
    tasks: dict[str, Task] = Catalogue(options).load(options.tasks)
    no_means = _no_means(tasks, options.metric) if scored else {}
    if options.answer_nats:
        _check_answers(tasks, options.limit)
    return Asked(specs, tasks, no_means)


class Strategies:
    """The strategies to run.

    Args:
        options: The model, the tasks, the strategies and where to write.
        loggers: Where each run is logged.
        scored: Whether runs are to be compared (see `ask`).

    Attributes:
        no_means: Each task's metrics that come before the one that it is compared on, and are no means.

    Raises:
        ApeError: A spec, a task, the metric or the folder is impossible; no weight is loaded for that.
    """

    def __init__(self, options: Options, loggers: Loggers, *, scored: bool = True) -> None:
        self.options = options
        self.loggers = loggers
        self.specs, self.tasks, self.no_means = ask(options, scored=scored)
        self.output = make_folder(str(options.output_path))

    def run(self, lm: MeasuredApeHFLM | None = None) -> list[Run]:
        """Run the unfinished strategies, and read all runs back.

        Args:
            lm: What `load` gave; None to load it.

        Returns:
            A run for each spec; none on any process but the first.
        """
        lm = lm or self.load()
        if lm.rank != 0:
            logger.setLevel(logging.WARNING)
        shared = shared_identity(lm, self.options, self.tasks)
        wanted = [
            Wanted(spec, folder.strategy_folder(self.output, spec.label), identity(shared, spec.settings))
            for spec in self.specs
        ]
        # The first process decides: another machine may see a shared folder as it was a moment ago.
        finished = lm.processes.from_first([self._finished(one) for one in wanted] if lm.rank == 0 else [])
        for number, (one, results_file) in enumerate(zip(wanted, finished, strict=True), start=1):
            what = f"[{number}/{len(wanted)}] {one.spec.label}: {describe(one.spec.settings.record)}"
            if results_file is not None:
                logger.info("%s; finished before, taken from %s", what, one.place)
                continue
            logger.info("%s", what, extra={"part": (number, self._parts, one.spec.label)})
            with self._named(one.spec):
                finished[number - 1] = self._run(lm, one)
        for kind in (StrategyKL, StrategyAnswers):
            self._measure(lm, [kind(self.options, *one) for one in wanted])
        return [read_run(results_file) for results_file in finished if results_file is not None and lm.rank == 0]

    @property
    def _parts(self) -> int:
        """Strategies, and their measurements after that."""
        return len(self.specs) * (1 + bool(self.options.kl_tokens) + bool(self.options.answer_nats))

    def _after(self, ones: Sequence[StrategyKL | StrategyAnswers]) -> int:
        """How many parts come after these measurements."""
        return len(self.specs) * (bool(self.options.answer_nats) and isinstance(ones[0], StrategyKL))

    def _measure(self, lm: MeasuredApeHFLM, ones: Sequence[StrategyKL | StrategyAnswers]) -> None:
        """Runs after all strategies, so that it does not count in their seconds and memory."""
        needs = lm.processes.from_first([one.needed for one in ones])
        needed = [one for one, wanting in zip(ones, needs, strict=True) if wanting]
        for number, one in enumerate(needed, start=1):
            # Of all parts, the last so many are still to come.
            part = (self._parts - self._after(ones) - len(needed) + number, self._parts, one.what)
            logger.info("[%d/%d] %s", number, len(needed), one.what, extra={"part": part})
            with self._named(one.spec):
                one.measure(lm, self.tasks, self.output / "cache")

    @contextmanager
    def _named(self, spec: Spec) -> Iterator[None]:
        """Adds to errors which strategy failed, and that the others are kept."""
        try:
            yield
        except OtherProcessError:
            raise
        except ApeError as error:
            raise ApeError(
                f"{spec.label}: {error} Finished runs are kept in {self.output} and are not repeated; "
                f"lm-eval-ape compare --from {self.output} makes a board of them."
            ) from error

    def load(self) -> MeasuredApeHFLM:
        """Load the model that all strategies share.

        Raises:
            ApeError: A strategy cannot serve it, or a calibration is of other weights.
        """
        options = self.options
        first = {name: value for name, value in self.specs[0].arguments.items() if name != "calibration"}
        lm: MeasuredApeHFLM = MeasuredApeHFLM.create_from_arg_obj(
            first, {"batch_size": options.batch_size, "device": options.device}
        )
        for spec in self.specs:
            support.check(lm.model, spec.settings)
            if path := spec.arguments.get("calibration"):
                check_weights(path, lm.model)
        return lm

    @staticmethod
    def _finished(wanted: Wanted) -> Path | None:
        record = folder.finished_record(wanted.place)
        if record is None:
            return None
        if differences := folder.changes(record.identity, wanted.identity):
            logger.info("%s is run again: %s", wanted.spec.label, "; ".join(differences))
            return None
        results_file = wanted.place / record.results_file
        try:
            read_run(results_file)
        except ApeError as error:
            logger.warning("%s is run again: %s", wanted.spec.label, error)
            return None
        return results_file

    def _run(self, lm: MeasuredApeHFLM, wanted: Wanted) -> Path | None:
        options, (spec, place, own) = self.options, wanted
        tracker = EvaluationTracker(output_path=str(place))
        memory = lm.begin(spec.settings)
        results: dict[str, Any] | None = simple_evaluate(
            model=lm,
            model_args=spec.arguments,
            tasks=list(self.tasks.values()),
            task_manager=TaskManager(include_defaults=False),
            batch_size=options.batch_size,
            device=options.device,
            limit=options.limit,
            num_fewshot=options.num_fewshot,
            **options.prompting,
            gen_kwargs=options.gen_kwargs or None,
            evaluation_tracker=tracker,
            log_samples=True,
            metadata=options.metadata,
        )
        peak = lm.processes.gather(memory.bytes)
        measured = lm.processes.gather(list(lm.requests.values()))
        kept = [part for part in lm.processes.gather(lm.engine.store and lm.engine.store.record()) if part]
        if results is None:
            return None
        # The harness calls a loaded model CUSTOM, or by its path.
        tracker.general_config_tracker.model_source = results["config"]["model"] = "ape-hf"
        samples = results.pop("samples")
        # The harness's files change the samples on their way out.
        logged = copy.deepcopy(samples) if self.loggers else {}
        results_file = folder.save(results, samples, tracker)
        write_record(
            place,
            Record(
                label=spec.label,
                results_file=str(results_file.relative_to(place)),
                identity=dict(own),
                command=command(options, spec),
                processes=lm.world_size,
                created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                peak_memory_bytes=max(peak),
                peak_memory_of=_memory_words(memory.own, lm.device.type),
                kv_cache=[KeptChunks(**part) for part in kept],
                requests=[Request(**asdict(request)) for part in measured for request in part],
            ),
        )
        self.loggers.log_run(spec.label, results, logged)
        return results_file


def _memory_words(own: bool, device: str) -> str:
    if device == "cuda":
        return "GPU, allocated"
    return "process, resident" if own else "process, resident, the largest so far"


def _check_answers(tasks: Mapping[str, Task], limit: float | None) -> None:
    """Refuse tasks without a reference answer, and name those that are passed over.

    Raises:
        ApeError: None of them has one.
    """
    without = without_answers(tasks, limit)
    if len(without) == len(tasks):
        raise ApeError(
            f"answer_nats needs a task with reference answers, and there is none of {', '.join(without)}: a task that "
            "scores whole texts has none, nor has one whose doc_to_target is empty. Name another task, or drop it."
        )
    if without:
        logger.warning("%s: no document has a reference answer to score.", ", ".join(without))


def _no_means(tasks: Mapping[str, Task], metric: str | None) -> dict[str, list[str]]:
    """Each task's metrics before the one that it is compared on, none of which is a mean over documents."""
    found = {}
    for name, task in tasks.items():
        compared = mean_metric(name, task, metric)
        if metric is None:
            offered = list(task.higher_is_better())
            found[name] = offered[: offered.index(compared)]
            if found[name]:
                logger.warning(
                    "%s is compared on %s: %s is no mean over documents.", name, compared, ", ".join(found[name])
                )
    return found
