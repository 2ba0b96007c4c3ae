"""Tables of where tasks have their contexts: the package's own, and the user's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.files import reason
from lm_eval_ape.strict import from_yaml

# As a field: wherever the context may be.
AUTO = "auto"
PACKAGED = Path(__file__).parent / "contexts.yaml"
_NAMES = ("tasks", "field", "pattern", "source")
_EXAMPLE = "for example `- tasks: [my_task_*]` and, below it, `  field: article`"


class Entry(NamedTuple):
    """Where some tasks have their contexts.

    Attributes:
        tasks: Names of tasks, or shell patterns of them.
        fields: Fields of their documents, in the order in which they are tried.
        pattern: What finds it in the prompt, by its group `context`, in place of the fields.
        table: The table's file, by its name.
    """

    tasks: tuple[str, ...]
    fields: tuple[str, ...]
    pattern: re.Pattern[str] | None
    table: str

    @property
    def what(self) -> str:
        """The entry in words."""
        return "pattern" if self.pattern else "field " + " or ".join(map(repr, self.fields))


@dataclass(frozen=True)
class ContextTable:
    """Entries of a file, the first one that fits a task counting.

    Attributes:
        entries: In the file's order.
        digest: SHA-256 of the file.
    """

    entries: tuple[Entry, ...]
    digest: str

    def entry(self, task: str) -> Entry | None:
        """The entry of a task, if it has one."""
        return next((one for one in self.entries if any(fnmatchcase(task, name) for name in one.tasks)), None)


@cache
def packaged_table() -> ContextTable:
    """The table that comes with the package."""
    return read_table(str(PACKAGED))


def read_table(path: str) -> ContextTable:
    """Read a table.

    Args:
        path: A YAML file: a list of entries, each with `tasks` (names or patterns such as `niah_*`), either `field` (as
            `context_field`) or `pattern` (as `context_pattern`), and perhaps `source`.

    Raises:
        ApeError: The file is missing or malformed.
    """
    file = Path(path).expanduser()
    try:
        content = file.read_bytes()
        found = from_yaml(content)
    except (OSError, ValueError) as error:
        raise ApeError(f"The table of contexts {file} cannot be read: {reason(error)}.") from error
    if not isinstance(found, list) or not found:
        raise ApeError(f"The table of contexts {file} must be a list of entries, but got {found!r:.60}; {_EXAMPLE}.")
    entries = tuple(_entry(f"Entry {number} of {file}", one, file.name) for number, one in enumerate(found, start=1))
    return ContextTable(entries, hashlib.sha256(content).hexdigest())


def read_pattern(name: str, value: Any) -> re.Pattern[str]:
    """Compile a pattern that finds a context.

    Raises:
        ApeError: It is no regular expression, or has no group named `context`.
    """
    try:
        pattern = re.compile(value)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise ApeError(f"{name} must be a regular expression, but got {value!r:.60}: {error}.") from error
    if "context" not in pattern.groupindex:
        raise ApeError(f"{name} must have a group named context, but got {value!r:.60}; write (?P<context>...) in it.")
    return pattern


def read_fields(value: str) -> tuple[str, ...]:
    """Names in a `context_field`: `a|b` are two, tried in this order."""
    return tuple(name.strip() for name in value.split("|") if name.strip())


def _entry(what: str, given: Any, table: str) -> Entry:
    if not isinstance(given, Mapping):
        raise ApeError(f"{what} must have names and values, but got {given!r:.60}; {_EXAMPLE}.")
    if unknown := [name for name in given if name not in _NAMES]:
        raise ApeError(f"{what} has no part {unknown[0]!r:.60}.{nearest(str(unknown[0]), _NAMES)}")
    tasks = given.get("tasks")
    tasks = [tasks] if isinstance(tasks, str) else tasks
    if not isinstance(tasks, list) or not tasks or not all(isinstance(name, str) and name for name in tasks):
        raise ApeError(f"{what} must name its tasks, but got {given.get('tasks')!r:.60}; {_EXAMPLE}.")
    if ("field" in given) == ("pattern" in given):
        raise ApeError(f"{what} must have a field or a pattern, and not both; {_EXAMPLE}.")
    if "pattern" in given:
        return Entry(tuple(tasks), (), read_pattern(f"{what}: pattern", given["pattern"]), table)
    fields = read_fields(given["field"]) if isinstance(given["field"], str) else ()
    if not fields:
        raise ApeError(f"{what}: field must name a field of the document, but got {given['field']!r:.60}.")
    return Entry(tuple(tasks), fields, None, table)
