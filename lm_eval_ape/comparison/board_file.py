"""Reads `board.json` back, for what is made of it later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_eval_ape.calibration.schema import validate
from lm_eval_ape.errors import ApeError
from lm_eval_ape.files import read_json

SCHEMA_VERSION = 1
FILE_NAME = "board.json"

_NUMBER = {"type": ["number", "null"]}
_RULE: dict[str, Any] = {
    "type": "object",
    "required": [
        "schema_version", "created", "command", "versions", "baseline", "statistics", "notes", "tasks", "rows",
        "lengths", "samples",
    ],
    "properties": {
        "created": {"type": "string"},
        "command": {"type": "string"},
        "versions": {"type": "object", "required": ["lm_eval_ape"]},
        "baseline": {"type": ["string", "null"]},
        "statistics": {"type": "object", "required": ["confidence", "resamples", "seed"]},
        "notes": {"type": "array", "items": {"type": "string"}},
        "tasks": {"type": "object"},
        "rows": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["label", "model", "settings", "config", "tasks", "average", "costs", "kl", "identity"],
                "properties": {"label": {"type": "string"}, "tasks": {"type": "object"}},
            },
        },
        "lengths": {"type": "object", "required": ["unit", "buckets", "rows"]},
        "samples": {"type": "object"},
    },
}  # fmt: skip
_TASK = {"type": "object", "required": ["metric", "higher_is_better", "documents"]}
_SCORE = {
    "type": "object",
    "required": ["score", "stderr", "difference", "kept", "kl"],
    "properties": {"score": _NUMBER, "stderr": _NUMBER, "kept": _NUMBER, "difference": {"type": ["object", "null"]}},
}
_SAMPLE = {
    "type": "object",
    "required": ["doc_id", "length", "prompt_end", "target", "runs"],
    "properties": {"runs": {"type": "object"}},
}


def read(path: Path) -> dict[str, Any]:
    """Read and check a board.

    Args:
        path: The file.

    Raises:
        ApeError: It cannot be read, is none of ours, or of a newer version.
    """
    content = read_json(path, "board", "Run lm-eval-ape compare again.")
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ApeError(
            f"The board {path} has schema version {version}, and this lm-eval-ape reads up to {SCHEMA_VERSION}; "
            "update it, or make the board again."
        )
    try:
        _check(content)
    except ApeError as error:
        raise ApeError(f"{path} is no board that this version can read: {error}") from error
    return dict(content)


def _check(content: Any) -> None:
    validate(content, _RULE)
    for name, task in content["tasks"].items():
        validate(task, _TASK, f"tasks.{name}")
    for row in content["rows"]:
        for name, score in row["tasks"].items():
            where = f"the score of {row['label']!r} in {name}"
            validate(score, _SCORE, where)
            if name not in content["tasks"]:
                raise ApeError(f"{where} is of a task that the board does not have.")
    for name, samples in content["samples"].items():
        validate(samples, {"type": "array", "items": _SAMPLE}, f"samples.{name}")
