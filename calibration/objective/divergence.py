"""How far a next-token distribution is from the teacher's: the divergence that is made small, and others beside it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lm_eval_ape.calibration.objective.objective import SIGNALS, Signal


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the full vocabulary in float32; float64 logits stay float64."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.to(dtype).log_softmax(-1)


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) in nats.

    Args:
        teacher: Log-probabilities, broadcastable to the student's.
        student: Log-probabilities, `(..., vocabulary)`.

    Returns:
        The divergences, `(...)`.
    """
    return torch.nn.functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


def signals(teacher: Tensor, student: Tensor) -> Tensor:
    """Everything that `SIGNALS` names, of one teacher's distribution p and some students' distributions q.

    `kl` is KL(p || q), `reverse_kl` KL(q || p), `js` their Jensen-Shannon divergence (at most ln 2), all in nats;
    `total_variation` half of the sum of |p - q|, 0 to 1; `disagreement` 1 where the greedy tokens differ, else 0; `nll`
    the negative log-likelihood of the teacher's greedy token under q, in nats.

    Args:
        teacher: Log-probabilities, `(vocabulary,)`.
        student: Log-probabilities, `(rows, vocabulary)`.

    Returns:
        `(rows, signals)`.
    """
    p, q = teacher.exp(), student.exp()
    # ln((p + q) / 2), which does not underflow where both are small.
    mixture = torch.logaddexp(teacher.expand_as(student), student).sub_(math.log(2))
    to_mixture = ((teacher - mixture) * p).sum(-1) + ((student - mixture) * q).sum(-1)
    greedy = teacher.argmax()
    found: dict[Signal, Tensor] = {
        "kl": forward_kl(teacher, student),
        "reverse_kl": ((student - teacher) * q).sum(-1),
        "js": to_mixture / 2,
        "total_variation": (p - q).abs_().sum(-1) / 2,
        "disagreement": (student.argmax(-1) != greedy).to(student.dtype),
        "nll": -student[:, greedy],
    }
    return torch.stack([found[name] for name in SIGNALS], dim=-1)
