"""Values of options as a command line, a YAML file or Python gives them, each checked and brought to one form.

Every reader takes the option's name, for errors, and a value, and raises `ApeError` if that is impossible.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.storage.files import reason
from lm_eval_ape.storage.strict_reading import from_json, writable

LEAST_TEMPERATURE = 1e-6
"""Logits that are divided by less may overflow, and a query whose logits all become -inf reads nothing, unnoticed."""

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


def text(name: str, value: Any) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ApeError(f"{name} must be text, but got {value!r:.200}.")
    return value


def choice(*choices: str) -> Callable[[str, Any], str]:
    """One of some words."""

    def read(name: str, value: Any) -> str:
        if value not in choices:
            raise ApeError(
                f"{name} must be one of {', '.join(choices)}, but got {value!r:.200}.{nearest(str(value), choices)}"
            )
        return str(value)

    return read


def count(least: int) -> Callable[[str, Any], int]:
    """A whole number of at least `least`."""

    def read(name: str, value: Any) -> int:
        number = _parsed(value)
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ApeError(f"{name} must be a whole number of at least {least}, but got {value!r:.200}.")
        return number

    return read


def counts(least: int) -> Callable[[str, Any], tuple[int, ...]]:
    """Whole numbers of at least `least`, in text separated by commas."""

    def read(name: str, value: Any) -> tuple[int, ...]:
        parts = numbers(name, value)
        if not parts or any(not part.is_integer() or part < least for part in parts):
            raise ApeError(f"{name} must be whole numbers of at least {least} such as 2,4,8, but got {value!r:.200}.")
        return tuple(map(int, parts))

    return read


def byte_size(name: str, value: Any) -> int:
    """A number of bytes, with a unit or without: 2GiB, 500 MB, 1000000."""
    found = _BYTES.fullmatch(str(value).strip())
    unit = found and _UNITS.get((found[2] or "B").lower())
    if not found or not unit or isinstance(value, bool) or math.isinf(float(found[1])):
        raise ApeError(f"{name} must be a number of bytes such as 2GiB, 500MB or 1000000, but got {value!r:.200}.")
    return int(float(found[1]) * unit)


def limit(name: str, value: Any) -> float:
    """How many documents, or which share of them."""
    number = _parsed(value)
    if not is_number(number) or not number > 0:
        raise ApeError(f"{name} must be a positive number (below 1: a share of the documents), but got {value!r:.200}.")
    return float(number)


def numbers(name: str, value: Any) -> tuple[float, ...]:
    """Numbers, in text separated by commas; what they may be is for their reader to say."""
    given = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)):
        given = [given]
    parsed = [_parsed(part) for part in given]
    for number, part in zip(parsed, given, strict=True):
        if not is_number(number):
            raise ApeError(f"{name} must be numbers such as 0.8,0.9,1.0, but got {part!r}.")
    return tuple(map(float, parsed))


def names(name: str, value: Any) -> tuple[str, ...]:
    """Names, in text separated by commas."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or not all(isinstance(part, str) for part in given):
        raise ApeError(f"{name} must be names separated by commas, but got {value!r:.200}.")
    return tuple(part.strip() for part in given if part.strip())


def switch(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ApeError(f"{name} must be true or false, but got {value!r:.200}.")
    return value


def template(name: str, value: Any) -> bool | str:
    """Whether to use a chat template, or its name."""
    return value if isinstance(value, bool) else text(name, value)


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


def _parsed(value: Any) -> Any:
    """Text as the number that it writes in decimal digits; anything else as it is."""
    for kind in (int, float):
        try:
            return kind(value) if isinstance(value, str) else value
        except ValueError:
            continue
    return value


def is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
