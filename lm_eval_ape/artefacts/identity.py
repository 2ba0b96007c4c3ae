"""What tells one model, and one way of encoding, from another."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from transformers import PreTrainedModel

from lm_eval_ape import __version__
from lm_eval_ape.artefacts.calibration_file import read
from lm_eval_ape.artefacts.model_digest import code_versions, full_digest
from lm_eval_ape.calibration.target.objective import Objective
from lm_eval_ape.encoding.encode import input_device
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.pocket import model_name
from lm_eval_ape.settings.strategy import SETTINGS, Settings

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
        path: The calibration file, which `artefact.load_choice` has accepted, or its folder.
        model: The model, loaded. In another precision than the file's its weights cannot be compared.

    Raises:
        ApeError: They are other weights.
    """
    there = read(path)["model"]
    if there["dtype"] == str(model.dtype) and there["weights_sha256"] != weights_digest(model):
        raise ApeError(
            f"The calibration in {path} was made for other weights than {there['pretrained']} has now; calibrate again."
        )


def model_facts(lm: ApeHFLM) -> dict[str, Any]:
    """The model as a calibration file names it."""
    return {
        "pretrained": model_name(str(getattr(lm.pretrained, "name_or_path", lm.pretrained))),
        "revision": str(lm.revision),
        "commit": getattr(lm.model.config, "_commit_hash", None),
        "peft": lm.peft,
        "delta": lm.delta,
        "dtype": str(lm.model.dtype),
        "parameters": lm.model.num_parameters(),
        "weights_sha256": weights_digest(lm.model),
    }


def versions() -> dict[str, str]:
    """Versions of what computed the numbers."""
    packages = {name: version(name) for name in ("lm_eval", "torch", "transformers", "numpy", "scipy")}
    return {"lm_eval_ape": __version__, "python": platform.python_version(), **packages}


def device_name(lm: ApeHFLM) -> str:
    """The device in words."""
    device = input_device(lm.model)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def model_key(lm: ApeHFLM) -> str:
    """All that the model's logits depend on beside its input: its last weight, its precision, and what computes it."""
    implementation, device = lm.model.config._attn_implementation, input_device(lm.model).type
    return f"{full_digest(lm.model)} {lm.mixed_precision_dtype} {implementation} {device} {code_versions()}"


def score_key(model: str, settings: Settings, objective: Objective, ends: Sequence[int], sample: Sample) -> str:
    """Digest of all that a sample's KL depends on beside (T, S).

    Args:
        model: What `model_key` gave.
        settings: How the sample is encoded and read.
        objective: What is measured.
        ends: Tokens that end a sequence.
        sample: The sample.
    """
    return digest(
        [
            model,
            list(ends),
            read_settings(settings),
            asdict(objective),
            [sample.prompt.prefix, sample.prompt.chunks, sample.prompt.query],
        ]
    )


def read_settings(settings: Settings) -> dict[str, Any]:
    """What the reading of a prompt depends on once it is cut, beside (T, S)."""
    return {name: getattr(settings, name) for name in SETTINGS if name not in _BEFORE_ENCODING}


def fit_key(
    model: str,
    settings: Settings,
    objective: Objective,
    ends: Sequence[int],
    samples: Sequence[Sample],
    *,
    plan: Sequence[Any],
) -> str:
    """Digest of all that a fit of T and S depends on."""
    return digest([[score_key(model, settings, objective, ends, sample) for sample in samples], list(plan)])


def label_key(
    model: str, settings: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]
) -> str:
    """Digest of all that a harness score depends on beside (T, S)."""
    return digest([model, dict(settings), list(tasks), dict(asked)])


def digest(content: Any) -> str:
    """Digest of content of JSON types."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
