"""Rows of JSON Lines files, each with the place it came from, checked before any work starts."""

from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

from lm_eval_ape.errors import ApeError
from lm_eval_ape.storage.files import reason
from lm_eval_ape.storage.strict_reading import from_json


class Row(NamedTuple):
    """One JSON object of a file.

    Attributes:
        source: The file, as error messages name it.
        line: Line number in the file, from 1.
        fields: The object itself.
    """

    source: str
    line: int
    fields: dict[str, Any]

    @property
    def place(self) -> str:
        """File and line, as error messages name them."""
        return f"{self.source}, line {self.line}"

    def text(self, *names: str, empty: bool = True) -> str:
        """Returns the string under the first of `names` that the row has.

        Args:
            *names: Field names that mean the same, the preferred one first.
            empty: Whether the empty string is allowed.

        Raises:
            ApeError: The row has none of the names, or no such string there.
        """
        name = next((name for name in names if name in self.fields), None)
        if name is None:
            wanted = " or ".join(f"`{name}`" for name in names)
            raise ApeError(
                f"{self.place}: the field {wanted} is missing; the row has "
                f"{_names(self.fields)}. Every row needs it: check or replace the file."
            )
        value = self.fields[name]
        if not isinstance(value, str):
            raise self.unexpected(name, "a string")
        if not value and not empty:
            raise self.unexpected(name, "a string that is not empty")
        return value

    def number(self, name: str) -> int:
        """Returns the whole number under `name`.

        Raises:
            ApeError: It is missing or something else.
        """
        value = self.fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.unexpected(name, "a whole number")
        return value

    def texts(self, name: str) -> list[str]:
        """Returns the list of strings under `name`.

        Raises:
            ApeError: It is missing, empty or something else.
        """
        value = self.fields.get(name)
        if not isinstance(value, list) or not value:
            raise self.unexpected(name, "a list of strings that is not empty")
        if not all(isinstance(item, str) for item in value):
            raise self.unexpected(name, "a list of strings")
        return value

    def unexpected(self, name: str, expected: str) -> ApeError:
        """Returns the error for a field that is missing or not as expected."""
        if name not in self.fields:
            got = f"is missing; the row has {_names(self.fields)}"
        else:
            got = f"is {_shortened(self.fields[name])}"
        return ApeError(f"{self.place}: the field `{name}` {got}. Expected {expected}: check or replace the file.")


def read_jsonl(stream: IO[bytes], source: str) -> list[Row]:
    """Reads one JSON object a line; empty lines are passed over.

    Args:
        stream: The file's bytes, UTF-8.
        source: The file, as error messages name it.

    Raises:
        ApeError: A line is no JSON object that says one thing plainly (see `strict_reading.from_json`), or
            the file has no rows.
    """
    rows = []
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            fields = from_json(line)
        except ValueError as error:
            raise ApeError(
                f"{source}, line {number}: not valid JSON in UTF-8 ({reason(error)}). Every line "
                "must be one JSON object: check whether the file was cut off or replace it."
            ) from error
        if not isinstance(fields, dict):
            raise ApeError(
                f"{source}, line {number}: got {_shortened(fields)}, expected one JSON object a "
                "line: check or replace the file."
            )
        rows.append(Row(source, number, fields))
    if not rows:
        raise ApeError(f"{source} has no rows: check or replace the file.")
    return rows


def read_jsonl_file(path: Path) -> list[Row]:
    """Reads a JSON Lines file: see `read_jsonl`.

    Raises:
        ApeError: The folder or the file does not exist, a line is no JSON object, or the file
            has no rows.
    """
    if not path.parent.is_dir():
        raise ApeError(
            f"The data folder {path.parent} does not exist or is not a folder: give the path of "
            f"the folder that holds {path.name}."
        )
    if not path.is_file():
        present = sorted(file.name for file in path.parent.glob("*.jsonl"))
        listing = ", ".join(present) if present else "no .jsonl file"
        raise ApeError(
            f"The data folder {path.parent} has no file {path.name}; it has {listing}. Put the "
            "file there, give another folder, or leave out the task that needs it."
        )
    try:
        with path.open("rb") as stream:
            return read_jsonl(stream, str(path))
    except OSError as error:
        raise ApeError(f"{path} cannot be read: {reason(error)}. Check it or replace it.") from error


def check_unique(rows: Iterable[Row], name: str) -> None:
    """Checks that no two rows that have the field `name` share its value.

    Raises:
        ApeError: Two rows have the same value.
    """
    seen: dict[str, Row] = {}
    for row in rows:
        if name not in row.fields:
            continue
        value = row.text(name)
        if value in seen:
            raise ApeError(
                f"{row.place}: the `{name}` {value!r} stands on line {seen[value].line} too. Rows "
                "must have different ones: remove the duplicates, or replace the file."
            )
        seen[value] = row


def _names(fields: dict[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in fields) or "no fields"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
