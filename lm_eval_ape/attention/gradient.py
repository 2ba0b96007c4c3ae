"""The gradient of attention that also returns its log-sum-exp, whichever kernel computed it.

PyTorch's fused kernels give no gradient through the log-sum-exp, on which the merge of groups rests. With the logits
z = scaling * q.k, the probabilities P = exp(z - L) and the output O = P V, the chain rule through both O and L gives

    dz = P * (dP - delta + dL)    with dP = dO V^T and delta = sum(dO * O)
    dq = scaling * dz K,   dK = scaling * dz^T q,   dV = P^T dO

(FlashAttention, Dao et al., NeurIPS 2022, appendix B, with the term dL beside it). Nothing of the size queries x keys
is kept from the forward pass: P is computed again from L, in blocks of queries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lm_eval_ape.attention.kernels import Call, block_logits, query_blocks
from lm_eval_ape.attention.merge import Attended


def run(kernel: Callable[[Call], Attended], call: Call) -> Attended:
    """Run a kernel so that its output and its log-sum-exp can be differentiated, if anything asks for that."""
    inputs = call.query, call.key, call.value
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)):
        return kernel(call)
    frozen = call._replace(query=call.query.detach(), key=call.key.detach(), value=call.value.detach())
    return Attended(*_Differentiable.apply(*inputs, frozen, kernel))


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (autograd passes these by position)
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, call: Call, kernel: Callable[[Call], Attended]
    ) -> tuple[Tensor, Tensor]:
        out, lse = kernel(call)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.options = call.scaling, call.causal, call.mask, call.softcap
        return out, lse

    @staticmethod
    def backward(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        call = Call(query, key, value, *ctx.options)
        d_query = torch.empty_like(query)
        keys_too = any(ctx.needs_input_grad[1:3])
        d_key, d_value = (torch.zeros_like(x, dtype=lse.dtype) if keys_too else None for x in (key, value))
        batch, kv_heads = key.shape[:2]
        group = query.shape[1] // kv_heads

        def grouped(tensor: Tensor) -> Tensor:
            return tensor.to(lse.dtype).reshape(batch, kv_heads, group, tensor.shape[2], -1)

        keys, values = key.to(lse.dtype).unsqueeze(2), value.to(lse.dtype).unsqueeze(2)
        for rows in query_blocks(call):
            logits = block_logits(call, rows)
            # A query without any key has lse = -inf; its probabilities are 0.
            weights = torch.exp(logits - lse[:, :, rows].nan_to_num(neginf=0.0).unsqueeze(-1))
            d_block, out_block = grouped(d_out[:, :, rows]), grouped(out[:, :, rows])
            delta = (d_block * out_block).sum(-1, keepdim=True) - grouped(d_lse[:, :, rows])
            weights = grouped(weights)
            d_logits = weights * (d_block @ values.transpose(-1, -2) - delta)
            if call.softcap:
                # d/dx of c * tanh(x / c).
                d_logits = d_logits * (1 - (grouped(logits).nan_to_num(neginf=0.0) / call.softcap) ** 2)
            d_logits = d_logits * call.scaling
            d_query[:, :, rows] = (d_logits @ keys).reshape(batch, -1, *d_block.shape[3:4], key.shape[-1]).to(query)
            if d_key is not None and d_value is not None:
                d_key += (d_logits.transpose(-1, -2) @ grouped(query[:, :, rows])).sum(2)
                d_value += (weights.transpose(-1, -2) @ d_block).sum(2)
        if d_key is None or d_value is None:
            return d_query, None, None, None, None
        return d_query, d_key.to(key), d_value.to(value), None, None
