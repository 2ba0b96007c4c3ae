"""The gradient of attention through its output and its log-sum-exp equals finite differences, on every rung."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.machine import CPU_BACKENDS
from lm_eval_ape.attention import kernels
from lm_eval_ape.attention.attend import attend

CASES: dict[str, dict[str, Any]] = {
    "folded": {},
    "rows": {"rows": 3},
    "causal": {"causal": True, "queries": 5},
    "masked": {"mask": True},
}


def tensors(rows: int = 1, queries: int = 3, keys: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    return draw(rows, 4, queries, 2), draw(1, 2, keys, 2), draw(1, 2, keys, 2)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_finite_differences(case: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of single queries, so that sums over blocks are tested.
    monkeypatch.setattr(kernels, "EAGER_BLOCK_ELEMENTS", 1)
    options = CASES[case]
    query, key, value = tensors(options.get("rows", 1), options.get("queries", 3))
    mask = None
    if options.get("mask"):
        mask = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 1]], dtype=torch.bool)[None, None]

    def function(*inputs: Tensor) -> Any:
        return tuple(attend(*inputs, scaling=0.4, causal=options.get("causal", False), mask=mask, backend=backend))

    assert torch.autograd.gradcheck(function, (query, key, value))


def test_gradients_with_a_softcap_equal_finite_differences() -> None:
    assert torch.autograd.gradcheck(lambda *x: tuple(attend(*x, scaling=0.9, softcap=1.5)), tensors())


def test_a_query_without_any_key_has_no_gradient() -> None:
    query, key, value = tensors()
    mask = torch.ones(1, 1, 3, 5, dtype=torch.bool)
    mask[..., 1, :] = False
    out, lse = attend(query, key, value, scaling=0.4, mask=mask)
    (out.sum() + lse[lse.isfinite()].sum()).backward()
    assert query.grad is not None
    assert query.grad[:, :, 1].eq(0).all()
    assert query.grad.isfinite().all()
    assert query.grad[:, :, 0].abs().min() > 0


def test_without_gradients_nothing_is_recorded() -> None:
    query, key, value = tensors()
    with torch.no_grad():
        assert not attend(query, key, value, scaling=0.4).out.requires_grad
    assert not attend(query.detach(), key.detach(), value.detach(), scaling=0.4).lse.requires_grad
