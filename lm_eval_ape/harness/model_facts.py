"""What the files of a run say of a loaded model, and what distinguishes it from every other one."""

from __future__ import annotations

import platform
from typing import Any

import torch

from lm_eval_ape.artefacts.identity import weights_digest
from lm_eval_ape.artefacts.model_digest import code_versions, full_digest
from lm_eval_ape.checkpoints.names import model_name
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.harness.harness_model import HarnessModel


def model_facts(lm: HarnessModel) -> dict[str, Any]:
    """The model as a calibration file names it."""
    return {
        "pretrained": model_name(str(getattr(lm.pretrained, "name_or_path", lm.pretrained)), lm.gguf_file),
        "revision": str(lm.revision),
        "commit": getattr(lm.model.config, "_commit_hash", None),
        "peft": lm.peft,
        "delta": lm.delta,
        "dtype": str(lm.model.dtype),
        "parameters": lm.model.num_parameters(),
        "weights_sha256": weights_digest(lm.model),
    }


def device_name(lm: HarnessModel) -> str:
    """The device in words."""
    device = lm.engine.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def model_key(engine: Engine) -> str:
    """All that the model's logits depend on beside its input: its last weight, its precision, and what computes it."""
    implementation, device = engine.model.config._attn_implementation, engine.device.type
    return f"{full_digest(engine.model)} {engine.autocast_dtype} {implementation} {device} {code_versions()}"
