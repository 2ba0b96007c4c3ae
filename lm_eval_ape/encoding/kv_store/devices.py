"""Where a piece's keys and values belong: the device of each layer."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


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
