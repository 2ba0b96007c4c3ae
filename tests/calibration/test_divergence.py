"""The divergence of two distributions: its definition, and what it cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, rel_entr

from helpers.property_profiles import examples
from lm_eval_ape.calibration.objective.divergence import forward_kl, log_probabilities, signals
from lm_eval_ape.calibration.objective.objective import SIGNALS

many = examples(60)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a teacher and of some students, `(vocabulary,)` and `(rows, vocabulary)`, float64."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    vocabulary, rows = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    spread = draw(st.sampled_from([0.01, 1.0, 30.0]))
    teacher = torch.randn(vocabulary, generator=generator, dtype=torch.float64) * spread
    return teacher, torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64) * spread


def kl(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    return forward_kl(log_probabilities(teacher), log_probabilities(student))


@given(pairs())
@many
def test_a_divergence_is_the_relative_entropy_of_teacher_and_student(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    teacher, student = pair
    p, q = np.exp(log_softmax(teacher.numpy())), np.exp(log_softmax(student.numpy(), axis=-1))
    assert kl(teacher, student).numpy() == pytest.approx(rel_entr(p, q).sum(-1), rel=1e-9, abs=1e-12)


@given(pairs(), st.floats(-1e3, 1e3))
@many
def test_it_is_no_less_than_nothing_and_a_constant_on_the_logits_does_not_matter(
    pair: tuple[torch.Tensor, torch.Tensor], constant: float
) -> None:
    teacher, student = pair
    found = kl(teacher, student)
    assert (found >= -1e-12).all()
    assert torch.allclose(kl(teacher + constant, student - constant), found, rtol=1e-9, atol=1e-9)


@given(pairs())
@many
def test_it_is_nothing_for_equals_and_for_nobody_else(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    teacher, student = pair
    assert float(kl(teacher, teacher[None])) == 0
    p, q = log_probabilities(teacher).exp(), log_probabilities(student).exp()
    # Pinsker's inequality: the divergence is at least half of the squared distance of the two.
    assert (kl(teacher, student) >= (p - q).abs().sum(-1) ** 2 / 2 - 1e-12).all()


@pytest.mark.parametrize(
    ("given_dtype", "kept"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_log_probabilities_are_float32_at_least(given_dtype: torch.dtype, kept: torch.dtype) -> None:
    logits = torch.linspace(-9, 9, 5000).to(given_dtype)
    found = log_probabilities(logits)
    assert found.dtype == kept
    assert float(found.exp().double().sum()) == pytest.approx(1, abs=1e-5)


@given(pairs())
@many
def test_every_signal_is_what_its_definition_says(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    teacher, student = pair
    p, q = np.exp(log_softmax(teacher.numpy())), np.exp(log_softmax(student.numpy(), axis=-1))
    found = dict(zip(SIGNALS, signals(log_probabilities(teacher), log_probabilities(student)).numpy().T, strict=True))
    assert found["kl"] == pytest.approx(rel_entr(p, q).sum(-1), rel=1e-9, abs=1e-12)
    assert found["reverse_kl"] == pytest.approx(rel_entr(q, p).sum(-1), rel=1e-9, abs=1e-12)
    # SciPy's distance is the divergence's root, and not a number where rounding takes it below 0.
    squared = np.nan_to_num([jensenshannon(p, row) ** 2 for row in q])
    assert found["js"] == pytest.approx(squared, rel=1e-7, abs=1e-12)
    assert found["total_variation"] == pytest.approx([np.maximum(p - row, 0).sum() for row in q], abs=1e-12)
    assert found["disagreement"].tolist() == [float(row.argmax() != p.argmax()) for row in q]
    assert found["nll"] == pytest.approx(-np.log(q[:, p.argmax()]), rel=1e-9)


def test_signals_are_finite_where_float32_underflows() -> None:
    teacher, student = torch.tensor([0.0, 300.0, -300.0]), torch.tensor([[300.0, 0.0, -300.0], [0.0, 300.0, -300.0]])
    apart, same = signals(log_probabilities(teacher), log_probabilities(student)).tolist()
    expected = {"kl": 300.0, "reverse_kl": 300.0, "js": np.log(2), "total_variation": 1.0, "disagreement": 1.0}
    assert dict(zip(SIGNALS, apart, strict=True)) == pytest.approx({**expected, "nll": 300.0}, rel=1e-6)
    assert same == pytest.approx([0.0] * len(SIGNALS), abs=1e-6)
