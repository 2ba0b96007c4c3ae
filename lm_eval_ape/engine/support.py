"""Which models can encode in parallel, checked before a request is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from lm_eval_ape.attention.cache_argument import cache_argument
from lm_eval_ape.encoding.rotation import rotation_of
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.errors import ApeError
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.layers import read_layers
from lm_eval_ape.settings.strategy import Settings

# Layers that keep one state for all the past: chunks encoded apart cannot be put together in it.
_ATTENTION_LAYERS = {"full_attention", "sliding_attention"}
_CHANGING_ROPES = ("dynamic", "longrope")
# Largest mean KL divergence of the probe, in nats, that rounding explains. Eager models take their softmax in float32
# whatever their dtype, and in half precision a mixture of experts may route a token otherwise.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
_HALF_TOLERANCE = 0.1


def check(model: PreTrainedModel, settings: Settings) -> None:
    """Refuse a model that parallel encoding cannot serve.

    Names what is known to fail, then proves the rest on the model itself: a few tokens, read as prefix, one chunk and
    query at T=S=1, must generate from the same distributions as the same tokens in one sequence; and so must they in
    two chunks of which all is recomputed, where the settings recompute. A model without weights (device `meta`) proves
    nothing.

    Raises:
        ApeError: With the reason.
    """
    if not settings.parallel:
        return
    name = type(model).__name__
    config = model.config.get_text_config()
    if reason := next(_reasons(model, config, settings), None):
        raise ApeError(f"{name} cannot run with strategy={settings.strategy}: {reason}.")
    _check_factors(config, settings)
    read_layers(settings.recompute_layers)(config.num_hidden_layers)
    if model.device.type == "meta":
        return
    if settings.positions == "serial":
        rotation_of(model)
    tolerance = _TOLERANCE.get(model.dtype, _HALF_TOLERANCE)
    for chunks, what in ((1, "one chunk"), (2, "two chunks that are all recomputed"))[: 2 if settings.recompute else 1]:
        divergence = _probe(model, config, settings, chunks)
        if not divergence <= tolerance:
            raise ApeError(
                f"{name} cannot run with strategy={settings.strategy}: with {what} and T=S=1 its next-token "
                f"distributions should be the sequential ones, but their KL divergence is {divergence:.2g} nats "
                f"({tolerance:g} would be rounding in {model.dtype}).{_advice(model, config)}"
            )


def _advice(model: PreTrainedModel, config: PreTrainedConfig) -> str:
    """What to try where the sequential pass itself may be the one that leaves something out."""
    own = model.config._attn_implementation
    if not getattr(config, "attn_logit_softcapping", None) or own == "eager":
        return ""
    return (
        f" Its attention has a softcap, which transformers' {own} may leave out: try attn_implementation=eager, also "
        "for the sequential model."
    )


def _check_factors(config: PreTrainedConfig, settings: Settings) -> None:
    """Refuse tables of T and S for another number of layers or heads."""
    if settings.factors is None:
        return
    own = config.num_hidden_layers, config.num_attention_heads
    if any(given not in (1, wanted) for given, wanted in zip(settings.factors.shape, own, strict=True)):
        raise ApeError(
            f"The calibration has T and S for {settings.factors.shape[0]} layers of {settings.factors.shape[1]} heads, "
            f"but the model has {own[0]} of {own[1]}; calibrate this model."
        )


def window(config: PreTrainedConfig, max_length: int, settings: Settings) -> int:
    """Positions that one request may use.

    Some models change their rotary frequencies when a sequence grows past the length they were first trained on (rope
    types `dynamic` and `longrope`). Pieces encoded before and after that change do not go together, so parallel
    strategies stay below it: chunks that would cross it are cut again.

    Args:
        config: The text model's configuration.
        max_length: The model's whole window, in tokens.
        settings: Whether the strategy is parallel.
    """
    changes = [rope for rope in _ropes(config) if rope.get("rope_type") in _CHANGING_ROPES]
    if not settings.parallel or not changes:
        return max_length
    trained = changes[0].get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", config.max_position_embeddings
    )
    return min(max_length, int(trained))


def _ropes(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """The rotary settings: one for all layers, or one for each type of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    return [rope for rope in parameters.values() if isinstance(rope, dict)] or [parameters]


def _reasons(model: PreTrainedModel, config: PreTrainedConfig, settings: Settings) -> Iterator[str]:
    """What is known to fail, before anything is tried."""
    if model.config.is_encoder_decoder:
        yield "it is an encoder-decoder; parallel encoding needs a decoder-only model"
    if not any("rotary" in type(module).__name__.lower() for module in model.modules()):
        yield "it has no rotary position embeddings (RoPE), on which the chunks' shared positions rest"
    if getattr(config, "alibi", False):
        yield "it uses ALiBi instead of rotary position embeddings (RoPE)"
    if config.num_hidden_layers < 1:
        yield f"its config.json gives it {config.num_hidden_layers} layers"
    layers = set(getattr(config, "layer_types", None) or [])
    if other := sorted(layers - _ATTENTION_LAYERS):
        yield f"it has {', '.join(other)} layers, whose state cannot be put together from chunks"
    if settings.positions == "serial" and any(rope.get("rope_type") in _CHANGING_ROPES for rope in _ropes(config)):
        yield "its rotary frequencies change with the length of a sequence, so positions=serial has no meaning for it"
    windowed = "sliding_attention" in layers or (not layers and getattr(config, "sliding_window", None))
    if windowed and settings.positions == "stretched":
        yield (
            f"positions=stretched does not go with its sliding window of {config.sliding_window} tokens: chunks are "
            "encoded with a window over tokens and read with one over positions, and the two do not agree"
        )


@torch.no_grad()
def _probe(model: PreTrainedModel, config: PreTrainedConfig, settings: Settings, chunks: int) -> float:
    """Mean KL divergence, in nats, of generating two tokens after chunks at T=S=1 from the ordinary forward pass."""
    ids = torch.arange(1, 13).remainder(config.vocab_size).tolist()
    context = (tuple(ids[3:8]),) if chunks == 1 else (tuple(ids[3:5]), tuple(ids[5:8]))
    prompt = Prompt(tuple(ids[:3]), context, tuple(ids[8:]))
    plain = settings.with_(factors=None, top_chunks=None, attn_temperature=1.0, attn_scale=1.0)
    plain = plain.with_(recompute=1.0 if settings.recompute else 0.0)
    engine = Engine(model, plain)
    device = engine.device
    encoded = engine.encode(prompt)
    with engine.tail(encoded) as tail:
        generated = model.generate(
            input_ids=torch.tensor([prompt.query], device=device),
            attention_mask=torch.ones(1, len(prompt.query), dtype=torch.long, device=device),
            position_ids=torch.arange(encoded.start, encoded.start + len(prompt.query), device=device)[None],
            **cache_argument(None, tail.cache),
            max_new_tokens=2,
            min_new_tokens=2,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    got = torch.cat(generated.logits).double().log_softmax(-1)
    ids.append(int(generated.sequences[0, len(prompt.query)]))
    logits = model(torch.tensor([ids], device=device), use_cache=False).logits[0, -2:]
    expected = logits.double().log_softmax(-1)
    return float((expected.exp() * (expected - got)).sum(-1).mean())
