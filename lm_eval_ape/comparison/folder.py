"""A strategy's folder: the harness's files in its own layout, and a record of the settings and versions behind them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval.loggers import EvaluationTracker

from lm_eval_ape.artefacts.run_record import RECORD_NAME, Record, read_record
from lm_eval_ape.comparison.runs import read_run
from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.files import whole_files, writing_told


def strategy_folder(output: Path, label: str) -> Path:
    """The folder of a strategy's run, named after the label with characters that file names forbid replaced."""
    name = re.sub(r"[^\w.=-]+", "_", label).strip("_")
    # Labels that differ must not share a folder.
    return output / (name if name == label else f"{name}-{hashlib.sha256(label.encode()).hexdigest()[:6]}")


def save(results: dict[str, Any], samples: Mapping[str, Any], tracker: EvaluationTracker) -> Path:
    """Write results and samples as `lm_eval --log_samples` does, each of them whole or not at all.

    Returns:
        The results file, which comes last.

    Raises:
        ApeError: A file could not be written.
    """
    place = Path(tracker.output_path)
    name = str(tracker.general_config_tracker.model_name_sanitized)
    try:
        # The harness writes its files bit by bit, and only warns of what it could not write.
        with writing_told(place), whole_files(place, last="results_*.json") as draft:
            tracker.output_path = str(draft)
            tracker.save_results_aggregated(results=results, samples=samples)
            for task in results["configs"]:
                tracker.save_results_samples(task_name=task, samples=samples[task])
            results_file = f"results_{getattr(tracker, 'date_id', '')}.json"
            try:
                read_run(draft / name / results_file)
            except ApeError as error:
                raise ApeError(
                    f"The run could not be written to {place / name}; is the disk full, or the folder read-only? "
                    f"({error})"
                ) from error
    finally:
        tracker.output_path = str(place)
    return place / name / results_file


def finished_record(folder: Path) -> Record | None:
    """The record of a folder's finished run; None if there is none that can be read."""
    try:
        record = read_record(folder / RECORD_NAME)
    except ApeError:
        return None
    return record if (folder / record.results_file).is_file() else None


def changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, in words."""
    found = []
    for part in dict.fromkeys([*there, *here]):
        old, new = there.get(part), here.get(part)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found += [f"{part}: {line}" for line in changes(old, new)]
        else:
            found.append(f"{part} was {_short(old)}, is {_short(new)}")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."
