"""By which name a model's forward pass and `generate` take a cache: transformers 5.24 has renamed it."""

from __future__ import annotations

import inspect
from functools import cache as remembered
from typing import Any

from torch import nn
from transformers import Cache, GenerationMixin


def cache_argument(network: nn.Module | None, cache: Cache) -> dict[str, Any]:
    """A cache as a keyword argument.

    Args:
        network: Whose forward pass gets it; None for `generate`.
        cache: The cache.

    Returns:
        `cache=...`, or `past_key_values=...` for older releases of transformers, and for a model that names it so.
    """
    kind: Any = None if network is None else type(network)
    return {_name(kind): cache}


@remembered
def _name(kind: Any) -> str:
    if kind is not None and "past_key_values" in inspect.signature(kind.forward).parameters:
        return "past_key_values"
    named = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
    return "cache" if "cache" in named else "past_key_values"
