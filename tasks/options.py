"""Options of generated tasks, from the harness's metadata, checked before any row is made."""

from collections.abc import Iterable, Mapping

from lm_eval_ape.errors import ApeError, nearest


def refuse_unknown(metadata: Mapping[str, object], prefix: str, options: Iterable[str]) -> None:
    """Refuse metadata that looks like an option of a task and is none.

    Args:
        metadata: What the harness knows, beside the task's own options.
        prefix: How the task's options begin; everything else in the metadata is for others.
        options: The task's options.

    Raises:
        ApeError: Names the unknown option and the nearest known one.
    """
    known = list(options)
    if unknown := sorted(name for name in metadata if name.startswith(prefix)):
        raise ApeError(
            f"Unknown metadata {unknown[0]!r}.{nearest(unknown[0], known)} The options of these tasks are "
            f"{', '.join(known)}."
        )


def whole_number(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return a whole number within bounds.

    Raises:
        ApeError: It is something else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= (value if most is None else most):
        return value
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise ApeError(f"{name} must be a whole number {bounds}, but got {value!r}.")


def share(name: str, value: object) -> float:
    """Return a number from 0 to 1.

    Raises:
        ApeError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ApeError(f"{name} must be a number from 0 to 1, but got {value!r}.")
    return float(value)


def switch(name: str, value: object) -> bool:
    """Return true or false.

    Raises:
        ApeError: It is something else.
    """
    if not isinstance(value, bool):
        raise ApeError(f"{name} must be true or false, but got {value!r}.")
    return value


def path_text(name: str, value: object) -> str:
    """Return the text of a path.

    Raises:
        ApeError: It is no text, or empty.
    """
    if not isinstance(value, str) or not value:
        raise ApeError(f"{name} must be a path, but got {value!r}.")
    return value
