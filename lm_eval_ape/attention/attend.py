"""Attention that also returns its log-sum-exp, on the best kernel that the machine has.

Takes what transformers hands to an attention function: `(batch, heads, query, head_dim)` queries and
`(batch, kv_heads, keys, head_dim)` keys and values, heads a multiple of kv_heads (grouped-query attention).
"""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from lm_eval_ape.attention import gradient
from lm_eval_ape.attention.kernels import BACKENDS, LADDER, Call, Rung
from lm_eval_ape.attention.merge import Attended
from lm_eval_ape.errors import ApeError


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float,
    causal: bool = False,
    mask: Tensor | None = None,
    softcap: float | None = None,
    backend: str = "auto",
    used: Counter[str] | None = None,
) -> Attended:
    """Attend to one group of keys and return the output with its log-sum-exp.

    Several batch rows may read the same keys: with `rows = batch of query // batch of key`, query row `i` reads key
    row `i // rows`. Such rows, and the heads that share a key head, are folded into the query dimension, so shared
    keys are read once and never repeated.

    Args:
        query: `(batch, heads, query, head_dim)`.
        key: `(batch / rows, kv_heads, keys, head_dim)`, at least one key.
        value: `(batch / rows, kv_heads, keys, value_dim)`.
        scaling: Factor of the logits (the model's own, divided by the temperature where there is one).
        causal: Whether query i attends only to keys 0..i; needs as many queries as keys.
        mask: Boolean `(batch or 1, 1, query, keys)`, True where a query may attend.
        softcap: The model's cap on logits, applied as `softcap * tanh(scaling * q.k / softcap)`.
        backend: `auto`, or the name of one rung of the ladder.
        used: Counts, by name, the rungs that served.

    Returns:
        Output in the query's dtype and log-sum-exp in float32 (float64 for float64 queries).

    Raises:
        ApeError: `backend` names no rung, or one that cannot serve this call.
    """
    batch, heads, length, _ = query.shape
    rows = batch // key.shape[0]
    fold = rows > 1 or (mask is None and not causal)
    if fold:
        if mask is not None:
            mask = fold_rows(mask.expand(batch, heads, length, -1), key, rows)
        query = fold_rows(query, key, rows)
    call = Call(query, key, value, scaling, causal, mask, softcap)
    rung = _choose(call, backend)
    if used is not None:
        used[rung.name] += 1
    attended = gradient.run(rung.run, call)
    if fold:
        out = unfold_rows(attended.out, rows, heads, length)
        attended = Attended(out, unfold_rows(attended.lse.unsqueeze(-1), rows, heads, length).squeeze(-1))
    return attended


def fold_rows(tensor: Tensor, key: Tensor, rows: int) -> Tensor:
    """`(groups * rows, kv_heads * rep, query, x)` to `(groups, kv_heads, rows * rep * query, x)`."""
    groups, kv_heads = key.shape[:2]
    if rows == 1:
        return tensor.reshape(groups, kv_heads, -1, tensor.shape[-1])
    split = tensor.reshape(groups, rows, kv_heads, -1, *tensor.shape[2:])
    return split.transpose(1, 2).reshape(groups, kv_heads, -1, tensor.shape[-1])


def unfold_rows(tensor: Tensor, rows: int, heads: int, length: int) -> Tensor:
    """The inverse of `fold_rows`: back to `(groups * rows, heads, query, x)`."""
    groups, kv_heads, _, width = tensor.shape
    if rows == 1:
        return tensor.reshape(groups, heads, length, width)
    split = tensor.reshape(groups, kv_heads, rows, heads // kv_heads, length, width)
    return split.transpose(1, 2).reshape(groups * rows, heads, length, width)


def _choose(call: Call, backend: str) -> Rung:
    if backend == "auto":
        return next(rung for rung in LADDER if rung.refuses(call) is None)
    for rung in LADDER:
        if rung.name == backend:
            if reason := rung.refuses(call):
                raise ApeError(
                    f"attn_backend={backend} cannot serve this model on this machine: {reason}. "
                    "Use attn_backend=auto, which takes the best kernel that can."
                )
            return rung
    raise ApeError(f"attn_backend must be 'auto' or one of {', '.join(BACKENDS)}, but got {backend!r}.")
