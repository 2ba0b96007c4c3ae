"""`calibration.json` and `run_config.yaml`: what a calibration leaves behind, and how a model takes its choice up."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.artefacts.document import checking
from lm_eval_ape.attention.factors import Factors
from lm_eval_ape.checkpoints.names import model_name
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings.strategy import SETTINGS, Settings
from lm_eval_ape.storage.files import read_json, write_text

FILE_NAME = "calibration.json"
CONFIG_NAME = "run_config.yaml"

# Settings that a choice does not depend on: itself, the kernel, what happens to prompts without a context, and a
# preset's name, whose settings are compared themselves.
_FREE = {"attn_temperature", "attn_scale", "attn_backend", "no_context", "preset"}
# Arguments that name the model, with what their absence means.
_MODEL: Mapping[str, Any] = {"pretrained": "", "revision": "main", "peft": None, "delta": None}

_MEND = "Calibrate again, or name another calibration.json or its folder."
_FLAT_LIST = re.compile(r"\[\s[^\[\]{}\"]*\]")


class LoadedChoice(NamedTuple):
    """T and S of a calibration file; of each layer and head where it has more than one of each."""

    attn_temperature: float
    attn_scale: float
    factors: Factors | None = None


def calibrated_settings(settings: Settings) -> dict[str, Any]:
    """The settings that a choice holds for."""
    return {name: getattr(settings, name) for name in SETTINGS if name not in _FREE}


def load_choice(path: str, settings: Settings, arguments: Mapping[str, Any]) -> LoadedChoice:
    """Read the choice of a calibration, if it was made for this model and this way of encoding.

    Args:
        path: The file, or the folder that `calibrate` wrote it to.
        settings: The model's settings; T and S in them are not read.
        arguments: The model's other arguments: `pretrained`, `gguf_file`, `revision`, `peft` and `delta` are read.

    Raises:
        ApeError: The file cannot be read or is none of ours, or was made for something else.
    """
    content = read(path)
    model = {name: arguments.get(name, default) for name, default in _MODEL.items()}
    pretrained = getattr(model["pretrained"], "name_or_path", model["pretrained"])
    model["pretrained"] = model_name(pretrained, arguments.get("gguf_file"))
    here = {**{name: _name(value) for name, value in model.items()}, **calibrated_settings(settings)}
    # A file of an earlier version lacks later settings, whose defaults change nothing.
    settings_there = {**calibrated_settings(Settings()), **content.settings}
    there = {**{name: _name(getattr(content.model, name)) for name in _MODEL}, **settings_there}
    changes = [
        f"{name}={there.get(name)!r} there, {here[name]!r} here" for name in here if there.get(name) != here[name]
    ]
    if changes:
        raise ApeError(
            f"The calibration in {path} was made for something else ({'; '.join(changes)}). Calibrate again for this "
            "model and these settings, or give attn_temperature=... and attn_scale=... yourself in its place."
        )
    return found(content)


def searched_arguments(path: str) -> dict[str, Any]:
    """The settings that a search chose, as model arguments; none where a calibration searched for T and S alone.

    Args:
        path: The file, or the folder that `calibrate` wrote it to.

    Raises:
        ApeError: The file cannot be read or is none of ours.
    """
    frontier = read(path).frontier
    return dict(frontier.choice.arguments) if frontier else {}


def found(content: Calibration) -> LoadedChoice:
    """What a calibration ended with: the gradient's result where there is one, else the grid's choice."""
    factors = content.gradient.factors.factors if content.gradient else None
    return LoadedChoice(*content.result.point, None if factors is None or factors.single else factors)


def _name(value: Any) -> Any:
    return model_name(value) if isinstance(value, str) else value


def read(path: str | Path) -> Calibration:
    """Read and check a calibration file, given itself or its folder.

    Raises:
        ApeError: It cannot be read, is none of ours, or its parts contradict each other.
    """
    file = Path(path).expanduser()
    file = file / FILE_NAME if file.is_dir() else file
    content = read_json(file, "calibration", _MEND)
    with checking(f"{file} is no calibration that this version can read", _MEND):
        return Calibration.model_validate(content)


def write(folder: Path, content: Calibration, config: Mapping[str, Any]) -> None:
    """Write `calibration.json` and `run_config.yaml`; an older file stays whole until the new one is."""
    text = json.dumps(content.as_json(), indent=1, allow_nan=False)
    # A list of numbers on one line, for eyes.
    text = _FLAT_LIST.sub(lambda found: " ".join(found.group().split()), text) + "\n"
    write_text(folder / FILE_NAME, text)
    write_text(folder / CONFIG_NAME, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
