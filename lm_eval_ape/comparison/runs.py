"""Finished runs in the harness's layout: a `results_*.json` with its `samples_*.jsonl` beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lm_eval_ape.artefacts.document import checking
from lm_eval_ape.artefacts.harness_files import Results
from lm_eval_ape.artefacts.run_record import (
    ANSWERS_NAME,
    KL_NAME,
    RECORD_NAME,
    AnswersRecord,
    KLRecord,
    Record,
    read_answers,
    read_divergences,
    read_record,
)
from lm_eval_ape.comparison.samples import Samples, read_samples
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.specs import describe
from lm_eval_ape.storage.files import is_draft, read_json
from lm_eval_ape.storage.strict_reading import writable

_MEND = "Run it again with lm_eval --log_samples."


@dataclass(frozen=True)
class Run:
    """One row of the board.

    Attributes:
        label: Its name.
        results_file: Where its results lie.
        results: The harness's results: `config`, versions, environment and scores.
        tasks: Each task's rows.
        record: What `compare` wrote beside it (`run_record.write_record`); None for other runs.
        kl: Its divergences from the sequential model (`kl.StrategyKL`); None where they were not measured.
        answers: How likely the reference answers are to it (`answers.StrategyAnswers`); None where it was not measured.
    """

    label: str
    results_file: Path
    results: Results
    tasks: dict[str, Samples]
    record: Record | None
    kl: KLRecord | None = None
    answers: AnswersRecord | None = None

    @property
    def settings(self) -> dict[str, Any] | None:
        """How prompts were encoded; None for runs of other models than ape-hf."""
        return self.results.settings

    @property
    def model(self) -> str:
        """Name or path of the model."""
        arguments = self.results.config.get("model_args") or {}
        if isinstance(arguments, dict) and "pretrained" in arguments:
            return str(arguments["pretrained"])
        return str(self.results.model_name or self.results.config.get("model"))

    @property
    def folder(self) -> str:
        """Name of the folder that distinguishes runs with the same label: the `--output_path` of the command."""
        return self.results_file.resolve().parents[2 if self.record else 1].name

    @property
    def sequential(self) -> bool:
        """Whether it is the ordinary model, run by ape-hf."""
        return self.settings is not None and self.settings["strategy"] == "sequential"


def read_folders(folders: Sequence[str]) -> list[Run]:
    """Read all runs in some folders and their subfolders.

    Of runs of the same model and settings on the same tasks in one folder, the newest counts.

    Raises:
        ApeError: A folder has no run, or a file is damaged.
    """
    found: dict[Path, Run] = {}
    for name in folders:
        folder = Path(name).expanduser()
        files = sorted(folder.rglob("results_*.json")) if folder.is_dir() else [folder] if folder.is_file() else []
        files = [file for file in files if not is_draft(file.relative_to(folder))]
        if not files:
            raise ApeError(
                f"There is no run in {folder}: no results_*.json, as lm_eval --output_path {folder} --log_samples "
                "writes it."
            )
        runs = [read_run(file) for file in _newest(files) if file.resolve() not in found]
        # In the order in which they were made, not that of the folders' names.
        for run in sorted(runs, key=lambda run: float(run.results.date or 0)):
            found[run.results_file.resolve()] = run
    return distinct(list(found.values()))


def read_run(results_file: Path) -> Run:
    """Read one run.

    Args:
        results_file: Its `results_*.json`.

    Raises:
        ApeError: A file is missing or damaged.
    """
    results = _results(results_file)
    date = results_file.stem.removeprefix("results_")
    names = list(results.configs or results.sample_counts or results.results)
    if outside := next((name for name in names if name != Path(name).name or not writable(name)), None):
        raise ApeError(
            f"{results_file} names a task {outside!r}, of which there can be no samples file beside it: a task's name "
            f"is no path. {_MEND}"
        )
    tasks = {
        task: read_samples(results_file.with_name(f"samples_{task}_{date}.jsonl"), task, results) for task in names
    }
    record = _record(results_file)
    label = record.label if record else _label(results)
    return Run(label, results_file, results, tasks, record, _kl(results_file, record), _answers(results_file, record))


def _results(path: Path) -> Results:
    content = read_json(path, "results", _MEND, finite=False)
    with checking(f"{path} is no results file of the harness", _MEND):
        return Results.model_validate(content)


def _record(results_file: Path) -> Record | None:
    """The record in the folder above, if it is of this results file."""
    path = results_file.parent.parent / RECORD_NAME
    if not path.is_file():
        return None
    record = read_record(path)
    return record if record.results_file == f"{results_file.parent.name}/{results_file.name}" else None


def _kl(results_file: Path, record: Record | None) -> KLRecord | None:
    """The divergences beside the record, if they are of this run."""
    path = results_file.parent.parent / KL_NAME
    if record is None or not path.is_file():
        return None
    content = read_divergences(path)
    return content if content.identity.run == record.identity else None


def _answers(results_file: Path, record: Record | None) -> AnswersRecord | None:
    """The log-likelihoods beside the record, if they are of this run."""
    path = results_file.parent.parent / ANSWERS_NAME
    if record is None or not path.is_file():
        return None
    content = read_answers(path)
    return content if content.identity == record.identity else None


def _newest(files: Sequence[Path]) -> list[Path]:
    """The newest run of each folder and configuration; a name's date sorts as text."""
    newest: dict[str, Path] = {}
    for file in files:
        record_file = file.parent.parent / RECORD_NAME
        if record_file.is_file():
            # A folder of ours: its record names the one run that counts.
            if _record(file):
                newest[str(file)] = file
            continue
        content = _results(file)
        config = {key: value for key, value in content.config.items() if key != "batch_sizes"}
        identity = [str(file.parent), config, sorted(content.configs), content.chat_template_sha]
        newest[json.dumps(identity, sort_keys=True, default=str)] = file
    return list(newest.values())


def _label(results: Results) -> str:
    config = results.config
    if settings := results.settings:
        changed = describe(settings)
        return (
            str(settings["strategy"]) if settings["strategy"] == "sequential" else f"{settings['strategy']} {changed}"
        )
    name = str(results.model_name or (config.get("model_args") or {})).rstrip("/").split("/")[-1]
    return f"{config.get('model')} {name}"


def distinct(runs: Sequence[Run]) -> list[Run]:
    """Runs whose labels are the same get their folder's name added, or else a number."""
    labels = [run.label for run in runs]
    named = [run if labels.count(run.label) == 1 else replace(run, label=f"{run.label} ({run.folder})") for run in runs]
    counts: dict[str, int] = {}
    distinct = []
    for run in named:
        counts[run.label] = counts.get(run.label, 0) + 1
        number = counts[run.label]
        distinct.append(run if number == 1 else replace(run, label=f"{run.label} #{number}"))
    return distinct
