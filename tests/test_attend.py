"""Attention with log-sum-exp: every rung against the definition, and the CUDA ones by their contract."""

from __future__ import annotations

import math
import sys
from collections import Counter
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers.devices import devices
from helpers.machine import CPU_BACKENDS
from lm_eval_ape.attention import kernels
from lm_eval_ape.attention.attend import attend
from lm_eval_ape.attention.kernels import BACKENDS, LADDER, Call
from lm_eval_ape.errors import ApeError

HEADS, KV_HEADS, DIM = 8, 2, 16


def inputs(rows: int, queries: int, keys: int, groups: int = 1, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rows * 100 + queries * 10 + keys)
    shapes = [(rows, HEADS, queries, DIM), (groups, KV_HEADS, keys, DIM), (groups, KV_HEADS, keys, DIM)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def definition(  # noqa: PLR0917
    query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None = None, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    rows = query.shape[0] // key.shape[0]
    key, value = (x.double().repeat_interleave(rows, 0).repeat_interleave(HEADS // KV_HEADS, 1) for x in (key, value))
    logits = torch.einsum("bhqd,bhkd->bhqk", query.double(), key) * scaling
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf)
    return torch.nan_to_num(logits.softmax(-1)) @ value, logits.logsumexp(-1)


def assert_close(got: Any, expected: tuple[Tensor, Tensor], tolerance: float = 1e-12) -> None:
    assert (got.out.double() - expected[0]).abs().max() < tolerance
    finite = ~expected[1].isinf()
    assert torch.equal(~got.lse.isinf(), finite)
    assert (got.lse.double() - expected[1])[finite].abs().max() < tolerance


@pytest.mark.parametrize("backend", [*CPU_BACKENDS, "auto"])
@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (6, 1), (6, 3)])
@pytest.mark.parametrize("queries", [1, 5])
def test_rows_that_share_keys_attend_as_if_the_keys_were_repeated(
    backend: str, rows: int, groups: int, queries: int
) -> None:
    query, key, value = inputs(rows, queries, 11, groups)
    got = attend(query, key, value, scaling=0.3, backend=backend)
    assert_close(got, definition(query, key, value, 0.3))


@pytest.mark.parametrize("fault", ["reads no grouped heads", "makes numbers of NaN"])
def test_an_older_pytorchs_cpu_kernel_that_gives_wrong_numbers_is_not_used(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def faulty(query: Tensor, key: Tensor, *args: Any, **options: Any) -> Any:
        if fault == "makes numbers of NaN":
            return kernel(query.nan_to_num(), key, *args, **options)
        return kernel(query, key.roll(1, -1), *args, **options)

    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", faulty)
    kernels.cpu_flash_is_sound.cache_clear()
    try:
        query, key, value = inputs(2, 5, 5, groups=2)
        query[0, 0, 0, 0] = torch.nan
        used: Counter[str] = Counter()
        got = attend(query, key, value, scaling=0.3, used=used)
        assert used == {"eager": 1}
        assert torch.equal(got.lse.isnan(), query.isnan().any(-1))
        with pytest.raises(ApeError, match=r"that of PyTorch .* gives wrong numbers"):
            attend(query, key, value, scaling=0.3, backend="cpu_flash")
    finally:
        kernels.cpu_flash_is_sound.cache_clear()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("side", ["query", "key", "value"])
@pytest.mark.parametrize("keys", [1, 3, 7, 8, 20, 31, 32, 70])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_not_finite_leaves_no_finite_row(backend: str, side: str, keys: int, number: float) -> None:
    query, key, value = inputs(1, 5, keys, dtype=torch.float32)
    {"query": query, "key": key, "value": value}[side][0, 1, keys // 2 if side != "query" else 2] = number
    got = attend(query, key, value, scaling=0.3, backend=backend)
    finite = got.lse.isfinite() & got.out.isfinite().all(-1)
    # The second query head reads the first key head, the second key head serves four.
    rows = finite[0, 1, 2] if side == "query" else finite[0, HEADS // KV_HEADS :]
    assert not rows.any()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_causal_queries_see_no_key_ahead(backend: str) -> None:
    query, key, value = inputs(2, 9, 9, 2)
    got = attend(query, key, value, scaling=0.3, causal=True, backend=backend)
    assert_close(got, definition(query, key, value, 0.3, torch.ones(9, 9, dtype=torch.bool).tril()))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize(("rows", "groups"), [(4, 4), (4, 2), (4, 1)])
def test_masked_queries_and_queries_without_any_key(backend: str, rows: int, groups: int) -> None:
    query, key, value = inputs(rows, 5, 7, groups)
    mask = torch.rand(rows, 1, 5, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    mask[1, :, 2] = False
    got = attend(query, key, value, scaling=0.3, mask=mask, backend=backend)
    assert_close(got, definition(query, key, value, 0.3, mask))


def test_a_softcap_goes_to_eager_attention() -> None:
    query, key, value = inputs(3, 4, 6, 3)
    assert_close(attend(query, key, value, scaling=2.0, softcap=3.0), definition(query, key, value, 2.0, None, 3.0))


@pytest.mark.parametrize("causal", [True, False])
def test_eager_attention_in_small_blocks_equals_one_block(monkeypatch: pytest.MonkeyPatch, causal: bool) -> None:
    query, key, value = inputs(2, 9, 9, 2)
    whole = attend(query, key, value, scaling=0.3, causal=causal, backend="eager")
    monkeypatch.setattr(kernels, "EAGER_BLOCK_ELEMENTS", 2 * HEADS * 9 * 2)
    assert_close(attend(query, key, value, scaling=0.3, causal=causal, backend="eager"), (whole.out, whole.lse))


def test_values_of_another_width_than_keys_are_served() -> None:
    query, key, value = inputs(1, 3, 5)
    got = attend(query, key, value[..., :6], scaling=0.3)
    assert_close(got, definition(query, key, value[..., :6], 0.3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_half_precision_keeps_the_log_sum_exp_in_float32(dtype: torch.dtype, backend: str) -> None:
    query, key, value = inputs(2, 3, 50, dtype=dtype)
    got = attend(query, key, value, scaling=0.3, backend=backend)
    assert got.lse.dtype == torch.float32
    expected = definition(query, key, value, 0.3)
    # Rounding a log-sum-exp of this size to bfloat16 would cost 1e-2; the kernel's fast exponential costs 3e-5.
    assert (got.lse - expected[1]).abs().max() < 1e-4
    assert (got.out.double() - expected[0]).abs().max() < 0.02


def test_a_backend_that_cannot_serve_says_why() -> None:
    query, key, value = inputs(1, 3, 5)
    with pytest.raises(ApeError, match=r"attn_backend=cpu_flash cannot serve .* takes no softcap.*attn_backend=auto"):
        attend(query, key, value, scaling=1.0, softcap=2.0, backend="cpu_flash")
    with pytest.raises(ApeError, match="needs a CUDA device and the model is on cpu"):
        attend(query, key, value, scaling=1.0, backend="flash_attn")
    with pytest.raises(
        ApeError, match="one of flash_attn, cuda_flash, cuda_efficient, cpu_flash, eager, but got 'fast'"
    ):
        attend(query, key, value, scaling=1.0, backend="fast")


def flash_attn_stand_in(  # noqa: PLR0917 (its signature is the contract)
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> tuple[Tensor, Tensor, None]:
    """`flash_attn_func` by its documentation: (batch, tokens, heads, dim), bottom-right causal, float32 LSE."""
    assert return_attn_probs
    assert dropout_p == 0.0
    queries, keys = q.shape[1], k.shape[1]
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) if causal else None
    rep = q.shape[2] // k.shape[2]
    query, key, value = (
        q.transpose(1, 2).float(),
        *(x.transpose(1, 2).float().repeat_interleave(rep, 1) for x in (k, v)),
    )
    logits = query @ key.transpose(-1, -2) * (softmax_scale or q.shape[-1] ** -0.5)
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    logits = logits if mask is None else logits.masked_fill(~mask, -math.inf)
    return (logits.softmax(-1) @ value).transpose(1, 2).to(q.dtype), logits.logsumexp(-1), None


@pytest.fixture
def flash_attn(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("flash_attn")
    module.flash_attn_func = flash_attn_stand_in  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)


@pytest.mark.usefixtures("flash_attn")
@pytest.mark.parametrize(("queries", "causal"), [(4, False), (1, False), (7, True)])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_the_flash_attn_rung_meets_its_contract(queries: int, causal: bool, softcap: float | None) -> None:
    query, key, value = inputs(1, queries, 7, dtype=torch.bfloat16)
    rung = next(rung for rung in LADDER if rung.name == "flash_attn")
    got = rung.run(Call(query, key, value, 0.3, causal, None, softcap))
    mask = torch.ones(queries, 7, dtype=torch.bool).tril() if causal else None
    expected = definition(query, key, value, 0.3, mask, softcap)
    assert got.lse.shape == (1, HEADS, queries)
    assert got.lse.dtype == torch.float32
    assert (got.lse - expected[1]).abs().max() < 1e-4
    assert (got.out.double() - expected[0]).abs().max() < 0.02


@pytest.mark.usefixtures("flash_attn")
def test_the_flash_attn_rung_refuses_what_it_cannot_do() -> None:
    rung = next(rung for rung in LADDER if rung.name == "flash_attn")
    query, key, value = inputs(1, 3, 7, dtype=torch.bfloat16)
    cuda = torch.device("cuda")

    class OnCuda(Tensor):
        device = cuda  # type: ignore[assignment]

    def reason(mask: Tensor | None = None, dtype: torch.dtype = torch.bfloat16, width: int = DIM) -> str | None:
        on_cuda = query.to(dtype)[..., :width].as_subclass(OnCuda)
        return rung.refuses(Call(on_cuda, key[..., :width], value[..., :width], 0.3, False, mask, None))

    assert reason() is None
    assert "no mask" in str(reason(mask=torch.ones(3, 7, dtype=torch.bool)))
    assert "float16 or bfloat16" in str(reason(dtype=torch.float32))
    assert "steps of 8" in str(reason(width=12))


def efficient_stand_in(  # noqa: PLR0917 (its signature is the contract)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    compute_lse: bool,
    dropout_p: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, None, None]:
    """PyTorch's memory-efficient kernel by its checks: equal heads, aligned strides, a bias of the whole shape."""
    assert compute_lse
    assert not dropout_p
    assert scale is not None
    assert query.shape[:2] == key.shape[:2] == value.shape[:2]
    for tensor in (query, key, value, *([] if bias is None else [bias])):
        assert tensor.stride(-1) == 1
        assert not any(stride % 8 for stride in tensor.stride()[:-1])
    queries, keys = query.shape[2], key.shape[2]
    logits = query.float() @ key.float().transpose(-1, -2) * scale
    if causal:
        logits = logits.masked_fill(~torch.ones(queries, keys, dtype=torch.bool).tril(), -math.inf)
    if bias is not None:
        assert bias.shape == (*query.shape[:3], keys)
        assert bias.dtype == query.dtype
        logits = logits + bias
    padded = math.ceil(queries / 32) * 32
    lse = torch.nn.functional.pad(logits.logsumexp(-1), (0, padded - queries), value=math.inf)
    return torch.nan_to_num(logits.softmax(-1)).to(query.dtype) @ value, lse, None, None


def flash_stand_in(  # noqa: PLR0917 (its signature is the contract)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    causal: bool = False,
    debug: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, None]:
    """PyTorch's flash-attention by the checks of `mha_fwd`: half precision, key heads that divide query heads."""
    assert not dropout_p
    assert not debug
    assert query.dtype in (torch.float16, torch.bfloat16)
    assert query.shape[1] % key.shape[1] == 0
    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(repeats, 1) for tensor in (key, value))
    mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril() if causal else None
    logits = query.float() @ key.float().transpose(-1, -2) * scale
    logits = logits if mask is None else logits.masked_fill(~mask, -math.inf)
    return (logits.softmax(-1) @ value.float()).to(query.dtype), logits.logsumexp(-1), None


@pytest.fixture
def cuda_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_efficient_attention", efficient_stand_in)
    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_flash_attention", flash_stand_in)
    # The stand-ins compute on the CPU, which the rungs would refuse.
    monkeypatch.setattr(
        "lm_eval_ape.attention.attend._choose", lambda call, name: next(rung for rung in LADDER if rung.name == name)
    )


# What each CUDA kernel takes.
CUDA_KINDS = [
    *(("flash_attn", kind) for kind in ("causal", "free")),
    *(("cuda_flash", kind) for kind in ("causal", "free")),
    *(("cuda_efficient", kind) for kind in ("causal", "free", "masked", "masked for each")),
]


@pytest.mark.usefixtures("cuda_kernels")
@pytest.mark.parametrize(
    ("backend", "kind", "rows", "groups"),
    [
        (backend, kind, rows, groups)
        for backend, kind in CUDA_KINDS
        for rows, groups in ((1, 1), (3, 3), (6, 3), (4, 1))
        # Causal rows share no keys.
        if backend != "flash_attn" and (kind != "causal" or rows == groups)
    ],
)
@pytest.mark.parametrize("keys", [5, 8])
def test_pytorchs_cuda_rungs_meet_their_contracts(backend: str, kind: str, rows: int, groups: int, keys: int) -> None:
    query, key, value = inputs(rows, keys, keys, groups, dtype=torch.bfloat16)
    mask = None
    if "masked" in kind:
        drawn = torch.rand(rows if "each" in kind else 1, 1, keys, keys, generator=torch.Generator().manual_seed(0))
        mask = drawn > 0.4
        mask[0, :, 2] = False
    got = attend(query, key, value, scaling=0.3, causal=kind == "causal", mask=mask, backend=backend)
    seen = torch.ones(keys, keys, dtype=torch.bool).tril() if kind == "causal" else mask
    assert got.lse.dtype == torch.float32
    assert_close(got, definition(query, key, value, 0.3, seen), 0.02)


class Allocations(TorchDispatchMode):
    """The sizes of the tensors that operations make, views left out.

    Attributes:
        sizes: In elements.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not (func.is_view or func is torch.ops.aten._unsafe_view.default):
            self.sizes += [one.numel() for one in tree_leaves(made) if isinstance(one, Tensor)]
        return made


@pytest.mark.parametrize(("backend", "kind"), CUDA_KINDS)
@pytest.mark.parametrize("prompts", [1, 2])
def test_no_cuda_rung_copies_the_keys_of_grouped_heads(
    backend: str, kind: str, prompts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Llama-3.1-8B's heads; as many queries as keys where attention is causal, else a few.
    heads, kv_heads, width, keys = 32, 8, 128, 8192
    queries = keys if kind == "causal" else 2
    with devices(only_shapes=True):
        shapes = ((heads, queries), (kv_heads, keys), (kv_heads, keys))
        query, key, value = (
            torch.empty(prompts, *shape, width, dtype=torch.bfloat16, device="cuda:0") for shape in shapes
        )

        def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> tuple[Tensor, Tensor, None]:
            return torch.empty_like(q), q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32), None

        module = ModuleType("flash_attn")
        module.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "flash_attn", module)
        mask = None
        if "masked" in kind:
            many = prompts if "each" in kind else 1
            mask = torch.ones(many, 1, queries, keys, dtype=torch.bool, device="cuda:0")
        with Allocations() as found:
            got = attend(query, key, value, scaling=0.3, causal=kind == "causal", mask=mask, backend=backend)
        assert got.out.shape == query.shape
        assert got.lse.shape == query.shape[:3]
        assert got.lse.dtype == torch.float32
    # What a rung must make: its output, which is as large as the queries.
    allowed = max(query.numel(), 4 * prompts * queries * keys if mask is not None else 0)
    assert found.sizes
    assert max(found.sizes) <= allowed
    if kind == "causal":
        # The output, at most copied once; keys and values, repeated, would be as large each.
        assert sum(found.sizes) < 2.5 * query.numel()
    else:
        assert allowed < key.numel()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["flash_attn", "cuda_flash", "cuda_efficient"])
@pytest.mark.parametrize("causal", [True, False])
def test_the_cuda_rungs_match_the_definition(backend: str, causal: bool) -> None:
    if backend == "flash_attn":
        pytest.importorskip("flash_attn")
    query, key, value = inputs(2, 64, 64, 2, dtype=torch.bfloat16)
    got = attend(query.cuda(), key.cuda(), value.cuda(), scaling=0.3, causal=causal, backend=backend)
    mask = torch.ones(64, 64, dtype=torch.bool).tril() if causal else None
    expected = definition(query, key, value, 0.3, mask)
    assert (got.lse.cpu() - expected[1]).abs().max() < 1e-3
    assert (got.out.cpu().double() - expected[0]).abs().max() < 0.03


def test_the_ladder_ends_with_a_rung_that_serves_everything() -> None:
    query, key, value = inputs(1, 3, 7)
    call = Call(query, key, value[..., :4], 1.0, False, torch.ones(3, 7, dtype=torch.bool), 2.0)
    assert LADDER[-1].refuses(call) is None
    assert len(set(BACKENDS)) == len(BACKENDS)
