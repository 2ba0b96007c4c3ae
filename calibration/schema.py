"""Checks a calibration file against `schema.json`: the part of JSON Schema that the file uses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lm_eval_ape.errors import ApeError

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


@cache
def schema() -> dict[str, Any]:
    """The schema of `calibration.json`."""
    content: dict[str, Any] = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))
    return content


def validate(content: Any, rule: Mapping[str, Any] | None = None, where: str = "") -> None:
    """Check JSON content against a rule of the schema.

    Args:
        content: What `json.load` gave.
        rule: The whole schema if None.
        where: Path to the content, for errors.

    Raises:
        ApeError: It breaks the rule; says where and how.
    """
    rule = schema() if rule is None else rule
    if "$ref" in rule:
        rule = schema()["$defs"][rule["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in rule:
        return _any_of(content, rule["anyOf"], where)
    name = where or "the file"
    if "type" in rule:
        types = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
        if not any(_is(content, kind) for kind in types):
            raise ApeError(f"{name} must be {' or '.join(types)}, but is {content!r:.60}.")
    if "enum" in rule and content not in rule["enum"]:
        raise ApeError(f"{name} must be one of {', '.join(map(str, rule['enum']))}, but is {content!r:.60}.")
    if isinstance(content, dict):
        if missing := [key for key in rule.get("required", ()) if key not in content]:
            raise ApeError(f"{name} has no {missing[0]!r}.")
        for key, inner in rule.get("properties", {}).items():
            if key in content:
                validate(content[key], inner, f"{where}.{key}".lstrip("."))
    if isinstance(content, list):
        if not rule.get("minItems", 0) <= len(content) <= rule.get("maxItems", len(content)):
            raise ApeError(f"{name} has {len(content)} items.")
        for number, item in enumerate(content):
            validate(item, rule.get("items", {}), f"{where}[{number}]")


def _is(content: Any, kind: str) -> bool:
    if isinstance(content, bool):
        return kind == "boolean"
    return isinstance(content, _TYPES[kind])


def _any_of(content: Any, rules: list[Mapping[str, Any]], where: str) -> None:
    errors = []
    for rule in rules:
        try:
            return validate(content, rule, where)
        except ApeError as error:
            errors.append(str(error))
    raise ApeError(" Or: ".join(errors))
