"""Encoded contexts kept between the steps of a fit, as far as memory is granted."""

from __future__ import annotations

import torch

from lm_eval_ape.attention.segments import EncodedPrompt
from lm_eval_ape.engine.served_model import ServedModel
from lm_eval_ape.prompts.prompt import Prompt

GIB = 2**30


class Contexts:
    """Encodes contexts and keeps the first ones that fit; the others are encoded again whenever they are asked for.

    Args:
        lm: The model.
        limit: Bytes of keys and values to keep; None for half of the GPU's free memory, and for all of them on the CPU.
    """

    def __init__(self, lm: ServedModel, limit: int | None) -> None:
        self.lm = lm
        device = lm.engine.device
        if limit is None and device.type == "cuda":
            limit = torch.cuda.mem_get_info(device)[0] // 2
        self.limit = limit
        self.kept: dict[int, EncodedPrompt] = {}
        self.bytes = 0

    def get(self, number: int, prompt: Prompt) -> EncodedPrompt:
        """The encoded context of a sample, given its number."""
        if number in self.kept:
            return self.kept[number]
        encoded = self.lm.engine.encode(prompt)
        size = sum(
            tensor.nbytes
            for segment in encoded.segments
            for layers in (segment.keys, segment.values)
            for tensor in layers
        )
        if self.limit is None or self.bytes + size <= self.limit:
            self.kept[number] = encoded
            self.bytes += size
        return encoded
