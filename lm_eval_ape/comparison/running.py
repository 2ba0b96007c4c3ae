"""Every strategy on the same requests, one load of the model; finished ones are not run again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.task import Task
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from lm_eval_ape import support
from lm_eval_ape.calibration.identity import check_weights
from lm_eval_ape.catalogue import Catalogue
from lm_eval_ape.comparison import folder
from lm_eval_ape.comparison.command import command
from lm_eval_ape.comparison.identity import identity, shared_identity
from lm_eval_ape.comparison.measured import MeasuredApeHFLM
from lm_eval_ape.comparison.options import Options
from lm_eval_ape.comparison.runs import Run, read_run
from lm_eval_ape.comparison.specs import Spec, describe, read_specs
from lm_eval_ape.errors import ApeError, nearest

logger = logging.getLogger(__name__)


class Strategies:
    """The strategies to run.

    Args:
        options: The model, the tasks, the strategies and where to write.

    Raises:
        ApeError: A spec, a task, the metric or the folder is impossible; no weight is loaded for that.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.specs = read_specs(options.specs, options.model_args)
        self.output = Path(str(options.output_path)).expanduser()
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ApeError(f"The folder {self.output} cannot be made: {error}") from error
        self.tasks = _load_tasks(options)

    def run(self) -> list[Run]:
        """Run what is not finished, and read all of it back.

        Returns:
            A run for each spec; none on any process but the first.
        """
        lm = self._load()
        if lm.rank != 0:
            logger.setLevel(logging.WARNING)
        shared = shared_identity(lm, self.options, self.tasks)
        # Decided for all at once, so that several processes decide alike.
        wanted = [(spec, folder.strategy_folder(self.output, spec.label)) for spec in self.specs]
        finished = [self._finished(spec, place, identity(shared, spec.settings)) for spec, place in wanted]
        runs = []
        for number, (spec, place) in enumerate(wanted, start=1):
            results_file = finished[number - 1]
            what = f"[{number}/{len(wanted)}] {spec.label}: {describe(asdict(spec.settings))}"
            if results_file is not None:
                logger.info("%s; finished before, taken from %s", what, place)
            else:
                logger.info("%s", what)
                try:
                    results_file = self._run(lm, spec, place, identity(shared, spec.settings))
                except ApeError as error:
                    raise ApeError(
                        f"{spec.label}: {error} What is finished lies in {self.output} and is not run again; "
                        f"lm-eval-ape compare --from {self.output} makes a board of it."
                    ) from error
            if results_file is not None and lm.rank == 0:
                runs.append(read_run(results_file))
        return runs

    def _load(self) -> MeasuredApeHFLM:
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
    def _finished(spec: Spec, place: Path, wanted: Mapping[str, Any]) -> Path | None:
        record = folder.read_record(place)
        if record is None:
            return None
        if differences := folder.changes(record["identity"], wanted):
            logger.info("%s is run again: %s", spec.label, "; ".join(differences))
            return None
        results_file = place / record["results_file"]
        try:
            read_run(results_file)
        except ApeError as error:
            logger.warning("%s is run again: %s", spec.label, error)
            return None
        return results_file

    def _run(self, lm: MeasuredApeHFLM, spec: Spec, place: Path, wanted: Mapping[str, Any]) -> Path | None:
        options = self.options
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
            apply_chat_template=options.apply_chat_template,
            fewshot_as_multiturn=options.multiturn,
            system_instruction=options.system_instruction,
            gen_kwargs=options.gen_kwargs or None,
            evaluation_tracker=tracker,
            log_samples=True,
            metadata=options.metadata,
        )
        peak = lm.gather_object(memory.bytes)
        measured = lm.gather_object(list(lm.requests.values()))
        kept = [part for part in lm.gather_object(lm.store and lm.store.record()) if part]
        if results is None:
            return None
        # The harness calls a loaded model CUSTOM, or by its path.
        tracker.general_config_tracker.model_source = results["config"]["model"] = "ape-hf"
        results_file = folder.save(results, results.pop("samples"), tracker)
        folder.write_record(
            place,
            {
                "label": spec.label,
                "results_file": str(results_file.relative_to(place)),
                "identity": wanted,
                "command": command(options, spec),
                "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "peak_memory_bytes": max(peak),
                "peak_memory_of": _memory_words(memory.own, lm.device.type),
                "kv_cache": kept,
                "requests": [asdict(request) for part in measured for request in part],
            },
        )
        return results_file


def _memory_words(own: bool, device: str) -> str:
    if device == "cuda":
        return "GPU, allocated"
    return "process, resident" if own else "process, resident, the largest so far"


def _load_tasks(options: Options) -> dict[str, Task]:
    tasks: dict[str, Task] = Catalogue(options).load(options.tasks)
    for name, task in tasks.items():
        offered = list(task.higher_is_better())
        if not offered or (options.metric is not None and options.metric not in offered):
            hint = nearest(options.metric, offered) if options.metric else ""
            raise ApeError(
                f"{name} has no metric {options.metric or ''}; it has: {', '.join(offered) or 'none'}.{hint}"
            )
    return tasks
