"""What a piece's keys and values depend on beside its tokens: the model, whole."""

from __future__ import annotations

import json

import torch
import xxhash
from torch import Tensor
from transformers import PreTrainedModel

from lm_eval_ape.errors import ApeError

# Fields of a configuration that say where a model comes from or how it is run, not what it computes.
_IDLE = frozenset(
    {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache", "output_attentions"}
    | {"output_hidden_states", "return_dict", "problem_type", "id2label", "label2id"}
)
# Weights are copied to the CPU in parts of this many bytes.
_PART = 2**28


@torch.no_grad()
def full_digest(model: PreTrainedModel) -> str:
    """Digest of every byte of a model's weights and buffers, and of its configuration.

    A sample of the weights tells two trainings apart, but not a file on disk from one of the same weights with a
    layer edited; reading all of them takes as long as copying them once.

    Raises:
        ApeError: Some weights are offloaded, so that they cannot be read here.
    """
    config = {name: value for name, value in model.config.to_dict().items() if name not in _IDLE}
    digest = xxhash.xxh3_128(json.dumps(config, sort_keys=True, default=str).encode())
    # An adapter's scaling stands in its configuration alone.
    digest.update(str(getattr(model, "peft_config", "")).encode())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device.type == "meta":
            raise ApeError(
                f"kv_cache_dir must know the model by its weights, but {name} is offloaded and cannot be read; drop "
                "kv_cache_dir (kv_cache_bytes needs no weights) or load the model without offloading."
            )
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        _update(digest, tensor)
    return digest.hexdigest()


def _update(digest: xxhash.xxh3_128, tensor: Tensor) -> None:
    flat = tensor.detach().reshape(-1)
    step = max(1, _PART // max(1, flat.element_size()))
    for first in range(0, flat.numel(), step):
        digest.update(flat[first : first + step].contiguous().view(torch.uint8).cpu().numpy().data)


def layer_devices(model: PreTrainedModel, default: torch.device) -> list[torch.device]:
    """The device of each layer's keys and values; layers of a model may lie on several."""
    count = model.config.get_text_config().num_hidden_layers
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) <= 1:
        return [default] * count
    devices = []
    for layer in model.get_decoder().layers:
        hook = getattr(layer, "_hf_hook", None)
        device = getattr(hook, "execution_device", None)
        devices.append(torch.device(device) if device is not None else next(layer.parameters()).device)
    return devices
