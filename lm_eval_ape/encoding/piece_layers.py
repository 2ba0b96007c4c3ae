"""A piece's keys and values, layer by layer, as an encoding leaves them and a store keeps them."""

from __future__ import annotations

import torch
from torch import Tensor

# Keys and values of each layer, `(1, kv_heads, tokens, head_dim)`.
Layers = list[tuple[Tensor, Tensor]]


def size(layers: Layers) -> int:
    """Bytes of a piece's keys and values."""
    return sum(tensor.nbytes for pair in layers for tensor in pair)


def alone(tensor: Tensor) -> Tensor:
    """The tensor, contiguous in memory that nothing else lies in; itself if it lies there already.

    A slice of a batch would keep the whole batch alive.
    """
    is_alone = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if is_alone else tensor.clone(memory_format=torch.contiguous_format)
