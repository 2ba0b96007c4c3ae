"""What `--strategies` names: each strategy with its own settings, checked before any weight is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval.utils import simple_parse_args_string

from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.harness.arguments import split_arguments
from lm_eval_ape.settings.strategy import DEFAULTS, PRESETS, SETTINGS, STRATEGIES, Settings

_SPEC = re.compile(r"(?P<name>[^\[\]@]+)(\[(?P<settings>[^\[\]]*)\])?(@(?P<calibration>.+))?")
# What differs from one strategy to the next, or would mix their requests in one file.
_NOT_SHARED = ("strategy", "attn_temperature", "attn_scale", "calibration", "request_log")


class Spec(NamedTuple):
    """One strategy to run.

    Attributes:
        label: As it was written; the name of its row.
        arguments: All of its model arguments.
        settings: What they resolve to.
        own: Those of the arguments that it names itself, its strategy apart.
    """

    label: str
    arguments: dict[str, Any]
    settings: Settings
    own: dict[str, Any]


def read_specs(specs: Sequence[str], model_args: Mapping[str, Any]) -> list[Spec]:
    """Resolve every spec.

    Args:
        specs: `NAME`, `NAME[setting=value,...]`, `NAME@CALIBRATION` or `NAME[...]@CALIBRATION`.
        model_args: Arguments of the one model that all strategies share.

    Raises:
        ApeError: A spec or an argument is unknown, impossible or given twice, or a calibration is for something else.
    """
    if wrong := [name for name in _NOT_SHARED if name in model_args]:
        raise ApeError(
            f"model_args has {wrong[0]}, which all strategies would share; give it to one of them, for example "
            "--strategies 'sequential,ape[attn_temperature=0.8]', ape@calibration.json for a calibration. "
            "Lengths and times of all requests are kept anyway."
            if wrong[0] == "request_log"
            else f"model_args has {wrong[0]}, which all strategies would share; give it to one of them, for example "
            "--strategies 'sequential,ape[attn_temperature=0.8]' or ape@calibration.json."
        )
    found = [read_spec(spec, model_args, "strategies") for spec in specs]
    labels = [spec.label for spec in found]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ApeError(f"strategies names {twice!r} twice; drop one.")
    same: dict[Settings, str] = {}
    for spec in found:
        # A preset is a name for other settings, and these are what counts.
        if (other := same.setdefault(spec.settings.with_(preset="none"), spec.label)) != spec.label:
            raise ApeError(f"strategies names {other!r} and {spec.label!r}, whose settings are the same; drop one.")
    return found


def read_spec(text: str, model_args: Mapping[str, Any], option: str) -> Spec:
    """Resolve one spec (see `read_specs`).

    Args:
        text: The spec.
        model_args: Arguments of the model.
        option: Where it was given, for errors.
    """
    match = _SPEC.fullmatch(text)
    if match is None:
        raise ApeError(
            f"{option} must be names such as ape, ape[attn_temperature=0.8,attn_scale=0.9] or ape@calibration.json, "
            f"separated by commas, but got {text!r}."
        )
    name = match["name"].strip()
    if name not in STRATEGIES:
        raise ApeError(f"There is no strategy {name!r}.{nearest(name, STRATEGIES)} There are {', '.join(STRATEGIES)}.")
    own = _settings(match["settings"], text) if match["settings"] else {}
    if match["calibration"]:
        own["calibration"] = match["calibration"].strip()
    arguments = {**model_args, "strategy": name, **own}
    try:
        settings, _ = split_arguments(arguments)
    except ApeError as error:
        raise ApeError(f"{text}: {error}") from error
    return Spec(text, arguments, settings, own)


def _settings(given: str, spec: str) -> dict[str, Any]:
    if (bare := next((part for part in given.split(",") if "=" not in part), None)) is not None:
        raise ApeError(f"{spec}: settings in brackets are name=value pairs, but got {bare!r}.")
    names = [part.partition("=")[0].strip() for part in given.split(",")]
    if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
        raise ApeError(f"{spec}: the setting {twice!r} is given twice; drop one.")
    settings = simple_parse_args_string(given)
    known = set(SETTINGS) - {"strategy"}
    if (unknown := next((key for key in settings if key not in known), None)) is not None:
        raise ApeError(
            f"{spec}: there is no setting {unknown!r}.{nearest(unknown, known)} In brackets stand settings of the "
            "encoding; what loads the model belongs into --model_args, once for all strategies."
        )
    return dict(settings)


def describe(settings: Mapping[str, Any]) -> str:
    """Settings in a few words: T and S where they have an effect, and other values than the defaults."""
    return " ".join([temperature_and_scale(settings), *changed(settings)])


def temperature_and_scale(settings: Mapping[str, Any]) -> str:
    """T and S in words."""
    if settings["strategy"] == "sequential":
        return "one sequence"
    if digest := settings.get("factors_sha256"):
        return f"T and S by layer and head ({digest[:8]})"
    return f"T={settings['attn_temperature']:g} S={settings['attn_scale']:g}"


def changed(settings: Mapping[str, Any]) -> list[str]:
    """What differs from the strategy's and the preset's defaults beside T and S, as `name=value`."""
    name = settings["strategy"]
    if name == "sequential" and settings.get("retriever", "none") == "none":
        return []
    preset = PRESETS.get(settings.get("preset", "none"), {})
    defaults = {**DEFAULTS, **STRATEGIES.get(name, {}), **preset}
    names = [name for name in SETTINGS if name not in ("strategy", "attn_temperature", "attn_scale", "attn_backend")]
    differing = {name: settings[name] for name in names if settings.get(name, defaults[name]) != defaults[name]}
    return [f"{name}={typed(value)}" for name, value in differing.items()]


def typed(value: Any) -> str:
    """A value as it is typed on a command line, on one line."""
    return str(value).replace("\n", "\\n").replace("\t", "\\t")
