"""Layers that choose chunks together (`select_over=LHT`): every forward pass is made twice.

The first one reads all chunks and gathers the scores of all layers, the second one reads the chunks that these choose.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lm_eval_ape.attention.segments import SegmentedCache, SegmentedLayer
from lm_eval_ape.attention.selection import Choice, aggregate, winners


def choose_over_layers(decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Choose chunks with the scores of all layers before a forward pass (a pre-hook of the decoder).

    Does nothing unless the pass chooses among chunks with `select_over=LHT`, or if an earlier one has chosen for all.
    """
    cache = next((value for value in (*args, *kwargs.values()) if isinstance(value, SegmentedCache)), None)
    selection = None if cache is None else cache.reading.selection
    if cache is None or selection is None or selection.over != "LHT":
        return
    layers = [layer for layer in cache.layers if isinstance(layer, SegmentedLayer)]
    segments = [segment for encoded in cache.reading.encoded_prompts for segment in encoded.segments]
    if not any(segment.role == "context" and cache.reading.selects(segment) for segment in segments):
        return
    if layers[0].chosen and not selection.reselect:
        return
    before = [(layer.keys, layer.values, layer.is_initialized) for layer in layers]
    for layer in layers:
        layer.surveyed = {}
    try:
        # Not a call of the module, which would come back here.
        decoder.forward(*args, **kwargs)
        scores = [layer.surveyed or {} for layer in layers]
    finally:
        for layer, (keys, values, initialized) in zip(layers, before, strict=True):
            layer.keys, layer.values, layer.is_initialized = keys, values, initialized
            layer.surveyed = None
    for number in {number for own in scores for number in own}:
        # A layer whose window hides the context has no say.
        heard = [own[number] for own in scores if number in own]
        stacked = torch.stack([score.to(heard[0].device) for score in heard], dim=1)
        kept = winners(aggregate(stacked, selection.over), selection.top_chunks)
        # One a device, so that layers share what the choice finds out about itself.
        devices = {own[number].device for own in scores if number in own}
        choices = {device: Choice(kept.to(device)) for device in devices}
        for layer, own in zip(layers, scores, strict=True):
            if number in own:
                layer.chosen[number] = choices[own[number].device]
