"""What teacher and students share: the check of their logits, and what ends a sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lm_eval_ape.engine.non_finite import NotFiniteError
from lm_eval_ape.engine.served_model import ServedModel


def end_tokens(lm: ServedModel) -> tuple[int, ...]:
    """Ids of the tokens at which the model's own generation ends, and the tokenizer's end of text."""
    configured = getattr(lm.engine.model.generation_config, "eos_token_id", None)
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
