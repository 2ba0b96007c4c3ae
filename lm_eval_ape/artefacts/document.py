"""What the documents that runs leave behind are made of, and the sentences in which a wrong one is refused."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.errors import ApeError, nearest

_KINDS: Mapping[str, str] = {
    "string_type": "string",
    "float_type": "number",
    "int_type": "integer",
    "bool_type": "boolean",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
}

_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
}


class PartError(ValueError):
    """A part that contradicts itself or another one.

    Args:
        what: What is wrong, as the end of a sentence that begins with the part's place.
        place: Of what is wrong, inside the part that is checked: `mean_kl`; empty for the part itself.
    """

    def __init__(self, what: str, place: str = "") -> None:
        super().__init__(what)
        self.place = place


class Part(BaseModel):
    """A part of a document. What later versions add to one is kept, and passed over by readers."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, ser_json_inf_nan="constants")

    def as_json(self) -> dict[str, Any]:
        """The part as JSON has it: with the names that were given, in the order of the fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def scalar(value: Any) -> Any:
    """The value itself.

    Raises:
        PartError: It is neither text, a number, a truth value nor null.
    """
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise PartError(f"must be string, number, boolean or null, but is {value!r:.60}.")
    return value


def _number(value: Any) -> Any:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise PartError(f"must be number, but is {value!r:.60}.")
    return value


def _two_factors(value: Any) -> Any:
    pair = value if isinstance(value, (list, tuple)) else ()
    numbers = [one for one in pair if isinstance(one, (int, float)) and not isinstance(one, bool)]
    if len(pair) != 2 or len(numbers) != 2 or min(numbers) <= 0:
        raise PartError(f"must be T and S, two numbers above 0, but is {value!r:.60}.")
    return value


Number = Annotated[int | float, BeforeValidator(_number)]
"""A number that stays whole where it was."""
Count = Annotated[int, Field(ge=0)]
Factor = Annotated[float, Field(gt=0)]
"""T or S."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A share of 1, or a p-value."""
Positive = Annotated[float, Field(ge=0)]
"""A standard error, or seconds."""
Name = Annotated[str, Field(min_length=1)]
TwoFactors = Annotated[Point, BeforeValidator(_two_factors)]
"""T and S."""
Scalar = Annotated[str | int | float | bool | None, BeforeValidator(scalar)]
Table = Annotated[list[Annotated[list[float], Field(min_length=1)]], Field(min_length=1)]
"""Numbers by layer and head."""


class LeftOut(Part):
    """How many prompts were left out, and why."""

    too_long: Count
    no_context: Count


class WithPoint(Part):
    """A part that names a point."""

    attn_temperature: Factor
    attn_scale: Factor

    @property
    def point(self) -> Point:
        """T and S."""
        return Point(self.attn_temperature, self.attn_scale)


def check_known(known: type[Part]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A check of what is known of an object that is else kept as it is."""

    def check(content: dict[str, Any]) -> dict[str, Any]:
        known.model_validate(content)
        return content

    return check


def check_interval(low: float | None, high: float | None) -> None:
    """An interval has both ends or neither.

    Raises:
        PartError: It has one.
    """
    if (low is None) != (high is None):
        raise PartError("has half an interval.")


def check_length(name: str, values: Sequence[Any], expected: int) -> None:
    """As many values as something else has.

    Raises:
        PartError: There are more or fewer.
    """
    if len(values) != expected:
        raise PartError(f"has {len(values)} items, where {expected} are needed.", name)


@contextmanager
def checking(named: str, mend: str, whole: str = "the file") -> Iterator[None]:
    """Let a document that is refused inside be one sentence that says which file is wrong, where and how.

    Args:
        named: What is wrong with the file then: the beginning of a sentence.
        mend: What to do: a sentence.
        whole: What the document itself is called.

    Raises:
        ApeError: A document was refused.
    """
    try:
        yield
    except ValidationError as error:
        raise ApeError(f"{named}: {sentence(error, whole)} {mend}") from error


def sentence(error: ValidationError, whole: str = "the file") -> str:
    """The first thing that is wrong with a document: its place, what was got and what was expected."""
    found = error.errors(include_url=False)[0]
    kind, got, context = found["type"], found["input"], found.get("ctx", {})
    place = _place(found["loc"])
    if kind == "missing":
        return f"{_place(found['loc'][:-1]) or whole} has no {found['loc'][-1]!r}{_like(found['loc'][-1], got)}."
    if kind == "value_error":
        inner = context["error"]
        parts = [part for part in (place, getattr(inner, "place", "")) if part]
        return f"{'.'.join(parts) or whole} {inner}"
    return f"{place or whole} {_wrong(kind, got, context)}"


def _wrong(kind: str, got: Any, context: Mapping[str, Any]) -> str:
    """What is wrong, as the end of a sentence."""
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"must be {words} {context[name]:g}, but is {got!r:.60}."
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, but is {got!r:.60}."
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        return f"must be {context['expected']}, but is {got!r:.60}.{nearest(str(got), known)}"
    if kind in ("too_short", "too_long", "string_too_short"):
        return f"has {len(got)} items." if isinstance(got, list) else "is empty."
    return f"is wrong: {kind.replace('_', ' ')}; it is {got!r:.60}."


def _like(missing: str | int, got: Any) -> str:
    """A name that is there and could be the missing one with a mistake in it."""
    names = [name for name in got if isinstance(name, str)] if isinstance(got, dict) else []
    close = difflib.get_close_matches(str(missing), names, n=1, cutoff=0.8)
    return f", but has {close[0]!r}" if close else ""


def _place(steps: Sequence[str | int]) -> str:
    """Path to a part: `samples[0].kl`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step:.60}" for step in steps)
    return text.removeprefix(".")
