"""Where a model's input goes, where each layer's keys and values belong, and whether a pass may end early."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


def input_device(model: PreTrainedModel) -> torch.device:
    """Where token ids must go: offloaded weights lie nowhere, but their hook knows where they are computed."""
    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return model.device if device is None else torch.device(device)


def ends_early(model: PreTrainedModel) -> bool:
    """Whether a forward pass may be left by an exception: accelerate's hooks put weights away at a module's end."""
    return not any(hasattr(module, "_hf_hook") for module in model.modules())


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
