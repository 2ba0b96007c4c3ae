"""Teachers whose T and S are known: the parallel model itself, with T and S of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lm_eval_ape.attention.factors import Factors
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.objective.divergence import log_probabilities
from lm_eval_ape.calibration.objective.teacher import Teacher
from lm_eval_ape.harness.samples import Sample

_LOW, _HIGH = 0.5, 1.6
UNLIKE = Factors(((_LOW, _HIGH, _LOW, _HIGH),) * 3, ((_HIGH, _LOW, _HIGH, _LOW),) * 3)
"""Of three layers of four heads: in the middle of a layer nothing is left of what its heads have."""


def scattered(sample: Sample) -> Factors:
    """T and S around (0.9, 0.9) that are a sample's own: nothing is common to several samples."""
    generator = torch.Generator().manual_seed(int(sample.digest[:8], 16))
    tables = 0.9 * torch.exp(0.5 * torch.randn(2, 3, 4, generator=generator, dtype=torch.float64))
    temperature, scale = (tuple(tuple(row) for row in table) for table in tables.tolist())
    return Factors(temperature, scale)


def teach(patch: pytest.MonkeyPatch, factors: Callable[[Sample], Factors]) -> None:
    """Let the parallel model with these T and S be the teacher; its tokens stay the sequential model's.

    Args:
        patch: What takes it back.
        factors: T and S for each sample.
    """
    sequential = Meter.teacher

    def taught(meter: Meter, sample: Sample) -> Teacher:
        teacher, own, engine = sequential(meter, sample), factors(sample), meter.lm.engine
        inputs = [*sample.prompt.query, *teacher.tokens[:-1].tolist()]
        with torch.no_grad(), engine.tail(engine.encode(sample.prompt), [own]) as tail:
            logits = tail.read(inputs, keep=len(teacher.tokens))[0]
        return teacher._replace(log_probs=log_probabilities(logits))

    patch.setattr(Meter, "teacher", taught)
