"""The harness's tasks by name, without building an index of all the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.settings.options import HarnessOptions
from lm_eval_ape.tasks import TASKS_DIR

# The harness's own seed for choosing few-shot examples.
FEWSHOT_SEED = 1234


class Catalogue:
    """The tasks that can be named; the harness's 10,000 own ones are indexed only when one of them is.

    Args:
        options: Folders, metadata and the number of few-shot examples.
    """

    def __init__(self, options: HarnessOptions) -> None:
        self.options = options
        self._manager = self._index(include_defaults=False)
        self._whole = False

    def load(self, names: Sequence[str]) -> dict[str, Task]:
        """Load tasks by name, tag, group, pattern or YAML file.

        Raises:
            ApeError: A task is unknown.
        """
        specs: list[str] = []
        for name in names:
            found = self._find(name)
            if not found and not self._whole:
                self._manager, self._whole = self._index(include_defaults=True), True
                found = self._find(name)
            if not found:
                raise ApeError(
                    f"There is no task {name!r}.{nearest(name, self._manager.all_tasks)} `lm_eval ls tasks` lists "
                    "them; tasks of your own are found with --include_path."
                )
            specs += found
        tasks: dict[str, Task] = self._manager.load(list(dict.fromkeys(specs)))["tasks"]
        for task in tasks.values():
            self._set_fewshot(task)
        return tasks

    def twins(self, tasks: Iterable[str]) -> list[str]:
        """The `..._test` tasks beside `..._calibration` ones, as far as there are any."""
        names = [name.removesuffix("_calibration") + "_test" for name in tasks if name.endswith("_calibration")]
        return [name for name in names if self._find(name)]

    def _index(self, include_defaults: bool) -> TaskManager:
        return TaskManager(
            include_path=[str(TASKS_DIR), *self.options.include_path],
            include_defaults=include_defaults,
            metadata={**self.options.model_args, **self.options.metadata},
        )

    def _find(self, name: str) -> list[str]:
        return [name] if name.endswith((".yaml", ".yml")) else list(self._manager.match_tasks([name]))

    def _set_fewshot(self, task: Task) -> None:
        """As the harness does it: a task that fixes 0 examples keeps them."""
        if self.options.num_fewshot is not None and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=self.options.num_fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
