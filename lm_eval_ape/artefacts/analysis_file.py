"""Reads `analysis.json` back, for what is made of it later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_ape.artefacts.json_schema import Rule, checking, list_of, mapping_of, or_null, validate, whole
from lm_eval_ape.attention.row_statistics import ROLES
from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.files import read_json

SCHEMA_VERSION = 1
FILE_NAME = "analysis.json"
ALL = "all"
"""Name of the group of all cases among the correlations."""

_MEND = "Run lm-eval-ape analyze again."
_TEXT: Rule = {"type": "string"}
_NUMBER: Rule = {"type": "number"}
_OPTIONAL: Rule = {"type": ["number", "null"]}
_STDERR: Rule = {"type": ["number", "null"], "minimum": 0}
_COUNT: Rule = {"type": "integer", "minimum": 0}


def _table(value: Rule) -> Rule:
    return list_of(list_of(value, 1), 1)


_LOOK = whole(
    _NUMBER,
    "mean_chunks",
    "entropy",
    "logit",
    documents=_COUNT,
    entropy_stderr=_STDERR,
    mass=whole(_NUMBER, *ROLES),
    by_head=whole(_table(_NUMBER), "entropy", "logit", mass=whole(_table(_NUMBER), *ROLES)),
    key_norms={**mapping_of(_table(_OPTIONAL)), "required": ["context"]},
    score=or_null(whole(_STDERR, "stderr", score=_NUMBER)),
)
_CASE = whole(
    _TEXT,
    "label",
    "family",
    chunks={"type": ["integer", "null"], "minimum": 1},
    settings={"type": "object"},
    tasks=mapping_of(_LOOK),
)
_CORRELATION = whole(_OPTIONAL, "value", "p_value", "low", "high", settings=_COUNT)
_CORRELATIONS = whole(_COUNT, "documents", groups={**mapping_of(mapping_of(_CORRELATION)), "required": [ALL]})
_RHO = whole(_OPTIONAL, "rho", "p_value")
_HEADS = whole(
    _TEXT,
    "label",
    "granularity",
    distance=_table(_NUMBER),
    goes_with=mapping_of(whole(_RHO, "entropy", "logit", "context")),
)
_RULE = whole(
    _TEXT,
    "created",
    "command",
    "device",
    schema_version={"type": "integer"},
    versions=whole(_TEXT, "lm_eval_ape"),
    model=whole(_TEXT, "pretrained"),
    tasks={**mapping_of({"type": "object"}), "minProperties": 1},
    offsets=list_of(_COUNT),
    cases=list_of(_CASE, 1),
    heads=list_of(_HEADS),
    correlations=mapping_of(_CORRELATIONS),
)


def read(path: Path) -> dict[str, Any]:
    """Read and check an analysis.

    Raises:
        ApeError: The file cannot be read, is none of ours, or of another version.
    """
    content = read_json(path, "analysis", _MEND)
    version = content.get("schema_version", SCHEMA_VERSION) if isinstance(content, dict) else SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        raise ApeError(
            f"{path} has schema version {version!r:.60}, but this version reads {SCHEMA_VERSION}; make it again, or "
            "use the version of lm-eval-ape that made it."
        )
    with checking(f"{path} is no analysis of `lm-eval-ape analyze`", _MEND):
        validate(content, _RULE)
        _check_parts(content)
    return dict(content)


def _check_parts(content: Mapping[str, Any]) -> None:
    """Every case has every task, with tables of the same layers and heads."""
    tasks, cases = content["tasks"], content["cases"]
    shape: list[int] | None = None
    for number, case in enumerate(cases):
        where = f"cases[{number}]"
        if (missing := next((task for task in tasks if task not in case["tasks"]), None)) is not None:
            raise ApeError(f"{where} has nothing of the task {missing!r:.60}.")
        for task in tasks:
            look = case["tasks"][task]
            shape = _check_look(look, f"{where}.tasks.{task:.60}", len(content["offsets"]) + 1, shape)
            if content["correlations"] and look["score"] is None:
                raise ApeError(f"{where} has no score of {task!r:.60}, but the analysis has correlations with it.")
    _check_correlations(content)


def _check_look(look: Mapping[str, Any], where: str, places: int, shape: list[int] | None) -> list[int]:
    """Heads of each layer, which all tables have alike."""
    by_head, norms = look["by_head"], look["key_norms"]["context"]
    tables = [by_head["entropy"], by_head["logit"], *by_head["mass"].values()]
    shape = shape or [len(row) for row in tables[0]]
    if len(set(shape)) > 1 or any([len(row) for row in table] != shape for table in tables):
        raise ApeError(f"{where}.by_head has tables of different numbers of layers or heads.")
    if any(len(row) != places for row in norms):
        raise ApeError(f"{where}.key_norms.context must have {places} places, as offsets says.")
    if all(value is None for row in norms for value in row):
        raise ApeError(f"{where}.key_norms.context has no number.")
    return shape


def _check_correlations(content: Mapping[str, Any]) -> None:
    for task, found in content["correlations"].items():
        if task not in content["tasks"] or "pearson" not in found["groups"][ALL]:
            raise ApeError(f"the correlation of {task!r:.60} is of no task that it has, or has no {ALL}.pearson.")
        found_all = [one for group in found["groups"].values() for one in group.values()]
        if any(one["value"] is not None and one["p_value"] is None for one in found_all):
            raise ApeError(f"a correlation of {task!r:.60} has no p-value.")
        if any((one["low"] is None) != (one["high"] is None) for one in found_all):
            raise ApeError(f"a correlation of {task!r:.60} has half an interval.")
