"""Options of a search over encodings, beside those of every calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings import option_values as values
from lm_eval_ape.settings.options import HarnessOptions, option


def _values_to_search(name: str, value: Any) -> dict[str, tuple[Any, ...]]:
    """Settings with the values to try: a mapping, or texts such as `recompute=0,0.02,0.05`."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        value = _split(name, texts)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ApeError(f"{name} must give settings values to try: recompute=0,0.02,0.05, but got {value!r:.200}.")
    found = {setting: tuple(map(_typed, values.listed(given))) for setting, given in value.items()}
    if empty := next((setting for setting, given in found.items() if not given), None):
        raise ApeError(f"{name} gives {empty} no value to try.")
    return found


def _split(name: str, texts: list[str]) -> dict[str, str]:
    """Settings with their values, still text."""
    found: dict[str, str] = {}
    for text in texts:
        setting, _, given = text.partition("=")
        if not given:
            raise ApeError(f"{name} must be SETTING=VALUE,VALUE,... such as recompute=0,0.02,0.05, but got {text!r}.")
        if setting in found:
            raise ApeError(f"{name} has {setting} twice; give all its values at once.")
        found[setting] = given
    return found


def _typed(value: Any) -> Any:
    """A value as the harness reads it from a command line."""
    if not isinstance(value, str):
        return value
    from lm_eval.utils import handle_arg_string

    return handle_arg_string(value.strip())


Searched = Annotated[dict[str, tuple[Any, ...]], values.read_by(_values_to_search)]


class SearchOptions(HarnessOptions):
    """Which encodings are tried, and by which rule one is chosen."""

    search: Searched = option(
        {}, "search: a setting of ape-hf with the values to try; may be given several times", "SETTING=VALUE,..."
    )
    candidates: values.Specs = option(
        (),
        "search: strategies to try, each with every combination of the settings searched",
        "sink,NAME[SETTING=VALUE],...",
    )
    accept: values.Positive | None = option(
        None, "search: choose the cheapest encoding whose mean KL is at most so many nats", "NATS"
    )
    budget: values.Positive | None = option(
        None, "search: choose the closest encoding that costs at most this share of the sequential prefill", "SHARE"
    )
    race: values.Switch = option(True, "search: stop measuring encodings that are beyond doubt worse (default: --race)")

    def check_search(self) -> None:
        """Refuse options of a search without one, or that it does not read."""
        idle = [name for name in ("accept", "budget", "race") if name in self.model_fields_set]
        if not self.searches:
            if idle:
                raise ApeError(f"{idle[0]} is only read in a search; add --search or --candidates, or drop it.")
            return
        if self.accept is not None and self.budget is not None:
            raise ApeError("accept and budget are two rules of choice; drop one.")

    @property
    def searches(self) -> bool:
        """Whether encodings are searched through."""
        return bool(self.search or self.candidates)
