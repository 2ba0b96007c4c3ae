"""The memory that a run needs at most, counted from the model's shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedConfig, PreTrainedModel

from lm_eval_ape.forecast.parts import Held, Part

_FLOAT32 = 4


class Memory(NamedTuple):
    """Bytes, counted.

    Attributes:
        weights: Of all parameters and buffers.
        kv: Of the most keys and values that are held at once.
        peak: Of the weights and, where that is most, keys and values, a pass's activations and its distributions.
    """

    weights: int
    kv: int
    peak: int


def count_memory(model: PreTrainedModel, parts: Sequence[Part]) -> Memory:
    """What the parts of a run need, of which only one is done at a time.

    Args:
        model: The model, whose weights need not be there.
        parts: The parts.
    """
    weights = sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))
    held = [part.held(item) for part in parts for item in part.items]
    kv = max((one.keys for one in held), default=0) * _token_bytes(model)
    working = max((_working(model, one) for one in held), default=0.0)
    return Memory(int(weights), int(kv), int(weights + working))


def _working(model: PreTrainedModel, held: Held) -> float:
    """Bytes beside the weights: keys and values, and a pass's activations or, after it, its distributions."""
    vocabulary = model.config.get_text_config().vocab_size
    distributions = vocabulary * (held.logits * model.dtype.itemsize + held.distributions * _FLOAT32)
    return held.keys * _token_bytes(model) + max(held.passed * _activation_bytes(model), distributions)


def _token_bytes(model: PreTrainedModel) -> int:
    """Bytes of a token's keys and values in all layers."""
    config = model.config.get_text_config()
    return 2 * int(config.num_hidden_layers) * _key_dimensions(model) * model.dtype.itemsize


def _key_dimensions(model: PreTrainedModel) -> int:
    """Key heads times the dimensions of a head."""
    config = model.config.get_text_config()
    return (getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * _head_dimensions(config)


def _head_dimensions(config: PreTrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _activation_bytes(model: PreTrainedModel) -> float:
    """Bytes of a token's activations, where they are most.

    In a feed-forward layer: the residual stream, its norm, both projections, their product and the result; in
    attention: queries, keys and values before and after their rotation, and the result.
    """
    config = model.config.get_text_config()
    queries = config.num_attention_heads * _head_dimensions(config)
    wide = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None)
    experts = getattr(config, "num_experts_per_tok", None) or 1
    forward = 3 * config.hidden_size + 3 * experts * (wide or 4 * config.hidden_size)
    attention = 3 * config.hidden_size + 3 * queries + 4 * _key_dimensions(model)
    return float(max(forward, attention) * model.dtype.itemsize)
