"""What teacher and students share: a forward pass, the check of its logits, and what ends a sequence."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache

from lm_eval_ape.engine.non_finite import NotFiniteError
from lm_eval_ape.engine.served_model import ServedModel


@torch.no_grad()
def last_logits(lm: ServedModel, ids: Tensor, start: int, cache: Cache, keep: int) -> Tensor:
    """`differentiable_logits` without a gradient."""
    return differentiable_logits(lm, ids, start, cache, keep)


def differentiable_logits(lm: ServedModel, ids: Tensor, start: int, cache: Cache, keep: int) -> Tensor:
    """Append tokens to the cache and return the logits of the last ones.

    Args:
        lm: The model.
        ids: `(rows, tokens)`.
        start: Position of the first token.
        cache: What was read before; it grows by these tokens.
        keep: For how many of the last tokens logits are wanted.

    Returns:
        `(rows, keep, vocabulary)`.
    """
    positions = torch.arange(start, start + ids.shape[1], device=ids.device).expand_as(ids)
    # Logits of a whole long prompt would need more memory than its keys and values.
    limited = "logits_to_keep" in inspect.signature(lm.model.forward).parameters
    options = {"logits_to_keep": keep} if limited else {}
    with lm.autocast():
        output = lm.model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, **options)
    # With layers on several devices the logits come from the last one.
    return output.logits[:, -keep:].to(ids.device)


def end_tokens(lm: ServedModel) -> tuple[int, ...]:
    """Ids of the tokens at which the model's own generation ends, and the tokenizer's end of text."""
    configured = getattr(lm.model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, (list, tuple)) else [configured]
    return tuple(sorted({int(token) for token in (*ids, lm.tokenizer.eos_token_id) if token is not None}))


def check_finite(logits: Tensor, who: Sequence[str], first: int, sample: str) -> None:
    """Refuse logits that no distribution can be made of.

    Args:
        logits: `(rows, tokens, vocabulary)`.
        who: What each row stands for, such as a grid point.
        first: Number of the first of these new tokens, from 1.
        sample: Where the prompt comes from.

    Raises:
        NotFiniteError: With the sample, the row and the token.
    """
    finite = torch.isfinite(logits).all(-1)
    if finite.all():
        return
    row, token = (~finite).nonzero()[0].tolist()
    raise NotFiniteError(f"{sample}: the logits of {who[row]} for new token {first + token} are", logits.dtype)
