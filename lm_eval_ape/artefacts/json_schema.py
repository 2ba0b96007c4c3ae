"""Checks JSON content against a rule: the part of JSON Schema that our files' rules use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lm_eval_ape.errors import ApeError

Rule = dict[str, Any]
"""A part of JSON Schema: see `validate`."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def whole(part: Rule, *names: str, **others: Rule) -> Rule:
    """The rule of an object that has all of these names.

    Args:
        part: The rule of `names`.
        *names: Names with that rule.
        **others: Names with their own.
    """
    parts = {**dict.fromkeys(names, part), **others}
    return {"type": "object", "required": list(parts), "properties": parts}


def mapping_of(rule: Rule) -> Rule:
    """The rule of an object of any names whose values have a rule."""
    return {"type": "object", "additionalProperties": rule}


def list_of(rule: Rule, least: int = 0) -> Rule:
    """The rule of a list of at least so many items that have a rule."""
    return {"type": "array", "minItems": least, "items": rule}


def or_null(rule: Rule) -> Rule:
    """The same rule, or null."""
    return {**rule, "type": [rule["type"], "null"]}


def validate(
    content: Any, rule: Mapping[str, Any], where: str = "", *, definitions: Mapping[str, Any] | None = None
) -> None:
    """Check JSON content against a rule.

    Args:
        content: What `strict_reading.from_json` gave.
        rule: A JSON Schema of `type`, `enum`, `anyOf`, `required`, `properties`, `additionalProperties` (a rule for the
            others), `items`, `minItems`, `maxItems`, `minProperties`, `minimum`, `exclusiveMinimum`, `minLength` and
            `$ref`.
        where: Path to the content, for errors.
        definitions: What `$ref` names, by the name after `#/$defs/`.

    Raises:
        ApeError: It breaks the rule; says where and how.
    """
    if "$ref" in rule:
        rule = (definitions or {})[rule["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in rule:
        return _any_of(content, rule["anyOf"], where, definitions)
    name = where or "the file"
    if "type" in rule:
        types = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
        if not any(_is(content, kind) for kind in types):
            raise ApeError(f"{name} must be {' or '.join(types)}, but is {content!r:.60}.")
    if "enum" in rule and content not in rule["enum"]:
        raise ApeError(f"{name} must be one of {', '.join(map(str, rule['enum']))}, but is {content!r:.60}.")
    _check_size(content, rule, name)
    if isinstance(content, dict):
        if missing := [key for key in rule.get("required", ()) if key not in content]:
            raise ApeError(f"{name} has no {missing[0]!r}.")
        known, others = rule.get("properties", {}), rule.get("additionalProperties")
        for key, value in content.items():
            if (inner := known.get(key, others)) is not None:
                validate(value, inner, f"{where}.{key:.60}".lstrip("."), definitions=definitions)
    if isinstance(content, list) and "items" in rule:
        for number, item in enumerate(content):
            validate(item, rule["items"], f"{where}[{number}]", definitions=definitions)


@contextmanager
def checking(named: str, mend: str) -> Iterator[None]:
    """Let errors of the checks inside say which file is wrong.

    Args:
        named: What is wrong with the file then: the beginning of a sentence.
        mend: What to do: a sentence.

    Raises:
        ApeError: A check failed.
    """
    try:
        yield
    except ApeError as error:
        raise ApeError(f"{named}: {error} {mend}") from error


def _check_size(content: Any, rule: Mapping[str, Any], name: str) -> None:
    if isinstance(content, (int, float)) and not isinstance(content, bool):
        if "minimum" in rule and content < rule["minimum"]:
            raise ApeError(f"{name} must be at least {rule['minimum']}, but is {content!r:.60}.")
        if "exclusiveMinimum" in rule and not content > rule["exclusiveMinimum"]:
            raise ApeError(f"{name} must be above {rule['exclusiveMinimum']}, but is {content!r:.60}.")
    if isinstance(content, list) and not rule.get("minItems", 0) <= len(content) <= rule.get("maxItems", len(content)):
        raise ApeError(f"{name} has {len(content)} items.")
    if isinstance(content, dict) and len(content) < rule.get("minProperties", 0):
        raise ApeError(f"{name} is empty.")
    if isinstance(content, str) and len(content) < rule.get("minLength", 0):
        raise ApeError(f"{name} is empty.")


def _is(content: Any, kind: str) -> bool:
    if isinstance(content, bool):
        return kind == "boolean"
    return isinstance(content, _TYPES[kind])


def _any_of(content: Any, rules: list[Mapping[str, Any]], where: str, definitions: Mapping[str, Any] | None) -> None:
    errors = []
    for rule in rules:
        try:
            return validate(content, rule, where, definitions=definitions)
        except ApeError as error:
            errors.append(str(error))
    raise ApeError(" Or: ".join(errors))
