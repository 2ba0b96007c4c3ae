"""The model's arguments: which are ours, which the harness's and transformers', and which do not exist."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from lm_eval.models.huggingface import HFLM
from transformers import AutoConfig, BitsAndBytesConfig, PreTrainedModel

from lm_eval_ape.artefacts.calibration_file import load_choice, searched_arguments
from lm_eval_ape.checkpoints.names import located
from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.settings.strategy import SETTINGS, Settings, resolve
from lm_eval_ape.storage.loading import loading_told

# Arguments of ours that say nothing about how a prompt is read, each with its values and its default for the README's
# table of model arguments; an argument without them shares the row of the one before it.
OWN: Mapping[str, tuple[str, str]] = {
    "request_log": (
        "file for one JSON line a request: tokens of prefix, chunks, query, dropped ones, chunks kept",
        "none",
    ),
    "kv_cache_bytes": (
        "most bytes of encoded chunks kept in memory, such as `2GiB`: another question on a document, or another "
        "strategy with the same chunks, encodes nothing",
        "0",
    ),
    "kv_cache_dir": (
        "folder that keeps them from run to run, and most bytes there (`None`: no limit); damaged files are encoded "
        "again",
        "none, `50GiB`",
    ),
    "kv_cache_dir_bytes": ("", ""),
    "calibration": (
        "`calibration.json` of `lm-eval-ape calibrate`, whose T and S (of each layer and head, if it has them) are "
        "taken",
        "none",
    ),
}
# Those of them that change no number, only what is kept.
IDLE = ("request_log", "kv_cache_bytes", "kv_cache_dir", "kv_cache_dir_bytes")


def _keywords(*functions: Callable[..., Any]) -> set[str]:
    """Names of the arguments that functions can be given by name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [one for function in functions for one in inspect.signature(function).parameters.values()]
    return {one.name for one in named if one.kind in by_name} - {"self", "pretrained_model_name_or_path"}


# What transformers' `from_pretrained` takes beside its signature and fields of the model's configuration. Only its code
# says so: it takes these out of its further keywords, and calls what remains an argument of the model.
_FURTHER = """
    adapter_kwargs adapter_name allow_all_kernels attn_implementation code_revision device_map device_mesh
    distributed_config dtype experts_implementation generation_config kernel_config key_mapping low_cpu_mem_usage
    max_memory mirror offload_buffers offload_folder offload_state_dict output_loading_info proxies quantization_config
    state_dict subfolder torch_dtype tp_plan tp_size use_kernels variant
"""
# All that it takes by name, but for fields of the configuration and the configuration itself.
FROM_PRETRAINED = _keywords(PreTrainedModel.from_pretrained, BitsAndBytesConfig.__init__) - {"config"}
FROM_PRETRAINED |= set(_FURTHER.split())


def split_arguments(given: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Separate our arguments from those that go on to the harness's `HFLM`, and refuse unknown ones.

    Args:
        given: All of `--model_args`, parsed, with what the harness adds.

    Returns:
        The resolved settings and what remains for `HFLM`.

    Raises:
        ApeError: No model is named, an argument is unknown (the nearest one is named) or has an impossible value.
    """
    if given.get("pretrained") is None:
        raise ApeError("model_args must name the model: pretrained=MODEL, or pretrained=pocket for the shipped one.")
    named = given
    if isinstance(given["pretrained"], str):
        given = {**given, **located(given["pretrained"], given.get("gguf_file"))}
    if given.get("weights_only", True) is not True:
        raise ApeError(
            f"weights_only={given['weights_only']} would load pickles, which can run any code; drop it, and give a "
            "checkpoint with safetensors or with weights that are tensors alone."
        )
    own = {key: value for key, value in given.items() if key in SETTINGS}
    if (path := given.get("calibration")) is not None:
        if fixed := [key for key in ("attn_temperature", "attn_scale") if key in given]:
            raise ApeError(f"calibration={path} and {fixed[0]}={given[fixed[0]]} both say what T and S are; drop one.")
        own = {**searched_arguments(str(path)), **own}
    settings = _calibrated(resolve(own), named)
    rest = {key: value for key, value in given.items() if key not in (*SETTINGS, "calibration")}
    known = _keywords(HFLM.__init__) | FROM_PRETRAINED | {*SETTINGS, *OWN}
    unknown = [key for key in rest if key not in known]
    if unknown:
        # transformers also takes fields of the configuration, whose names only the checkpoint knows.
        known |= set(_config_fields(rest))
        unknown = [key for key in unknown if key not in known]
    if unknown:
        name = unknown[0]
        raise ApeError(
            f"ape-hf has no argument {name!r}.{nearest(name, known)} Its own arguments are "
            f"{', '.join((*SETTINGS, *OWN))}; every argument of the harness's hf works too."
        )
    return settings, rest


def _calibrated(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """The settings with the T and S of the calibration file that `calibration` names, if any."""
    path = given.get("calibration")
    if path is None:
        return settings
    return settings.with_(**load_choice(str(path), settings, given)._asdict())


def _config_fields(arguments: Mapping[str, Any]) -> list[str]:
    pretrained = arguments.get("pretrained")
    if not isinstance(pretrained, str):
        return []
    keys = ("revision", "trust_remote_code", "subfolder", "gguf_file")
    # Without a word about code of the checkpoint's own, transformers would ask on the terminal.
    options = {"trust_remote_code": False, **{key: arguments[key] for key in keys if arguments.get(key) is not None}}
    with loading_told(pretrained):
        return list(AutoConfig.from_pretrained(pretrained, **options).to_dict())
