"""Slopes of the divergence equal finite differences, row by row, whatever is kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import tiny
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.attention.segments import EncodedPrompt
from lm_eval_ape.calibration.gradient import differentiator
from lm_eval_ape.calibration.gradient.differentiator import Differentiator
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.objective.objective import Objective, Positions
from lm_eval_ape.calibration.objective.teacher import Teacher
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.prompts.prompt import Prompt


def tokens(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(5, 300, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


SAMPLE = Sample("task", 0, 0, Prompt(tokens(3, 0), (tokens(7, 1), tokens(5, 2), tokens(9, 3)), tokens(4, 4)), "digest")
LAYERS, HEADS = 3, 4


class Setting:
    """One prompt, ready to be differentiated."""

    def __init__(self, lm: ApeHFLM, positions: Positions = "next") -> None:
        self.lm = lm
        tokens = 1 if positions == "query" else 3
        meter = Meter(lm, Objective(tokens, "teacher", "continue", positions), max_rows=None, cache=None)
        self.meter = meter
        self.teacher: Teacher = meter.teacher(SAMPLE)
        self.encoded: EncodedPrompt = Engine(lm.model, lm.settings).encode(SAMPLE.prompt)

    def __call__(self, parameters: Tensor, wanted: Tensor | None = None, **options: Any) -> differentiator.Gradient:
        differentiator = options.pop("differentiator", None) or Differentiator(self.lm, **options)
        rows = torch.ones(len(parameters), dtype=torch.bool) if wanted is None else wanted
        return differentiator.differentiate(
            SAMPLE.prompt, self.encoded, self.teacher, parameters, rows, sample="sample"
        )


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models take their norms in float32 whatever their dtype; differences need all digits of float64."""
    to = Tensor.to

    def keep(tensor: Tensor, *given: Any, **named: Any) -> Tensor:
        return tensor if tensor.dtype == torch.float64 and torch.float32 in given else to(tensor, *given, **named)

    monkeypatch.setattr(Tensor, "to", keep)
    monkeypatch.setattr(Tensor, "float", lambda tensor: keep(tensor, torch.float32))


def parameters(rows: int, count: int = 2, layers: int = LAYERS, heads: int = HEADS) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return 0.3 * torch.randn(rows, count, layers, heads, dtype=torch.float64, generator=generator)


def finite_differences(setting: Setting, at: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of one row, all shifted rows in one batch without a gradient."""
    size = at.numel()
    shifts = step * torch.eye(size, dtype=torch.float64).view(size, *at.shape[1:])
    rows = torch.cat([at + shifts, at - shifts])
    kl = setting(rows, torch.zeros(2 * size, dtype=torch.bool)).kl
    return ((kl[:size] - kl[size:]) / (2 * step)).view_as(at)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    "settings",
    [{}, {"attn_backend": "eager"}, {"scale_mode": "value"}, {"scale_mode": "additive"}, {"strategy": "parallel"}],
    ids=str,
)
def test_slopes_equal_finite_differences(load: Callable[..., ApeHFLM], settings: dict[str, Any]) -> None:
    setting = Setting(load(**settings))
    at = parameters(1)
    slope = setting(at).slope
    expected = finite_differences(setting, at)
    assert torch.allclose(slope, expected, rtol=1e-5, atol=1e-8)
    assert slope.abs().max() > 1e-3


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("family", ["gemma2", "gpt_oss"])
def test_windows_softcaps_and_sinks_have_the_right_slopes(
    family: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tiny.save_checkpoint(tmp_path_factory.mktemp(family), family, dtype=torch.float64)
    # Older releases of transformers take sdpa for Gemma 2, without its softcap.
    eager = {"experts_implementation": "eager", "attn_implementation": "eager"}
    setting = Setting(ApeHFLM(pretrained=path, dtype="float64", device="cpu", **eager))
    at = parameters(1)
    assert torch.allclose(setting(at).slope, finite_differences(setting, at), rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("positions", "count"), [("query", 4), ("both", 3 + 3)])
def test_slopes_of_the_querys_positions_equal_finite_differences(
    load: Callable[..., ApeHFLM], positions: Positions, count: int
) -> None:
    setting = Setting(load(), positions)
    assert len(setting.teacher.query) + len(setting.teacher.log_probs) == count
    at = parameters(1)
    slope = setting(at).slope
    assert torch.allclose(slope, finite_differences(setting, at), rtol=1e-5, atol=1e-8)
    assert slope.abs().max() > 1e-3
    assert not torch.allclose(slope, Setting(setting.lm)(at).slope, atol=1e-4)
    # The divergence is that which a grid of the same positions has.
    point = Point(0.8, 0.7)
    alone = torch.tensor(point, dtype=torch.float64).log().view(1, 2, 1, 1)
    expected = float(setting.meter.measure([SAMPLE], [point]).kl[0, 0])
    assert float(setting(alone).kl[0]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (LAYERS, 1)])
def test_shared_parameters_have_the_sum_of_their_heads_slopes(
    load: Callable[..., ApeHFLM], layers: int, heads: int
) -> None:
    setting = Setting(load())
    at = parameters(1, layers=layers, heads=heads)
    whole = setting(at.expand(1, 2, LAYERS, HEADS).clone()).slope
    summed = whole.sum(-1, keepdim=True) if layers > 1 else whole.sum((-2, -1), keepdim=True)
    assert torch.allclose(setting(at).slope, summed, atol=1e-12)


@pytest.mark.usefixtures("exact")
def test_a_prefix_pair_has_the_right_slopes(load: Callable[..., ApeHFLM]) -> None:
    setting = Setting(load())
    at = parameters(1, count=4)
    slope = setting(at).slope
    assert torch.allclose(slope, finite_differences(setting, at), rtol=1e-5, atol=1e-8)
    assert slope[:, 2:].abs().max() > 1e-4


def test_rows_do_not_mix_and_only_wanted_ones_have_a_slope(load: Callable[..., ApeHFLM]) -> None:
    setting = Setting(load())
    at = parameters(3)
    together = setting(at, torch.tensor([True, False, True]))
    for row in (0, 2):
        alone = setting(at[row : row + 1])
        assert torch.allclose(together.slope[row], alone.slope[0], atol=1e-12)
        assert together.kl[row] == pytest.approx(float(alone.kl[0]), abs=1e-12)
    assert together.slope[1].eq(0).all()
    in_pieces = setting(at, torch.tensor([True, False, True]), max_rows=1)
    assert torch.allclose(in_pieces.slope, together.slope, atol=1e-12)


def test_divergences_are_those_of_the_grids_scorer(load: Callable[..., ApeHFLM]) -> None:
    setting = Setting(load())
    point = Point(0.8, 0.7)
    at = torch.tensor(point, dtype=torch.float64).log().view(1, 2, 1, 1)
    assert float(setting(at).kl[0]) == pytest.approx(
        float(setting.meter.measure([SAMPLE], [point]).kl[0, 0]), abs=1e-12
    )


def test_activations_computed_again_change_no_slope(load: Callable[..., ApeHFLM]) -> None:
    setting = Setting(load())
    again = Differentiator(setting.lm)
    again.recomputes = True
    before = [dict(vars(module)) for module in setting.lm.model.modules()]
    assert torch.equal(setting(parameters(2), differentiator=again).slope, setting(parameters(2)).slope)
    # The model is as it was: its forwards, and that its weights may be trained.
    assert [set(vars(module)) for module in setting.lm.model.modules()] == [set(one) for one in before]
    assert all(weight.requires_grad and weight.grad is None for weight in setting.lm.model.parameters())


def test_short_memory_first_keeps_less_then_halves_the_batch(
    load: Callable[..., ApeHFLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(load())
    differentiator = Differentiator(setting.lm)
    batch, seen = differentiator._batch, []

    def tight(*given: Any, **named: Any) -> differentiator.Gradient:
        rows = len(given[3])
        seen.append((rows, differentiator.recomputes))
        if rows > 2:
            raise RuntimeError("CUDA out of memory.")
        return batch(*given, **named)

    monkeypatch.setattr(differentiator, "_batch", tight)
    found = setting(parameters(4), differentiator=differentiator)
    assert seen == [(4, False), (4, True), (2, True), (2, True)]
    assert torch.allclose(found.slope, setting(parameters(4)).slope, atol=1e-12)


def test_memory_that_never_suffices_is_told(load: Callable[..., ApeHFLM], monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(load())
    differentiator = Differentiator(setting.lm)

    def none(*given: Any, **named: Any) -> differentiator.Gradient:
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(differentiator, "_batch", none)
    with pytest.raises(ApeError, match="memory does not suffice to differentiate one pass of its 4 query tokens"):
        setting(parameters(2), differentiator=differentiator)
