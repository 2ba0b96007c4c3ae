"""Types of options: what each takes from a command line, a YAML file or Python, and the one form it is brought to.

Text stands for the number that it writes, and for what it lists between commas. A function here that reads a value
takes the option's name, for errors, and raises `ApeError` if the value is impossible.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AllowInfNan, BeforeValidator, Field, Strict, ValidationInfo

from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings.validation import Must
from lm_eval_ape.storage.files import reason
from lm_eval_ape.storage.strict_reading import from_json, writable

LEAST_TEMPERATURE = 1e-6
"""Logits that are divided by less may overflow, and a query whose logits all become -inf reads nothing, unnoticed."""

# Commas in brackets belong to what stands before the bracket.
_COMMA = re.compile(r",(?![^\[\]]*\])")
_BYTES = re.compile(r"(\d+(?:\.\d*)?(?:e\+?\d+)?)\s*([a-z]*)", re.IGNORECASE)
_UNITS = {"b": 1} | {
    prefix + suffix: base ** (power + 1)
    for base, suffix in ((1000, "b"), (1024, "ib"))
    for power, prefix in enumerate("kmgt")
}


def check_writable(name: str, value: Any) -> None:
    """Refuse text, anywhere in a value, that no file could be written with or named by.

    Raises:
        ApeError: There is such text.
    """
    if isinstance(value, str) and not writable(value):
        raise ApeError(f"{name} must be text without NUL and without bytes that are no UTF-8, but got {value!r:.60}.")
    if isinstance(value, (Mapping, list, tuple)):
        for part in (*value, *value.values()) if isinstance(value, Mapping) else value:
            check_writable(name, part)


def byte_size(name: str, value: Any) -> int:
    """A number of bytes, with a unit or without: 2GiB, 500 MB, 1000000."""
    found = _BYTES.fullmatch(str(value).strip())
    unit = found and _UNITS.get((found[2] or "B").lower())
    if not found or not unit or isinstance(value, bool) or math.isinf(float(found[1])):
        raise ApeError(f"{name} must be a number of bytes such as 2GiB, 500MB or 1000000, but got {value!r:.200}.")
    return int(float(found[1]) * unit)


def arguments(name: str, value: Any) -> dict[str, Any]:
    """Names with values, in text as the harness reads them; several texts are one."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = ",".join(value)
    if isinstance(value, str):
        from lm_eval.utils import simple_parse_args_string

        names = [part.partition("=")[0] for part in value.strip().split(",") if part]
        if (twice := next((given for given in names if names.count(given) > 1), None)) is not None:
            raise ApeError(f"{name} has {twice} twice; drop one.")
        value = simple_parse_args_string(value)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ApeError(f"{name} must be key=value pairs separated by commas, but got {value!r:.200}.")
    return dict(value)


def mapping(name: str, value: Any) -> dict[str, Any]:
    """A mapping, JSON text of one, or a JSON file that holds one."""
    given = value
    if isinstance(given, str):
        try:
            given = from_json(Path(given).expanduser().read_bytes() if given.endswith(".json") else given)
        except (OSError, ValueError) as error:
            raise ApeError(
                f"{name} must be JSON or a .json file, but got {value!r:.200} ({reason(error)}): mend it, or name "
                "another file."
            ) from error
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ApeError(f'{name} must be a JSON object such as {{"key": "value"}}, but got {value!r:.200}.')
    return dict(given)


def picked(name: str, value: Any) -> dict[str, list[int]]:
    """Numbers of documents by task, ascending, none twice."""
    given = mapping(name, value)
    for task, numbers in given.items():
        whole = isinstance(numbers, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
        if not whole or not numbers or min(numbers) < 0:
            raise ApeError(f"{name} must give each task a list of document numbers, but got {numbers!r} for {task}.")
    return {task: sorted(set(numbers)) for task, numbers in given.items()}


def read_by(read: Callable[[str, Any], Any]) -> BeforeValidator:
    """A part of a type: its values are read by a function that takes the option's name and the value."""

    def by_name(value: Any, info: ValidationInfo) -> Any:
        return read(str(info.field_name), value)

    return BeforeValidator(by_name)


def number(value: Any) -> Any:
    """Text as the number that it writes in decimal digits; anything else as it is."""
    for kind in (int, float):
        try:
            return kind(value) if isinstance(value, str) else value
        except ValueError:
            continue
    return value


def listed(value: Any) -> Any:
    """Text as its parts between commas; one thing as a list of it."""
    if isinstance(value, str):
        return [part for part in value.split(",") if part.strip()]
    return value if isinstance(value, (list, tuple)) else [value]


def _names(value: Any) -> Any:
    """Text as its parts between commas, without blanks around them; empty ones are dropped."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or not all(isinstance(part, str) for part in given):
        raise ValueError
    return tuple(part.strip() for part in given if part.strip())


def _specs(value: Any) -> Any:
    """Text as the specs of strategies between its commas."""
    return _COMMA.split(value) if isinstance(value, str) else value


WholeNumber = Annotated[int, Strict(), BeforeValidator(number)]
Number = Annotated[float, Strict(), AllowInfNan(False), BeforeValidator(number)]
Count = Annotated[WholeNumber, Field(ge=1), Must("a whole number of at least 1")]
CountFrom0 = Annotated[WholeNumber, Field(ge=0), Must("a whole number of at least 0")]
CountFrom99 = Annotated[WholeNumber, Field(ge=99), Must("a whole number of at least 99")]
Positive = Annotated[Number, Field(gt=0), Must("a positive number")]
Limit = Annotated[Number, Field(gt=0), Must("a positive number (below 1: a share of the documents)")]
Counts = Annotated[
    tuple[Count, ...],
    Field(min_length=1),
    BeforeValidator(listed),
    Must("whole numbers of at least 1 such as 2,4,8"),
]
Numbers = Annotated[tuple[Number, ...], BeforeValidator(listed), Must("numbers such as 0.8,0.9,1.0")]
Text = Annotated[str, Strict(), Field(min_length=1), Must("text")]
Names = Annotated[tuple[str, ...], BeforeValidator(_names), Must("names separated by commas")]
Specs = Annotated[Names, BeforeValidator(_specs)]
"""Strategies, as `harness.specs.read_specs` takes them."""
Switch = Annotated[bool, Strict(), Must("true or false")]
Template = Annotated[Switch | Text, Must("text")]
Arguments = Annotated[dict[str, Any], read_by(arguments)]
Object = Annotated[dict[str, Any], read_by(mapping)]
