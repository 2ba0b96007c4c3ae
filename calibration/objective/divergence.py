"""The Kullback-Leibler divergence of two next-token distributions."""

from __future__ import annotations

import torch
from torch import Tensor


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
