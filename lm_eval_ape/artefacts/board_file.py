"""Reads `board.json` back, for what is made of it later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_ape.artefacts.json_schema import Rule, checking, list_of, mapping_of, or_null, validate, whole
from lm_eval_ape.artefacts.run_record import SETTINGS_RULE
from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.files import read_json

SCHEMA_VERSION = 1
FILE_NAME = "board.json"

_MEND = "Run lm-eval-ape compare again."
_TEXT: Rule = {"type": "string"}
_OPTIONAL_TEXT: Rule = {"type": ["string", "null"]}
_NUMBER: Rule = {"type": "number"}
_OPTIONAL: Rule = {"type": ["number", "null"]}
_STDERR: Rule = {"type": ["number", "null"], "minimum": 0}
_COUNT: Rule = {"type": "integer", "minimum": 0}
_TEXTS: Rule = list_of(_TEXT)


_DIFFERENCE = or_null(
    whole(_NUMBER, "mean", "p_value", low=_OPTIONAL, high=_OPTIONAL, within_noise={"type": "boolean"})
)
_KL = or_null(whole(_NUMBER, "mean", stderr=_STDERR))
_SCORE = whole(_OPTIONAL, "kept", stderr=_STDERR, score=_NUMBER, difference=_DIFFERENCE, kl=_KL)
_AVERAGE = {**_SCORE, "required": [*_SCORE["required"], "tasks"]}
_AVERAGE["properties"] = {**_SCORE["properties"], "tasks": _TEXTS}
_MIDDLE = or_null(whole(_NUMBER, "median", "mean"))
_COSTS = whole(
    _COUNT,
    "requests",
    "dropped_tokens",
    "peak_memory_bytes",
    **dict.fromkeys(("prefill_seconds", "seconds", "scoring_seconds", "chunks", "tokens"), _MIDDLE),
    decode_tokens_per_second=_OPTIONAL,
    peak_memory_of=_TEXT,
)
_COSTS["properties"] |= {"kv_cache": or_null(whole(_COUNT, "hit_tokens", "miss_tokens"))}
_IDENTITY = {"type": ["object", "null"], "properties": {"model": {"type": "object"}, "versions": {"type": "object"}}}
_ROW = whole(
    _TEXT,
    "label",
    "model",
    settings=or_null(SETTINGS_RULE),
    config={"type": "object"},
    tasks=mapping_of(_SCORE),
    average=or_null(_AVERAGE),
    costs=or_null(_COSTS),
    kl=or_null(whole(_COUNT, "num_tokens")),
    identity=_IDENTITY,
    device=_OPTIONAL_TEXT,
)
_ROW["properties"] |= {"versions": {"type": ["object", "null"]}, "command": _OPTIONAL_TEXT}
_TASK = whole(_TEXT, "metric", higher_is_better={"type": "boolean"}, documents=_COUNT)
_TASK["properties"] |= {"config": {"type": ["object", "null"]}}
_REQUEST = whole(_OPTIONAL, "prefill_seconds", "seconds", "new_tokens", chunk_tokens=list_of(_COUNT))
_PROMPT = whole(list_of(_NUMBER), "nats", tokens=_TEXTS)
_RUN = whole(_OPTIONAL, "score", prediction=_TEXT)
_RUN["properties"] |= {
    "requests": or_null(list_of(_REQUEST)),
    "kl": or_null(list_of(_PROMPT)),
}
_SAMPLE = whole(
    _TEXT,
    "prompt_end",
    "target",
    doc_id=_COUNT,
    length=_COUNT,
    runs=mapping_of(_RUN),
)
_BUCKET = whole(_COUNT, "from", "below", "documents")
_BY_LENGTH = list_of(whole(_NUMBER, "mean", stderr=_STDERR))
_RULE = whole(
    _TEXT,
    "created",
    "command",
    schema_version={"type": "integer", "minimum": 1},
    versions=whole(_TEXT, "lm_eval_ape"),
    baseline=_OPTIONAL_TEXT,
    statistics=whole(_NUMBER, "confidence", "resamples", "seed"),
    notes=_TEXTS,
    tasks=mapping_of(_TASK),
    rows=list_of(_ROW, 1),
    lengths=whole(
        _TEXT,
        "unit",
        tasks=_TEXTS,
        buckets=list_of(_BUCKET),
        rows=mapping_of(_BY_LENGTH),
    ),
    samples=mapping_of(list_of(_SAMPLE)),
)


def read(path: Path) -> dict[str, Any]:
    """Read and check a board.

    Args:
        path: The file.

    Raises:
        ApeError: It cannot be read, is none of ours, or of a newer version.
    """
    content = read_json(path, "board", _MEND)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ApeError(
            f"The board {path} has schema version {version:.20g}, and this lm-eval-ape reads up to {SCHEMA_VERSION}; "
            "update it, or make the board again."
        )
    with checking(f"{path} is no board that this version can read", _MEND):
        validate(content, _RULE)
        _check_names(content)
        _check_scores(content)
    return dict(content)


def _check_names(board: Mapping[str, Any]) -> None:
    """What a part names, another part has: rows, tasks and lengths."""
    labels = [row["label"] for row in board["rows"]]
    if (twice := next((label for label in labels if labels.count(label) > 1), None)) is not None:
        raise ApeError(f"two rows are called {twice!r}.")
    if board["baseline"] is not None and board["baseline"] not in labels:
        raise ApeError(f"the baseline {board['baseline']!r} is no row.")
    tasks = board["tasks"]
    named = [(f"the score of {row['label']!r}", row["tasks"]) for row in board["rows"]]
    named += [(f"the average of {row['label']!r}", row["average"]["tasks"]) for row in board["rows"] if row["average"]]
    named += [("samples", board["samples"])]
    for where, names in named:
        if (unknown := next((name for name in names if name not in tasks), None)) is not None:
            raise ApeError(f"{where} is of the task {unknown!r}, which the board does not have.")
    if len({tuple(row["average"]["tasks"]) if row["average"] else None for row in board["rows"]}) > 1:
        raise ApeError("the averages are not over the same tasks.")
    if board["lengths"]["buckets"] and not board["lengths"]["rows"]:
        raise ApeError("lengths has buckets, but no rows.")
    for label, scores in board["lengths"]["rows"].items():
        if label not in labels or len(scores) != len(board["lengths"]["buckets"]):
            raise ApeError(f"lengths.rows.{label:.60} is no row, or has not one score for each bucket.")
    for name, samples in board["samples"].items():
        for number, sample in enumerate(samples):
            if (unknown := next((label for label in sample["runs"] if label not in labels), None)) is not None:
                raise ApeError(
                    f"samples.{name}[{number}] is of the row {unknown!r:.60}, which the board does not have."
                )
            if any(len(p["nats"]) != len(p["tokens"]) for run in sample["runs"].values() for p in run.get("kl") or ()):
                raise ApeError(f"samples.{name}[{number}] has not one divergence for each token.")


def _check_scores(board: Mapping[str, Any]) -> None:
    """A difference has both ends of its interval, or neither; divergences are of a known number of tokens."""
    for row in board["rows"]:
        scores = [*row["tasks"].values(), *([row["average"]] if row["average"] else [])]
        found = [score["difference"] for score in scores if score["difference"]]
        if any((one["low"] is None) != (one["high"] is None) for one in found):
            raise ApeError(f"a difference of {row['label']!r:.60} has half an interval.")
        if row["kl"] is None and any(score["kl"] for score in scores):
            raise ApeError(f"{row['label']!r:.60} has divergences, but no kl.num_tokens.")
