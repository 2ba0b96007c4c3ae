"""The kernels: attention with log-sum-exp in the forms that PyTorch and flash-attn offer it, best first.

Each rung of the ladder says in a sentence why it cannot serve a call; the last one serves every call. `attend` chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from lm_eval_ape.attention.merge import Attended

# Eager logits of one block of queries stay below this many elements (256 MiB in float32).
EAGER_BLOCK_ELEMENTS = 2**26
# More keys than a vector of any processor holds.
FEW_KEYS = 32


class Call(NamedTuple):
    """One attention call as the kernels see it.

    Attributes:
        query: `(batch, heads, query, head_dim)`.
        key: `(batch, kv_heads, keys, head_dim)`.
        value: `(batch, kv_heads, keys, head_dim)`.
        scaling: Factor of the logits.
        causal: Query i attends to keys 0..i; as many queries as keys.
        mask: Boolean, True where a query may attend, `(batch or 1, 1, query, keys)`; where there is one query head a
            key head, `(batch, heads, query, keys)` too.
        softcap: Cap c of `c * tanh(logit / c)`, or None.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    causal: bool
    mask: Tensor | None
    softcap: float | None


class Rung(NamedTuple):
    """A kernel of the ladder: `refuses` gives the reason why it cannot serve a call, or None."""

    name: str
    refuses: Callable[[Call], str | None]
    run: Callable[[Call], Attended]


def _same_width(call: Call) -> str | None:
    if call.key.shape[-1] != call.value.shape[-1]:
        return f"keys have {call.key.shape[-1]} dimensions a head and values {call.value.shape[-1]}"
    return None


def _needs_cuda_half(call: Call, max_head_dim: int = 256) -> str | None:
    if call.query.device.type != "cuda":
        return f"it needs a CUDA device and the model is on {call.query.device.type}"
    if call.query.dtype not in (torch.float16, torch.bfloat16):
        return f"it needs float16 or bfloat16 and got {call.query.dtype}"
    if call.mask is not None:
        return "it takes no mask (a padded batch or a sliding window)"
    if call.query.shape[-1] > max_head_dim or call.query.shape[-1] % 8:
        return f"it needs a head dimension of at most {max_head_dim} in steps of 8 and got {call.query.shape[-1]}"
    return _same_width(call)


def _import_flash_attn() -> Callable[..., tuple[Tensor, Tensor, Tensor]] | None:
    try:
        from flash_attn import flash_attn_func
    except ImportError:
        return None
    return flash_attn_func


def _flash_attn_refuses(call: Call) -> str | None:
    if reason := _needs_cuda_half(call):
        return reason
    return None if _import_flash_attn() else "the package flash-attn is not installed (pip install lm-eval-ape[flash])"


def _flash_attn(call: Call) -> Attended:
    """flash-attn: `(batch, tokens, heads, head_dim)`, bottom-right causal, which is top-left for as many keys."""
    function = _import_flash_attn()
    assert function is not None
    out, lse, _ = function(
        call.query.transpose(1, 2),
        call.key.transpose(1, 2),
        call.value.transpose(1, 2),
        softmax_scale=call.scaling,
        causal=call.causal,
        softcap=call.softcap or 0.0,
        return_attn_probs=True,
    )
    return Attended(out.transpose(1, 2), lse)


def _cuda_flash_refuses(call: Call) -> str | None:
    return _needs_cuda_half(call) or ("it takes no softcap" if call.softcap else None)


def _cuda_flash(call: Call) -> Attended:
    """PyTorch's flash-attention, which reads grouped key heads as they are (`mha_fwd` in its flash_api.cpp)."""
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        call.query, call.key, call.value, 0.0, call.causal, False, scale=call.scaling
    )
    return Attended(out, lse)


def _cuda_efficient_refuses(call: Call) -> str | None:
    if call.query.device.type != "cuda":
        return f"it needs a CUDA device and the model is on {call.query.device.type}"
    if call.query.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"it needs float16, bfloat16 or float32 and got {call.query.dtype}"
    if call.query.shape[-1] % 8:
        return f"it needs a head dimension in steps of 8 and got {call.query.shape[-1]}"
    if call.softcap:
        return "it takes no softcap"
    return _same_width(call)


def _cuda_efficient(call: Call) -> Attended:
    """PyTorch's memory-efficient attention, which wants as many key heads as query heads and reads them by strides.

    Each key head becomes a batch row, whose query heads all read the same memory (stride 0): nothing is repeated. With
    a mask prompts go one after the other, since a mask can be shared by the heads of one prompt alone without a copy.
    """
    batch, heads, length, _ = call.query.shape
    bias = None if call.mask is None else _aligned_bias(call, multiple=8).expand(batch, -1, -1, -1)
    groups = [slice(None)] if bias is None else [slice(row, row + 1) for row in range(batch)]
    parts = [_efficient_group(call, rows, bias) for rows in groups]
    out, lse = (torch.cat(found) if len(found) > 1 else found[0] for found in zip(*parts, strict=True))
    return _mend_empty_rows(call, out.reshape(batch, heads, length, -1), lse.reshape(batch, heads, length))


def _efficient_group(call: Call, rows: slice, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of some prompts, `(prompts * kv_heads, heads / kv_heads, query, ...)`."""
    repeats = call.query.shape[1] // call.key.shape[1]
    query = call.query[rows]
    query = query.reshape(-1, repeats, *query.shape[2:])
    key, value = (
        tensor[rows].reshape(-1, 1, *tensor.shape[2:]).expand(-1, repeats, -1, -1) for tensor in (call.key, call.value)
    )
    shared = None if bias is None else bias[rows].transpose(0, 1).expand(len(query), repeats, -1, -1)
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, shared, True, 0.0, call.causal, scale=call.scaling
    )
    # The kernel pads its log-sum-exp to whole blocks of queries.
    return out, lse[..., : query.shape[2]]


@cache
def cpu_flash_is_sound() -> bool:
    """Whether PyTorch's CPU kernel does here what newer ones do, tried on a few numbers.

    Older ones give wrong numbers without a word: before 2.9 they read no key head for several query heads
    (https://github.com/pytorch/pytorch/pull/157893), and that of 2.5 makes finite numbers of NaN.
    """
    query = torch.linspace(-1.0, 1.0, 32, device="cpu").reshape(1, 2, 2, 8)
    query[:, 1, 1] = math.nan
    for keys in (1, FEW_KEYS):
        key, value = torch.linspace(-2.0, 1.0, 16 * keys, device="cpu").reshape(2, 1, 1, keys, 8)
        call = Call(query, key, value, 0.5, causal=False, mask=None, softcap=None)
        got, expected = _cpu_flash(call), _eager(call)
        finite = got.lse.isfinite() & got.out.isfinite().all(-1)
        pairs = zip(got, expected, strict=True)
        if not torch.equal(finite, expected.lse.isfinite()) or not all(
            torch.allclose(one[finite], other[finite], atol=1e-3) for one, other in pairs
        ):
            return False
    return True


def _cpu_flash_refuses(call: Call) -> str | None:
    if call.query.device.type != "cpu":
        return f"it needs the CPU and the model is on {call.query.device.type}"
    if call.softcap:
        return "it takes no softcap"
    if not cpu_flash_is_sound():
        return (
            f"that of PyTorch {torch.__version__} gives wrong numbers where heads share keys or numbers are not "
            "finite; newer releases do not"
        )
    return _same_width(call)


def _cpu_flash(call: Call) -> Attended:
    bias = None if call.mask is None else _bias(call)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        call.query, call.key, call.value, 0.0, call.causal, attn_mask=bias, scale=call.scaling
    )
    if call.key.shape[2] < FEW_KEYS and not lse.all():
        # Where keys do not fill a vector of the processor, the kernel takes logits that are all NaN for none at all and
        # gives a log-sum-exp of 0.
        lse = lse + 0.0 * (
            call.query.sum(-1, dtype=lse.dtype) + call.key.sum((1, 2, 3), dtype=lse.dtype)[:, None, None]
        )
    return _mend_empty_rows(call, out, lse)


def _eager(call: Call) -> Attended:
    """Plain matrix products in float32 (float64 stays), in blocks of queries so that memory stays bounded."""
    batch, heads, length, _ = call.query.shape
    kv_heads, keys, width = call.value.shape[1:]
    dtype = _eager_dtype(call)
    value = call.value.to(dtype).unsqueeze(2)
    out = call.query.new_empty(batch, heads, length, width)
    lse = torch.empty(batch, heads, length, dtype=dtype, device=call.query.device)
    for rows in query_blocks(call):
        logits = block_logits(call, rows)
        lse[:, :, rows] = logits.logsumexp(-1)
        weights = torch.exp(logits - lse[:, :, rows].nan_to_num(neginf=0.0).unsqueeze(-1))
        weights = weights.reshape(batch, kv_heads, heads // kv_heads, -1, keys)
        out[:, :, rows] = (weights @ value).reshape(batch, heads, -1, width).to(out.dtype)
    return Attended(out, lse)


def query_blocks(call: Call) -> Iterator[slice]:
    """Blocks of queries whose logits stay below `EAGER_BLOCK_ELEMENTS`."""
    batch, heads, length, _ = call.query.shape
    block = max(1, EAGER_BLOCK_ELEMENTS // max(1, batch * heads * call.key.shape[2]))
    yield from (slice(start, min(start + block, length)) for start in range(0, length, block))


def block_logits(call: Call, rows: slice) -> Tensor:
    """Logits of a block of queries, capped and masked, `(batch, heads, block, keys)` in float32 (float64 stays)."""
    batch, heads, length, _ = call.query.shape
    kv_heads, keys = call.key.shape[1:3]
    dtype = _eager_dtype(call)
    key = call.key.to(dtype).unsqueeze(2).transpose(-1, -2)
    query = call.query.reshape(batch, kv_heads, heads // kv_heads, length, -1)
    logits = (query[..., rows, :].to(dtype) @ key) * call.scaling
    if call.softcap:
        logits = call.softcap * torch.tanh(logits / call.softcap)
    logits = logits.reshape(batch, heads, -1, keys)
    if call.causal:
        ahead = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(rows.start + 1)
        logits = logits.masked_fill(ahead, -math.inf)
    if call.mask is not None:
        logits = logits.masked_fill(~call.mask.expand(batch, heads, length, keys)[:, :, rows], -math.inf)
    return logits


def _eager_dtype(call: Call) -> torch.dtype:
    return torch.float64 if call.query.dtype == torch.float64 else torch.float32


def _bias(call: Call) -> Tensor:
    """The boolean mask as an additive one in the query's dtype."""
    assert call.mask is not None
    return torch.zeros_like(call.mask, dtype=call.query.dtype).masked_fill_(~call.mask, -math.inf)


def _aligned_bias(call: Call, multiple: int) -> Tensor:
    """The additive mask in memory whose rows start at multiples of `multiple` elements, of the mask's own shape."""
    bias = _bias(call)
    if bias.shape[-1] % multiple == 0:
        return bias
    padded = bias.new_zeros(*bias.shape[:-1], math.ceil(bias.shape[-1] / multiple) * multiple)
    padded[..., : bias.shape[-1]] = bias
    return padded[..., : bias.shape[-1]]


def _mend_empty_rows(call: Call, out: Tensor, lse: Tensor) -> Attended:
    """Queries that may attend to no key: the kernels return a finite log-sum-exp, the truth is -inf."""
    if call.mask is None:
        return Attended(out, lse)
    empty = ~call.mask.any(-1).expand(lse.shape)
    return Attended(out.masked_fill(empty.unsqueeze(-1), 0.0), lse.masked_fill(empty, -math.inf))


LADDER = (
    Rung("flash_attn", _flash_attn_refuses, _flash_attn),
    Rung("cuda_flash", _cuda_flash_refuses, _cuda_flash),
    Rung("cuda_efficient", _cuda_efficient_refuses, _cuda_efficient),
    Rung("cpu_flash", _cpu_flash_refuses, _cpu_flash),
    Rung("eager", lambda call: None, _eager),
)
BACKENDS = tuple(rung.name for rung in LADDER)
