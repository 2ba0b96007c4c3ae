"""Values checked by pydantic, and what is wrong with the first that is refused, in our words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from lm_eval_ape.errors import ApeError, nearest

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Must:
    """What a value must be, as a part of its type.

    Attributes:
        be: The words between `NAME must be` and `, but got VALUE.` in errors.
    """

    be: str


def validated(model: type[Model], given: Mapping[str, Any], owner: str) -> Model:
    """A model of the values given.

    Args:
        model: Its fields have types that say what they must be: with `Must`, or a `Literal`.
        given: Values by the fields' names.
        owner: What has these fields, for errors.

    Raises:
        ApeError: A name is unknown, a value is impossible, or values do not go together.
    """
    if unknown := [name for name in given if name not in model.model_fields]:
        raise ApeError(f"{owner} has no option {unknown[0]!r:.60}.{nearest(str(unknown[0]), model.model_fields)}")
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise ApeError(_sentence(model, error, given)) from error


def choices(annotation: Any) -> tuple[str, ...]:
    """The words of a `Literal`, also of one that may be None; empty for other types."""
    return tuple(word for part in parts(annotation) if get_origin(part) is Literal for word in get_args(part))


def _sentence(model: type[BaseModel], error: ValidationError, given: Mapping[str, Any]) -> str:
    first = error.errors(include_url=False)[0]
    told = first.get("ctx", {}).get("error")
    if isinstance(told, ApeError):
        # A check of ours has said all.
        return str(told)
    name = str(first["loc"][0])
    # Of a list, the part that is wrong.
    part = isinstance(first["loc"][-1], int) and first["type"] != "missing"
    value = first["input"] if part else given[name]
    field = model.model_fields[name]
    words = choices(field.annotation)
    hint = nearest(str(value), words)
    return f"{name} must be {_must_be(field, words)}, but got {value!r:.200}.{hint}"


def _must_be(field: FieldInfo, words: tuple[str, ...]) -> str:
    if words:
        return f"one of {', '.join(words)}"
    said = (*reversed(field.metadata), *parts(field.annotation))
    return next(part.be for part in said if isinstance(part, Must))


def parts(annotation: Any) -> Iterator[Any]:
    """What a type is made of, from without to within: itself, and the parts of unions and `Annotated`."""
    yield annotation
    if get_origin(annotation) is Annotated:
        yield from reversed(annotation.__metadata__)
        yield from parts(annotation.__origin__)
    elif get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from parts(part)
