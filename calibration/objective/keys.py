"""Digests of all that a divergence, a fit and a score depend on, under which they are kept from run to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lm_eval_ape.artefacts.identity import digest, read_settings
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.settings.strategy import Settings


def score_key(model: str, settings: Settings, objective: Objective, ends: Sequence[int], sample: Sample) -> str:
    """Digest of all that a sample's KL depends on beside (T, S).

    Args:
        model: What `model_key` gave.
        settings: How the sample is encoded and read.
        objective: What is measured.
        ends: Tokens that end a sequence.
        sample: The sample.
    """
    return digest(
        [
            model,
            list(ends),
            read_settings(settings),
            asdict(objective),
            [sample.prompt.prefix, sample.prompt.chunks, sample.prompt.query],
        ]
    )


def fit_key(
    model: str,
    settings: Settings,
    objective: Objective,
    ends: Sequence[int],
    samples: Sequence[Sample],
    *,
    plan: Sequence[Any],
) -> str:
    """Digest of all that a fit of T and S depends on."""
    return digest([[score_key(model, settings, objective, ends, sample) for sample in samples], list(plan)])


def label_key(
    model: str, settings: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]
) -> str:
    """Digest of all that a harness score depends on beside (T, S)."""
    return digest([model, dict(settings), list(tasks), dict(asked)])
