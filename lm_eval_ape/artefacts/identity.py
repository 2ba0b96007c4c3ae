"""What tells one model, and one way of encoding, from another."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from typing import Any

import torch
from transformers import PreTrainedModel

from lm_eval_ape.artefacts.calibration_file import read
from lm_eval_ape.errors import ApeError
from lm_eval_ape.settings.strategy import SETTINGS, Settings
from lm_eval_ape.version import __version__

# Values read of each weight tensor for a calibration's record: enough to tell any two trainings apart, few enough to
# cost nothing. What is kept from run to run is known by `model_digest.full_digest`.
_VALUES = 64


# Settings that a sample's KL does not depend on once its prompt is cut: (T, S), names, and how it was cut.
_BEFORE_ENCODING = frozenset(
    """
    strategy attn_temperature attn_scale no_context chunking chunk_tokens max_chunks chunks retriever
    preset separator prefix context_field
    """.split()
)


@torch.no_grad()
def weights_digest(model: PreTrainedModel) -> str:
    """Digest of a model's weights, from their names, shapes, precision and some evenly spaced values."""
    digest = hashlib.sha256(str(model.config.to_dict().get("model_type")).encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        if weight.device.type != "meta" and weight.numel():
            flat = weight.detach().reshape(-1)
            digest.update(flat[:: max(1, flat.numel() // _VALUES)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def check_weights(path: str, model: PreTrainedModel) -> None:
    """Refuse a calibration of weights that have changed since under the same name.

    Args:
        path: The calibration file, which `calibration_file.load_choice` has accepted, or its folder.
        model: The model, loaded. In another precision than the file's its weights cannot be compared.

    Raises:
        ApeError: They are other weights.
    """
    there = read(path).model
    if there.dtype == str(model.dtype) and there.weights_sha256 != weights_digest(model):
        raise ApeError(
            f"The calibration in {path} was made for other weights than {there.pretrained} has now; calibrate again."
        )


def versions() -> dict[str, str]:
    """Versions of what computed the numbers."""
    packages = {name: version(name) for name in ("lm_eval", "torch", "transformers", "numpy", "scipy")}
    return {"lm_eval_ape": __version__, "python": platform.python_version(), **packages}


def read_settings(settings: Settings) -> dict[str, Any]:
    """What the reading of a prompt depends on once it is cut, beside (T, S)."""
    return {name: getattr(settings, name) for name in SETTINGS if name not in _BEFORE_ENCODING}


def digest(content: Any) -> str:
    """Digest of content of JSON types."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
