"""The encodings that a search tries: named strategies and every combination of the settings to search over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.harness.arguments import split_arguments
from lm_eval_ape.harness.specs import Spec, read_spec, typed
from lm_eval_ape.settings.strategy import DEFAULT_CHUNK_TOKENS, DEFAULTS, SETTINGS, STRATEGIES, Settings

# Settings that cannot be searched over, each with the reason.
_NOT_SEARCHED: Mapping[str, str] = {
    "strategy": "is a name for other settings; name strategies with --candidates",
    "attn_temperature": "is found for every encoding; give its values with --temperatures",
    "attn_scale": "is found for every encoding; give its values with --scales",
    "attn_backend": "says how attention is computed, and changes no distribution",
    "keys_from": "makes an oracle that reads the sequential model's pass, and costs more than it",
    "values_from": "makes an oracle that reads the sequential model's pass, and costs more than it",
    **dict.fromkeys(
        ("retriever", "preset", "prefix", "context_field", "context_pattern", "context_table", "no_context"),
        "says which text is read, and encodings of different texts have no teacher in common",
    ),
}
_FILLED_IN = "chunk_tokens", DEFAULT_CHUNK_TOKENS
# What two encodings may differ in and still be one.
_SAME: Mapping[str, Any] = {"attn_temperature": 1.0, "attn_scale": 1.0, "factors": None, "preset": "none"}


class Encoding(NamedTuple):
    """A way of encoding, without T and S.

    Attributes:
        name: As it was asked for: `recompute[recompute=0.02]`.
        arguments: The model arguments that make it, beside those that all encodings share.
        settings: What they resolve to, with T = S = 1.
    """

    name: str
    arguments: dict[str, Any]
    settings: Settings


class LeftOut(NamedTuple):
    """What is not tried.

    Attributes:
        name: As it was asked for.
        reason: A sentence.
    """

    name: str
    reason: str


class Space(NamedTuple):
    """What a search tries, and what it does not.

    Attributes:
        encodings: Different ones.
        left_out: What does not go together, or is another one's double.
    """

    encodings: list[Encoding]
    left_out: list[LeftOut]


def check_names(search: Mapping[str, Sequence[Any]]) -> None:
    """Refuse settings that cannot be searched over.

    Raises:
        ApeError: With the reason.
    """
    for name in search:
        if name in _NOT_SEARCHED:
            raise ApeError(f"search has {name}, which {_NOT_SEARCHED[name]}.")
        if name not in SETTINGS:
            known = [one for one in SETTINGS if one not in _NOT_SEARCHED]
            raise ApeError(f"search has {name!r}, which is no setting.{nearest(name, known)} {', '.join(known)}.")


def space(
    model_args: Mapping[str, Any],
    candidates: Sequence[str],
    search: Mapping[str, Sequence[Any]],
    *,
    by_gradient: bool = False,
) -> Space:
    """All encodings that are asked for.

    Args:
        model_args: Arguments of the one model that all encodings share.
        candidates: Strategies, as `compare` names them: `sink`, `recompute[recompute=0.02]`; none for that of
            `model_args`.
        search: By setting, the values to try, in every combination and with every candidate.
        by_gradient: Whether T and S are to be found by gradient.

    Raises:
        ApeError: A setting or a strategy is unknown or cannot be searched over, or nothing is left to try.
    """
    check_names(search)
    shared = {name: value for name, value in model_args.items() if name != "strategy"}
    default = str(model_args.get("strategy", DEFAULTS["strategy"]))
    found: dict[Settings, Encoding] = {}
    left_out: list[LeftOut] = []
    for text in candidates or (default,):
        for values in product(*search.values()):
            own = dict(zip(search, values, strict=True))
            name = _name(text, own, named=bool(candidates))
            try:
                settings = _resolved(text, shared, own)
                if by_gradient:
                    check_gradient(settings)
            except ApeError as error:
                left_out.append(LeftOut(name, str(error)))
                continue
            if twin := found.get(settings):
                left_out.append(LeftOut(name, f"It is the same as {twin.name}, T and S apart."))
            else:
                found[settings] = Encoding(name, _arguments(settings, shared), settings)
    if not found:
        reasons = "\n".join(f"  {one.name}: {one.reason}" for one in left_out)
        raise ApeError(f"Of all that the search asks for, nothing can be tried:\n{reasons}")
    return Space(list(found.values()), left_out)


def check_gradient(settings: Settings) -> None:
    """Refuse settings whose T and S have no gradient.

    Raises:
        ApeError: Each query chooses among the chunks.
    """
    if settings.selection:
        raise ApeError(
            f"top_chunks={settings.top_chunks} lets each query choose among the chunks, and a choice has no gradient; "
            "use --method grid, or calibrate without top_chunks."
        )


def _name(candidate: str, own: Mapping[str, Any], *, named: bool) -> str:
    """A candidate with the settings that the search gives it, as one could write it."""
    given = ",".join(f"{name}={typed(value)}" for name, value in own.items())
    if not named:
        return given or candidate
    if not given:
        return candidate
    return f"{candidate[:-1]},{given}]" if candidate.endswith("]") else f"{candidate}[{given}]"


def _resolved(candidate: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Settings:
    """Settings of a candidate, the same for all that differ in name, T and S, or in what has no effect.

    Raises:
        ApeError: They are impossible.
    """
    spec: Spec = read_spec(candidate, shared, "candidates")
    if spec.settings.strategy == "sequential":
        raise ApeError("The sequential model is the teacher, from which every candidate is measured.")
    for name in ("keys_from", "values_from"):
        if (value := getattr(spec.settings, name)) != "parallel":
            raise ApeError(f"{name}={value} {_NOT_SEARCHED[name]}.")
    for name in ("attn_temperature", "attn_scale", "calibration"):
        if name in spec.own:
            raise ApeError(f"{name} has no place in a candidate: T and S are found for every encoding.")
    if doubled := next((name for name in own if name in spec.own), None):
        raise ApeError(f"search and the candidate both say what {doubled} is.")
    settings, _ = split_arguments({**spec.arguments, **own})
    plain = settings.with_(strategy="ape", **_SAME)
    if not plain.recompute:
        idle = ("recompute_by", "recompute_layers", "recompute_seed")
        plain = plain.with_(**{name: DEFAULTS[name] for name in idle})
    if plain.top_chunks is None:
        plain = plain.with_(**{name: DEFAULTS[name] for name in ("select_over", "reselect")})
    return plain


def _arguments(settings: Settings, shared: Mapping[str, Any]) -> dict[str, Any]:
    """What makes these settings of the shared arguments: `strategy=ape` and all in which they differ from it."""
    defaults = {**DEFAULTS, **STRATEGIES["ape"]}
    before = {name: shared.get(name, default) for name, default in defaults.items()}
    names = [name for name in SETTINGS if name not in ("strategy", *_SAME)]
    changed = {name: getattr(settings, name) for name in names if getattr(settings, name) != before[name]}
    if settings.chunking == "tokens" and "chunk_tokens" not in shared:
        # What the settings fill in themselves.
        changed = {name: value for name, value in changed.items() if (name, value) != _FILLED_IN}
    return {"strategy": "ape", **changed}
