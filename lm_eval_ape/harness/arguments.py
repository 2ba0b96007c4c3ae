"""The model's arguments: which are ours, which the harness's and transformers', and which do not exist."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lm_eval.models.huggingface import HFLM
from transformers import AutoConfig

from lm_eval_ape.artefacts.calibration_file import load_choice
from lm_eval_ape.errors import ApeError, nearest
from lm_eval_ape.pocket import POCKET, pocket_path
from lm_eval_ape.settings.strategy import SETTINGS, Settings, resolve
from lm_eval_ape.storage.loading import loading_told

# Arguments of ours that say nothing about how a prompt is read.
OWN = ("request_log", "calibration", "kv_cache_bytes", "kv_cache_dir", "kv_cache_dir_bytes")
# Those of them that change no number, only what is kept.
IDLE = ("request_log", "kv_cache_bytes", "kv_cache_dir", "kv_cache_dir_bytes")

# What transformers' `from_pretrained` takes beside fields of the model's configuration.
FROM_PRETRAINED = frozenset(
    """
    adapter_kwargs adapter_name allow_all_kernels attn_implementation bnb_4bit_compute_dtype bnb_4bit_quant_storage
    bnb_4bit_quant_type bnb_4bit_use_double_quant cache_dir code_revision commit_hash device_map device_mesh
    disable_mmap distributed_config dtype experts_implementation force_download from_auto fusion_config
    generation_config ignore_mismatched_sizes key_mapping kernel_config llm_int8_enable_fp32_cpu_offload
    llm_int8_has_fp16_weight llm_int8_skip_modules llm_int8_threshold load_in_4bit load_in_8bit local_files_only
    low_cpu_mem_usage max_memory mirror offload_buffers offload_folder offload_state_dict output_loading_info
    proxies quantization_config state_dict subfolder token torch_dtype tp_plan tp_size use_auth_token use_kernels
    use_safetensors variant weights_only
    """.split()
)


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
    if given["pretrained"] == POCKET:
        given = {**given, "pretrained": str(pocket_path())}
    if given.get("weights_only", True) is not True:
        raise ApeError(
            f"weights_only={given['weights_only']} would load pickles, which can run any code; drop it, and give a "
            "checkpoint with safetensors or with weights that are tensors alone."
        )
    settings = _calibrated(resolve({key: value for key, value in given.items() if key in SETTINGS}), given)
    rest = {key: value for key, value in given.items() if key not in (*SETTINGS, "calibration")}
    hflm = set(inspect.signature(HFLM.__init__).parameters) - {"self", "kwargs"}
    known = hflm | FROM_PRETRAINED | set(SETTINGS) | set(OWN)
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
    if fixed := [key for key in ("attn_temperature", "attn_scale") if key in given]:
        raise ApeError(f"calibration={path} and {fixed[0]}={given[fixed[0]]} both say what T and S are; drop one.")
    return replace(settings, **load_choice(str(path), settings, given)._asdict())


def _config_fields(arguments: Mapping[str, Any]) -> list[str]:
    pretrained = arguments.get("pretrained")
    if not isinstance(pretrained, str):
        return []
    keys = ("revision", "trust_remote_code", "subfolder", "gguf_file")
    # Without a word about code of the checkpoint's own, transformers would ask on the terminal.
    options = {"trust_remote_code": False, **{key: arguments[key] for key in keys if arguments.get(key) is not None}}
    with loading_told(pretrained):
        return list(AutoConfig.from_pretrained(pretrained, **options).to_dict())
